//! The interface between the epoch loop and the backends, each of which implements the whole training step.
//!
//! A backend is created with the training data and a [`State`], which it owns. The number of a step, the order of images and
//! the update follow from the state and the [`Batches`] alone. So every backend does the same work, and one may run many steps
//! before it reports them (a GPU runs an epoch as one graph).

use crate::adam::Adam;
use crate::dataset::{Augment, Order};
use bytemuck::zeroed_box;
use lenet_core::network::{Logits, Params, Pixels};
use std::ops::{ControlFlow, Range};

/// The error returned when a backend is not available, or fails.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The chosen backend is not available, or failed.
    #[error("{0}")]
    Backend(String),
    /// No GPU can be used, or one failed.
    #[error("{cause}. {remedy}")]
    Cuda {
        /// What is missing, or what failed and the driver's reason.
        cause: String,
        /// What to do.
        remedy: &'static str,
    },
}

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
    /// The running mean of the parameters after each step, if [`Adam::average`] asks for one.
    pub mean: Option<Box<Params>>,
}

impl State {
    /// Returns the state before the first step.
    pub fn new(params: Box<Params>) -> Self {
        Self {
            params,
            moment1: zeroed_box(),
            moment2: zeroed_box(),
            step: 0,
            mean: None,
        }
    }

    /// Prepares the state for a training by `adam`: adds a mean that starts from the parameters, or removes the mean.
    pub fn for_training(mut self, adam: &Adam) -> Self {
        self.mean = adam.average.map(|_| Box::new(*self.result()));
        self
    }

    /// Returns the result if the training ends here: the mean of the parameters if there is one, otherwise the parameters.
    pub fn result(&self) -> &Params {
        self.mean.as_deref().unwrap_or(&self.params)
    }
}

/// The batches of an epoch, or of a part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batches {
    /// The epoch's order of images.
    pub order: Order,
    /// Images in the training split.
    pub images: usize,
    /// Images per batch; the epoch's last batch has what remains.
    pub batch_size: usize,
    /// The batches to train on, in order, counted from the start of the epoch.
    pub range: Range<usize>,
    /// The change applied to the images, if any.
    pub augment: Option<Augment>,
}

impl Batches {
    /// Returns the batches of a whole epoch over `images` images.
    pub fn epoch(order: Order, images: usize, batch_size: usize) -> Self {
        Self {
            order,
            images,
            batch_size,
            range: 0..images.div_ceil(batch_size),
            augment: None,
        }
    }

    /// Returns the images of batch `index`, in order.
    pub fn batch(&self, index: usize) -> impl ExactSizeIterator<Item = usize> + Clone + use<> {
        let order = self.order;
        let start = index * self.batch_size;
        (start..(start + self.batch_size).min(self.images))
            .map(move |position| order.index(position))
    }
}

/// The statistics of a step, computed with the parameters before its update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepStats {
    /// Mean cross-entropy over the batch.
    pub loss: f32,
    /// The number of images whose largest logit was that of their label.
    pub correct: u32,
    /// Images in the batch.
    pub images: u32,
}

/// A backend, which runs training steps.
pub trait Backend {
    /// Describes the backend to people, such as `cpu (avx2, 2 threads)`.
    fn describe(&self) -> String;

    /// Trains on the batches in order and calls `on_step` for each, in order, possibly late. If `on_step` returns `Break`, the
    /// training ends after that step and those that the backend has already begun. `on_step` is called for these too, so it
    /// sees every step that the state contains.
    fn train(
        &mut self,
        batches: &Batches,
        on_step: &mut (dyn FnMut(StepStats) -> ControlFlow<()> + Send),
    ) -> Result<(), Error>;

    /// Computes the logits of images with the current [`State::result`]. `out` has the length of `images`.
    fn logits(&mut self, images: &[Pixels], out: &mut [Logits]) -> Result<(), Error>;

    /// Returns a copy of the state.
    fn state(&self) -> Result<State, Error>;
}
