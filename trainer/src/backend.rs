//! The seam between the epoch loop and whatever computes: backends differ by the whole training step.
//!
//! A backend is made with the training data and a [`State`]; it owns the state until it is asked for a copy. A step's
//! number, order of images and update follow from the state and the [`Batches`] alone, so that every backend does the
//! same work, and one may run many steps before it reports (a GPU runs an epoch as one graph).

use crate::adam::Adam;
use crate::dataset::{Augment, Order};
use crate::error::Error;
use bytemuck::zeroed_box;
use lenet_core::network::{Logits, Params, Pixels};
use std::ops::{ControlFlow, Range};

/// Everything that a training step changes.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// The parameters.
    pub params: Box<Params>,
    /// Adam's first moment of each parameter.
    pub moment1: Box<Params>,
    /// Adam's second moment of each parameter.
    pub moment2: Box<Params>,
    /// Steps done.
    pub step: u64,
    /// The running mean of the parameters after each step, where [`Adam::average`] asks for one.
    pub mean: Option<Box<Params>>,
}

impl State {
    /// Before the first step.
    pub fn new(params: Box<Params>) -> Self {
        Self {
            params,
            moment1: zeroed_box(),
            moment2: zeroed_box(),
            step: 0,
            mean: None,
        }
    }

    /// As a training by `adam` goes on from it: with a mean, begun at the parameters if there was none, or without.
    pub fn for_training(mut self, adam: &Adam) -> Self {
        self.mean = adam.average.map(|_| Box::new(*self.result()));
        self
    }

    /// The parameters that the training gives if it ends here: their mean, where there is one.
    pub fn result(&self) -> &Params {
        self.mean.as_deref().unwrap_or(&self.params)
    }
}

/// The batches of (a part of) an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batches {
    /// The epoch's order of images.
    pub order: Order,
    /// Images in the training split.
    pub images: usize,
    /// Images a batch; the epoch's last batch has what remains.
    pub batch_size: usize,
    /// The batches to train on, in order, counted from the start of the epoch.
    pub range: Range<usize>,
    /// How the images are changed before they are seen, if they are.
    pub augment: Option<Augment>,
}

impl Batches {
    /// A whole epoch over `images` images.
    pub fn epoch(order: Order, images: usize, batch_size: usize) -> Self {
        Self {
            order,
            images,
            batch_size,
            range: 0..images.div_ceil(batch_size),
            augment: None,
        }
    }

    /// The images of batch `index`, in order.
    pub fn batch(&self, index: usize) -> impl ExactSizeIterator<Item = usize> + Clone + use<> {
        let order = self.order;
        let start = index * self.batch_size;
        (start..(start + self.batch_size).min(self.images))
            .map(move |position| order.index(position))
    }
}

/// What a step tells: of the parameters before its update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepStats {
    /// Mean cross-entropy over the batch.
    pub loss: f32,
    /// Images whose largest logit was their label's.
    pub correct: u32,
    /// Images in the batch.
    pub images: u32,
}

/// Something that trains.
pub trait Backend {
    /// What computes, for people: `cpu (avx2, 2 threads)`.
    fn describe(&self) -> String;

    /// Trains on the batches in order and calls `on_step` for each, in order; it may do so late. `Break` ends the
    /// training after that step, or after as many more as the backend had under way; it is called for those too, so
    /// that the state's steps are those that were told.
    fn train(
        &mut self,
        batches: &Batches,
        on_step: &mut (dyn FnMut(StepStats) -> ControlFlow<()> + Send),
    ) -> Result<(), Error>;

    /// The logits of images by the present [`State::result`]. `out` has the length of `images`.
    fn logits(&mut self, images: &[Pixels], out: &mut [Logits]) -> Result<(), Error>;

    /// A copy of the state.
    fn state(&self) -> Result<State, Error>;
}
