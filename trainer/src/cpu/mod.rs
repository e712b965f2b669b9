//! Training on the CPU: images shared over threads.
//!
//! Partial sums belong to fixed groups of sixteen images and are added in group order, so the result does not depend
//! on the number of threads.

use crate::adam::{self, Adam};
use crate::backend::{Backend, Batches, State, StepStats};
use crate::dataset::Split;
use crate::error::Error;
use crate::reference::{StepSums, image_gradient};
use bytemuck::zeroed_box;
use lenet_core::arch::{Logits, Params, Pixels, image};
use lenet_core::network::{Activations, forward};
use rayon::prelude::*;
use std::ops::ControlFlow;

/// Images whose gradients are added up by one thread.
const GROUP: usize = 16;

/// The backend.
pub struct Cpu<'a> {
    train: &'a Split,
    state: State,
    adam: Adam,
    threads: rayon::ThreadPool,
}

impl<'a> Cpu<'a> {
    /// Goes on from `state` with the images of `train`, on so many threads; 0 means one a core.
    ///
    /// # Errors
    /// `Backend`: the system refuses the threads.
    pub fn new(train: &'a Split, state: State, adam: Adam, threads: usize) -> Result<Self, Error> {
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .map_err(|error| Error::Backend(format!("cannot start {threads} threads: {error}")))?;
        Ok(Self {
            train,
            state,
            adam,
            threads,
        })
    }

    /// The gradient of a batch's mean loss and its statistics.
    fn gradient(&self, batch: &[usize]) -> (Box<Params>, StepStats) {
        let scale = 1.0 / batch.len() as f32;
        let groups: Vec<(Box<Params>, StepSums)> = batch
            .par_chunks(GROUP)
            .map(|group| {
                let mut grads: Box<Params> = zeroed_box();
                let mut sums = StepSums::default();
                for &index in group {
                    let (pixels, label) = (&self.train.images()[index], self.train.labels()[index]);
                    sums.add(&image_gradient(
                        &self.state.params,
                        &image(pixels),
                        label,
                        scale,
                        &mut grads,
                    ));
                }
                (grads, sums)
            })
            .collect();
        let mut total: Box<Params> = zeroed_box();
        let mut sums = StepSums::default();
        for (grads, group) in &groups {
            sums.merge(group);
            for (total, &grad) in total.as_flat_mut().iter_mut().zip(grads.as_flat()) {
                *total += grad;
            }
        }
        (total, sums.stats())
    }
}

impl Backend for Cpu<'_> {
    fn describe(&self) -> String {
        format!("cpu ({} threads)", self.threads.current_num_threads())
    }

    fn train(
        &mut self,
        batches: &Batches,
        on_step: &mut dyn FnMut(StepStats) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        for index in batches.range.clone() {
            let batch: Vec<usize> = batches.batch(index).collect();
            let (grads, stats) = self.threads.install(|| self.gradient(&batch));
            let State {
                params,
                moment1,
                moment2,
                step,
            } = &mut self.state;
            *step += 1;
            adam::update(
                &self.adam.coefficients(*step),
                params.as_flat_mut(),
                grads.as_flat(),
                moment1.as_flat_mut(),
                moment2.as_flat_mut(),
            );
            if on_step(stats).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn logits(&mut self, images: &[Pixels], out: &mut [Logits]) -> Result<(), Error> {
        let params = &self.state.params;
        self.threads.install(|| {
            images
                .par_iter()
                .zip(out)
                .for_each_init(Activations::new, |act, (pixels, out)| {
                    *out = *forward(params, &image(pixels), act);
                });
        });
        Ok(())
    }

    fn state(&self) -> Result<State, Error> {
        Ok(self.state.clone())
    }
}
