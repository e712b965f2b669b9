//! The epoch loop over a [`Backend`].
//!
//! The loop starts from a [`Progress`] and the backend's state, and can stop after any step. A training that is stopped and
//! continued gives the same bits as one that never stopped.

use crate::backend::{Backend, Batches, State, StepStats};
use crate::dataset::{Augment, Dataset, Order, Split};
use crate::error::Error;
use crate::evaluate::{Confusion, core_logits};
use lenet_core::network::{CLASSES, Logits, Params};
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
use std::time::Instant;

/// The length of a training and the order of its images.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// Times that each image is seen.
    pub epochs: u32,
    /// Images per step.
    pub batch_size: usize,
    /// The seed for the orders of images.
    pub seed: u64,
    /// Whether each epoch has its own order; otherwise the images come in the order of the file.
    pub shuffle: bool,
    /// The number of steps after which the training ends, even within an epoch.
    pub max_steps: Option<u64>,
    /// Whether each epoch changes the images by its own [`Augment`].
    pub augment: bool,
    /// Ends the training after this many epochs in a row that were no better on the validation split than the best before.
    /// Epochs at the start in which nothing is learnt, see [`Split::is_chance`], do not count.
    pub patience: Option<u32>,
}

impl Plan {
    /// Steps of a whole epoch over `images` images.
    pub fn steps_per_epoch(&self, images: usize) -> usize {
        images.div_ceil(self.batch_size)
    }

    /// Steps in all.
    pub fn steps(&self, images: usize) -> u64 {
        let steps = u64::from(self.epochs) * self.steps_per_epoch(images) as u64;
        self.max_steps.map_or(steps, |limit| limit.min(steps))
    }
}

/// The results of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Counted from 1.
    pub epoch: u32,
    /// Mean over the batches of the batch's loss.
    pub train_loss: f64,
    /// Share of training images classified correctly, counted during the epoch, before each step's update.
    pub train_acc: f64,
    /// Share of [`Dataset::held_out`] classified correctly after the epoch, by the backend with [`State::result`].
    pub held_out_acc: f64,
    /// The time for training and measurement.
    pub seconds: f64,
}

/// Sums over the steps of an epoch that has begun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Partial {
    /// Steps done.
    pub steps: usize,
    /// Sum of the steps' losses.
    pub loss: f64,
    /// Images classified correctly.
    pub correct: u32,
    /// Images seen.
    pub images: u32,
    /// Time spent.
    pub seconds: f64,
}

impl Partial {
    fn add(&mut self, step: &StepStats) {
        self.steps += 1;
        self.loss += f64::from(step.loss);
        self.correct += step.correct;
        self.images += step.images;
    }

    fn epoch(&self, epoch: u32, held_out_acc: f64) -> Epoch {
        Epoch {
            epoch,
            train_loss: self.loss / self.steps as f64,
            train_acc: f64::from(self.correct) / f64::from(self.images),
            held_out_acc,
            seconds: self.seconds,
        }
    }
}

/// The progress of a training. With the backend's state, it is all that is needed to continue.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// The epochs done.
    pub epochs: Vec<Epoch>,
    /// The mean loss of each step.
    pub losses: Vec<f32>,
    /// The sums of the epoch after those done.
    pub partial: Partial,
    /// Whether [`Plan::max_steps`] ended the training within that epoch. It is false if the training was stopped.
    pub cut: bool,
    /// The parameters of the best epoch on the validation split, if there is a split and an epoch is done.
    pub best: Option<Box<Params>>,
}

impl Progress {
    /// Returns the first of the epochs done with the largest accuracy on the held-out images.
    pub fn best_epoch(&self) -> Option<&Epoch> {
        self.epochs
            .iter()
            .reduce(|best, epoch| match epoch.held_out_acc > best.held_out_acc {
                true => epoch,
                false => best,
            })
    }

    /// Returns whether the last `patience` epochs were no better than the best before, not counting those at the start in which
    /// nothing was learnt from `train`.
    pub(crate) fn is_exhausted(&self, patience: Option<u32>, train: &Split) -> bool {
        let Some(patience) = patience else {
            return false;
        };
        let best = self.best_epoch().map_or(0, |best| best.epoch);
        let at_chance = |epoch: &&Epoch| train.is_chance(epoch.train_acc);
        let flat = self.epochs.iter().take_while(at_chance).count() as u32;
        self.epochs.len() as u32 >= best.max(flat).saturating_add(patience)
    }
}

/// An event that the loop reports to `on_event`.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A step is done. `Break` stops the training here.
    Step {
        /// Counted from 1.
        epoch: u32,
        /// Mean loss of its batch.
        loss: f32,
        /// The sums of the epoch so far.
        partial: &'a Partial,
    },
    /// An epoch is done, the last of `progress`. `Break` has no effect.
    Epoch {
        /// Up to this epoch.
        progress: &'a Progress,
        /// The progress to continue from: that of `progress`, or, if [`Plan::max_steps`] ended the training within the epoch,
        /// that before the epoch was closed.
        resumable: &'a Progress,
        /// The state after the epoch's last step.
        state: &'a State,
        /// The training's result if this epoch is the last: the parameters of `state`, or with a validation split the best of
        /// `progress`.
        params: &'a Params,
        /// After the last epoch: the logits of the test images by [`core_logits`] with `params`, the code that a board runs.
        tested: Option<&'a [Logits]>,
    },
}

