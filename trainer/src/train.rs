//! The epoch loop over a [`Backend`].
//!
//! The loop starts wherever a [`Progress`] and the backend's state stand, and stops after any step; so a training that
//! was stopped and goes on does, bit for bit, what one that was never stopped does.

use crate::backend::{Backend, Batches, State, StepStats};
use crate::dataset::{Dataset, Order};
use crate::error::Error;
use crate::evaluate::{Confusion, core_logits};
use lenet_core::arch::{CLASSES, Logits};
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
use std::time::Instant;

/// How long to train, in which order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// Times that each image is seen.
    pub epochs: u32,
    /// Images a step.
    pub batch_size: usize,
    /// Of the orders of images.
    pub seed: u64,
    /// Whether each epoch has an order of its own; else images come as in the file.
    pub shuffle: bool,
    /// Ends the training after so many steps in all.
    pub max_steps: Option<u64>,
    /// Learning rate, for the message when the loss is no number any more.
    pub lr: f64,
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

/// What an epoch gave.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Counted from 1.
    pub epoch: u32,
    /// Mean over the batches of the batch's loss.
    pub train_loss: f64,
    /// Share of training images classified correctly, counted during the epoch, before each step's update.
    pub train_acc: f64,
    /// Share of test images classified correctly after the epoch, by the backend.
    pub test_acc: f64,
    /// Training and test.
    pub seconds: f64,
}

/// Sums over the steps of an epoch that is under way.
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

    fn epoch(&self, epoch: u32, test_acc: f64) -> Epoch {
        Epoch {
            epoch,
            train_loss: self.loss / self.steps as f64,
            train_acc: f64::from(self.correct) / f64::from(self.images),
            test_acc,
            seconds: self.seconds,
        }
    }
}

/// How far a training has come. With the backend's state: all that it needs to go on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// The epochs done.
    pub epochs: Vec<Epoch>,
    /// The mean loss of each step.
    pub losses: Vec<f32>,
    /// The epoch after those done.
    pub partial: Partial,
}

/// What the loop tells as it goes.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A step is done. `Break` stops the training here.
    Step {
        /// Counted from 1.
        epoch: u32,
        /// Mean loss of its batch.
        loss: f32,
    },
    /// An epoch is done, the last of `progress`. `Break` has no effect.
    Epoch {
        /// Up to this epoch.
        progress: &'a Progress,
        /// After its last step.
        state: &'a State,
        /// After the last epoch: of the test images by [`core_logits`], the code which a board runs.
        tested: Option<&'a [Logits]>,
    },
}

/// Trains until the plan is done, and tests after each epoch. Returns whether it is done: `Break` if `on_event` stopped
/// it before.
///
/// # Errors
/// * `Settings`: nothing is left to do
/// * `Diverged`: the loss is not finite any more
/// * what the backend or `on_event` gives
pub fn train(
    backend: &mut dyn Backend,
    data: &Dataset,
    plan: &Plan,
    progress: &mut Progress,
    on_event: &mut dyn FnMut(Event<'_>) -> Result<ControlFlow<()>, Error>,
) -> Result<ControlFlow<()>, Error> {
    let images = data.train.len();
    let (all_steps, per_epoch) = (plan.steps(images), plan.steps_per_epoch(images));
    // A training may have been stopped between the last step of an epoch and its test.
    let done = progress.losses.len() as u64;
    if done > all_steps || done == all_steps && progress.partial.steps == 0 {
        return Err(Error::Settings(format!(
            "{} epochs, {done} steps, are done already, and {all_steps} steps are asked for; go on with more --epochs",
            progress.epochs.len()
        )));
    }
    loop {
        let epoch = progress.epochs.len() as u32 + 1;
        let order = match plan.shuffle {
            true => Order::shuffled(plan.seed, epoch - 1, images),
            false => Order::Sequential,
        };
        let mut batches = Batches::epoch(order, images, plan.batch_size);
        let before = u64::from(epoch - 1) * per_epoch as u64;
        batches.range = progress.partial.steps..per_epoch.min((all_steps - before) as usize);

        let start = Instant::now();
        let mut end = Ok(ControlFlow::Continue(()));
        backend.train(&batches, &mut |step| {
            progress.partial.add(&step);
            progress.losses.push(step.loss);
            // A backend may tell of steps after the one that ended the training.
            if let Ok(ControlFlow::Continue(())) = end {
                end = match step.loss.is_finite() {
                    true => on_event(Event::Step {
                        epoch,
                        loss: step.loss,
                    }),
                    false => Err(Error::Diverged {
                        epoch,
                        batch: progress.partial.steps,
                        loss: step.loss,
                        lr: plan.lr,
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
        let mut logits = vec![[0.0; CLASSES]; data.test.len()];
        backend.logits(data.test.images(), &mut logits)?;
        let test_acc = Confusion::new(&logits, data.test.labels()).accuracy();
        let is_last = state.step >= all_steps;
        let tested = is_last.then(|| core_logits(&state.params, data.test.images()));
        progress.partial.seconds += start.elapsed().as_secs_f64();
        progress
            .epochs
            .push(progress.partial.epoch(epoch, test_acc));
        progress.partial = Partial::default();
        let _ = on_event(Event::Epoch {
            progress,
            state: &state,
            tested: tested.as_deref(),
        })?;
        if is_last {
            return Ok(ControlFlow::Continue(()));
        }
    }
}
