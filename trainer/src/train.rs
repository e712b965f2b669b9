//! The epoch loop over a [`Backend`].

use crate::backend::{Backend, Batches};
use crate::dataset::{Dataset, Order};
use crate::error::Error;
use crate::evaluate::{Confusion, core_logits};
use lenet_core::arch::{CLASSES, Logits, Params};
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

/// What an epoch gave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Epoch {
    /// Counted from 1.
    pub epoch: u32,
    /// Mean over the batches of the batch's loss.
    pub train_loss: f64,
    /// Share of training images classified correctly, counted during the epoch, before each step's update.
    pub train_acc: f64,
    /// Share of test images classified correctly after the epoch.
    pub test_acc: f64,
    /// Training and test.
    pub seconds: f64,
}

/// What the loop tells as it goes.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A step is done.
    Step {
        /// Counted from 1.
        epoch: u32,
        /// Mean loss of its batch.
        loss: f32,
    },
    /// An epoch is done.
    Epoch(&'a Epoch),
}

/// What the training gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Trained {
    /// The parameters after the last step.
    pub params: Box<Params>,
    /// Of the test images by the last parameters, by [`core_logits`].
    pub logits: Vec<Logits>,
    /// Counted from them.
    pub confusion: Confusion,
}

/// Trains, and tests after each epoch: by the backend, and by `lenet_core` after the last.
///
/// # Errors
/// * `Diverged`: the loss is not finite any more
/// * what the backend or `on_event` gives
pub fn train(
    backend: &mut dyn Backend,
    data: &Dataset,
    plan: &Plan,
    on_event: &mut dyn FnMut(Event<'_>) -> Result<(), Error>,
) -> Result<Trained, Error> {
    let images = data.train.len();
    let per_epoch = images.div_ceil(plan.batch_size) as u64;
    let all_steps = per_epoch * u64::from(plan.epochs);
    let mut steps_left = plan.max_steps.unwrap_or(all_steps).min(all_steps);
    for epoch in 1..=plan.epochs {
        let start = Instant::now();
        let order = match plan.shuffle {
            true => Order::shuffled(plan.seed, epoch - 1, images),
            false => Order::Sequential,
        };
        let mut batches = Batches::epoch(order, images, plan.batch_size);
        batches.range.end = batches.range.end.min(steps_left as usize);
        steps_left -= batches.range.len() as u64;

        let (mut losses, mut correct, mut seen, mut steps) = (0.0, 0, 0, 0);
        let mut failure = None;
        backend.train(&batches, &mut |step| {
            losses += f64::from(step.loss);
            correct += step.correct;
            seen += step.images;
            steps += 1;
            let event = match step.loss.is_finite() {
                true => on_event(Event::Step {
                    epoch,
                    loss: step.loss,
                }),
                false => Err(Error::Diverged {
                    epoch,
                    batch: steps,
                    loss: step.loss,
                    lr: plan.lr,
                }),
            };
            match event {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failure = Some(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        if let Some(error) = failure {
            return Err(error);
        }

        // The last accuracy is that of the code which the board runs.
        let last = steps_left == 0;
        let params = backend.state()?.params;
        let logits = match last {
            true => core_logits(&params, data.test.images()),
            false => {
                let mut logits = vec![[0.0; CLASSES]; data.test.len()];
                backend.logits(data.test.images(), &mut logits)?;
                logits
            }
        };
        let confusion = Confusion::new(&logits, data.test.labels());
        on_event(Event::Epoch(&Epoch {
            epoch,
            train_loss: losses / steps as f64,
            train_acc: f64::from(correct) / f64::from(seen),
            test_acc: confusion.accuracy(),
            seconds: start.elapsed().as_secs_f64(),
        }))?;
        if last {
            return Ok(Trained {
                params,
                logits,
                confusion,
            });
        }
    }
    Err(Error::Settings("no epoch to train".to_owned()))
}