/// Trains until the plan is done, and measures on [`Dataset::held_out`] after each epoch. With a validation split, the test
/// images are used only once, at the end. Returns `Break` if `on_event` stopped the training before the plan was done.
///
/// # Errors
/// * `Settings`: nothing is left to do
/// * `Diverged`: the loss is no longer finite
/// * any error of the backend or `on_event`
pub fn train(
    backend: &mut dyn Backend,
    data: &Dataset,
    plan: &Plan,
    progress: &mut Progress,
    on_event: &mut (dyn FnMut(Event<'_>) -> Result<ControlFlow<()>, Error> + Send),
) -> Result<ControlFlow<()>, Error> {
    let images = data.train.len();
    let (all_steps, per_epoch) = (plan.steps(images), plan.steps_per_epoch(images));
    // A training may have been stopped between the last step of an epoch and its test.
    let done = progress.losses.len() as u64;
    if progress.is_exhausted(plan.patience, &data.train) && progress.partial.steps == 0 {
        return Err(Error::Settings(format!(
            "ended after {} epochs by --patience; continue with a larger one",
            progress.epochs.len()
        )));
    }
    let is_closed = progress.partial.steps == 0 || progress.cut;
    if done > all_steps || done == all_steps && is_closed {
        let of_epochs = u64::from(plan.epochs) * per_epoch as u64;
        let remedy = match plan.max_steps {
            Some(limit) if limit < of_epochs => "a larger --max-steps",
            Some(limit) if limit == of_epochs => "more --epochs and a larger --max-steps",
            _ => "more --epochs",
        };
        return Err(Error::Settings(format!(
            "{} epochs, {done} steps, are already done, and {all_steps} steps were requested; continue with {remedy}",
            progress.epochs.len()
        )));
    }
    progress.cut = false;
    loop {
        let epoch = progress.epochs.len() as u32 + 1;
        let order = match plan.shuffle {
            true => Order::shuffled(plan.seed, epoch - 1, images),
            false => Order::Sequential,
        };
        let mut batches = Batches::epoch(order, images, plan.batch_size);
        batches.augment = plan.augment.then(|| Augment::new(plan.seed, epoch - 1));
        let before = u64::from(epoch - 1) * per_epoch as u64;
        batches.range = progress.partial.steps..per_epoch.min((all_steps - before) as usize);

        let start = Instant::now();
        let mut end = Ok(ControlFlow::Continue(()));
        backend.train(&batches, &mut |step| {
            progress.partial.add(&step);
            progress.losses.push(step.loss);
            // A backend may report more steps after the one that ended the training.
            if let Ok(ControlFlow::Continue(())) = end {
                end = match step.loss.is_finite() {
                    true => on_event(Event::Step {
                        epoch,
                        loss: step.loss,
                        partial: &progress.partial,
                    }),
                    false => Err(Error::Diverged {
                        epoch,
                        batch: progress.partial.steps,
                        loss: step.loss,
                        lr: None,
                        last_good: None,
                    }),
                };
            }
            match end {
                Ok(flow) => flow,
                Err(_) => ControlFlow::Break(()),
            }
        })?;
        if end?.is_break() {
            progress.partial.seconds += start.elapsed().as_secs_f64();
            return Ok(ControlFlow::Break(()));
        }

        let state = backend.state()?;
        let held_out = data.held_out();
        let mut logits = vec![[0.0; CLASSES]; held_out.len()];
        backend.logits(held_out.images(), &mut logits)?;
        let held_out_acc = Confusion::new(&logits, held_out.labels()).accuracy();
        progress.partial.seconds += start.elapsed().as_secs_f64();
        // An incomplete epoch is closed for the report, but continues if the training is resumed.
        let cut = (progress.partial.steps < per_epoch).then(|| Progress {
            cut: true,
            ..progress.clone()
        });
        let best = progress.best_epoch();
        if data.val.is_some() && best.is_none_or(|best| held_out_acc > best.held_out_acc) {
            progress.best = Some(Box::new(*state.result()));
        }
        progress
            .epochs
            .push(progress.partial.epoch(epoch, held_out_acc));
        progress.partial = Partial::default();
        let is_last = state.step >= all_steps || progress.is_exhausted(plan.patience, &data.train);
        let params = progress.best.as_deref().unwrap_or(state.result());
        let tested = is_last.then(|| core_logits(params, data.test.images()));
        let _ = on_event(Event::Epoch {
            progress,
            resumable: cut.as_ref().unwrap_or(progress),
            state: &state,
            params,
            tested: tested.as_deref(),
        })?;
        if is_last {
            return Ok(ControlFlow::Continue(()));
        }
    }
}
