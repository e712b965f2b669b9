//! Training on an NVIDIA GPU, or several. The kernels are compiled ahead, so that running needs a driver and no toolkit.
//!
//! | file | what |
//! |---|---|
//! | step.cu | the kernels, in CUDA C; step.ptx is what NVRTC makes of them (tests/tests/cuda/ptx.rs) |
//! | `constants.rs` | their dimensions, from `lenet_core::arch` |
//! | `kernels.rs` | buffers, and one safe function a kernel |
//! | `replica.rs` | what one device holds, and its part of a step |
//! | `nccl.rs` | the sum of several devices' gradients |
//! | `driver.rs` | whether there is a driver and a device, and what to do if not |
//! | `remedy.rs` | what to do about an error of the driver |
//! | `bench.rs` | how fast it is |
//! | `mod.rs` | the backend: one graph an epoch |
//!
//! Data and parameters stay on the device. The order of an epoch is computed there, from its keys; an epoch is two
//! kernels a step, and one more for a mean of the parameters, captured once as a graph that is launched again for each
//! epoch, and one synchronisation at its end, when the losses come back. Everything adds in a fixed order: two runs give
//! the same bits.
//!
//! Several devices hold the same parameters and share each batch in equal runs of images. A step's second kernel then
//! leaves the gradients, NCCL adds them up, within the graph, and a third kernel updates the parameters, with the same
//! result on all; so each keeps a mean of its own. This has not run on hardware.

mod bench;
mod constants;
mod driver;
mod kernels;
mod nccl;
mod remedy;
mod replica;

pub use bench::{Report, measure};
pub use constants::{ARCH, THREADS, UPDATE_BLOCKS, definitions};
pub use driver::{Driver, probe};
pub use kernels::coefficient_words;
pub use nccl::Nccl;

use crate::adam::Adam;
use crate::backend::{Backend, Batches, State, StepStats};
use crate::dataset::Split;
use crate::error::Error;
use crate::threads;
use bytemuck::zeroed_box;
use cudarc::driver::CudaSlice;
use driver::failed;
use kernels::order_words;
use lenet_core::network::{CLASSES, Logits, Params, Pixels};
use nccl::AllReduce;
use rayon::ThreadPool;
use replica::Replica;
use std::ops::{ControlFlow, Range};
use std::sync::{Mutex, PoisonError};

/// The kernels, for any GPU from Volta on and any driver from CUDA 12.0 on (525, end of 2022).
pub const PTX: &str = include_str!("step.ptx");

/// Images whose logits are computed in one go: 13 MB on the device.
const EVALUATED: usize = 16_384;

/// The backend.
pub struct Cuda {
    description: String,
    adam: Adam,
    step: u64,
    /// One a device. Before `all_reduce`, so that the graphs that use it go first.
    replicas: Vec<Replica>,
    /// Where there is more than one.
    all_reduce: Option<AllReduce>,
    /// A thread per device, where there is more than one.
    threads: Option<ThreadPool>,
}

impl Cuda {
    /// Goes on from `state` with the images of `train`, on the first `devices` devices, at least one.
    ///
    /// # Errors
    /// * `Cuda`: as [`probe`], there are fewer devices, one has not the memory, or there is no NCCL for several
    /// * `Backend`: the system refuses a thread per device
    pub fn new(train: &Split, state: &State, adam: Adam, devices: usize) -> Result<Self, Error> {
        let driver = probe()?;
        let names = driver.devices.get(..devices).ok_or_else(|| Error::Cuda {
            cause: format!(
                "--devices {devices}, and the driver finds {}: {}",
                driver.devices.len(),
                driver.devices.join("; ")
            ),
            remedy: "nvidia-smi lists GPUs, CUDA_VISIBLE_DEVICES may hide some; or ask for fewer",
        })?;
        let state = state.clone().for_training(&adam);
        let replicas = (0..devices)
            .map(|ordinal| Replica::new(ordinal, train, &state))
            .collect::<Result<Vec<_>, _>>()?;
        let all_reduce = match devices {
            1 => None,
            _ => Some(AllReduce::new(replicas.iter().map(|r| &r.device))?),
        };
        Ok(Self {
            description: format!("cuda ({})", names.join("; ")),
            adam,
            step: state.step,
            replicas,
            all_reduce,
            threads: (devices > 1).then(|| threads::pool(devices)).transpose()?,
        })
    }

    /// Time that the first device needed for the last [`train`](Backend::train), in milliseconds, by its own clock: from
    /// the first kernel to the last, without the copies before and after.
    ///
    /// # Errors
    /// `Cuda`: nothing was trained yet, or the device failed.
    pub fn last_epoch_ms(&self) -> Result<f32, Error> {
        let [start, end] = &self.replicas[0].device.epoch_events;
        start.elapsed_ms(end).map_err(failed("time an epoch"))
    }

    /// Makes a graph of the range's steps, a device.
    fn capture(&mut self, batches: &Batches) -> Result<(), Error> {
        let begun = self.replicas.iter().try_for_each(Replica::begin_capture);
        let launched = begun.and_then(|()| self.launch_steps(batches));
        // Ended in any case, so that the streams are usable after an error.
        let ended: Vec<_> = self.replicas.iter_mut().map(Replica::end_capture).collect();
        launched?;
        ended.into_iter().collect()
    }

    /// Launches the range's kernels.
    fn launch_steps(&mut self, batches: &Batches) -> Result<(), Error> {
        for (step, index) in batches.range.clone().enumerate() {
            let start = index * batches.batch_size;
            let batch = start..(start + batches.batch_size).min(batches.images);
            let devices = self.replicas.len();
            let shares = (0..devices).map(|rank| share(&batch, rank, devices));
            for (replica, share) in self.replicas.iter_mut().zip(shares.clone()) {
                replica.gradients(&share, batch.len())?;
            }
            match &mut self.all_reduce {
                None => self.replicas[0].update(batch.len(), step)?,
                Some(all_reduce) => {
                    for ((replica, share), grads) in
                        self.replicas.iter().zip(shares).zip(&mut all_reduce.grads)
                    {
                        replica.sum_gradients(share.len(), grads)?;
                    }
                    all_reduce.run()?;
                    for (replica, grads) in self.replicas.iter_mut().zip(&all_reduce.grads) {
                        replica.adam(grads, step)?;
                    }
                }
            }
            for replica in &mut self.replicas {
                replica.average(step)?;
            }
        }
        Ok(())
    }
}

/// The positions of a batch of which the device `rank` of `devices` takes care; none where there are too few.
fn share(batch: &Range<usize>, rank: usize, devices: usize) -> Range<usize> {
    let boundary = |rank| batch.start + batch.len() * rank / devices;
    boundary(rank)..boundary(rank + 1)
}

impl Backend for Cuda {
    fn describe(&self) -> String {
        self.description.clone()
    }

    fn train(
        &mut self,
        batches: &Batches,
        on_step: &mut (dyn FnMut(StepStats) -> ControlFlow<()> + Send),
    ) -> Result<(), Error> {
        let Batches {
            order,
            images,
            batch_size,
            range,
            augment,
        } = batches;
        assert!(
            augment.is_none() && self.adam.weight_decay == 0.0,
            "the command line refuses what only the other devices have"
        );
        assert_eq!(
            *images,
            self.replicas[0].images(),
            "the images given to `new`"
        );
        if range.is_empty() {
            return Ok(());
        }
        let share = batch_size.min(images).div_ceil(self.replicas.len());
        let mut captured = true;
        for replica in &mut self.replicas {
            captured &= replica.prepare(*batch_size, range, share)?;
        }
        if !captured {
            self.capture(batches)?;
        }

        let order = order_words(order);
        let coefficients: Vec<f32> = (1..=range.len() as u64)
            .flat_map(|step| coefficient_words(&self.adam.coefficients(self.step + step)))
            .collect();
        // A thread a device: a launch may wait for the device, which waits for the others to add up gradients.
        let replicas: Vec<_> = self.replicas.iter_mut().map(Mutex::new).collect();
        let start = |rank: usize| {
            let replica = replicas[rank].lock();
            let mut replica = replica.unwrap_or_else(PoisonError::into_inner);
            replica.start(&order, &coefficients)
        };
        match &self.threads {
            None => start(0)?,
            Some(threads) => threads
                .broadcast(|thread| start(thread.index()))
                .into_iter()
                .collect::<Result<(), _>>()?,
        }
        let mut loss = vec![0.0; *images];
        let mut correct = vec![0; *images];
        for replica in &self.replicas {
            let (losses, hits) = replica.finish()?;
            // Where the others have zeros.
            loss.iter_mut().zip(losses).for_each(|(sum, x)| *sum += x);
            correct.iter_mut().zip(hits).for_each(|(sum, x)| *sum += x);
        }
        self.step += range.len() as u64;

        let positions = range.start * batch_size..(range.end * batch_size).min(*images);
        for start in positions.clone().step_by(*batch_size) {
            let batch = start..(start + batch_size).min(positions.end);
            let sum: f64 = loss[batch.clone()].iter().copied().map(f64::from).sum();
            let stats = StepStats {
                loss: (sum / batch.len() as f64) as f32,
                correct: correct[batch.clone()].iter().copied().map(u32::from).sum(),
                images: batch.len() as u32,
            };
            // The whole range is done: all of it is told, whatever is asked for.
            let _ = on_step(stats);
        }
        Ok(())
    }

    fn logits(&mut self, images: &[Pixels], out: &mut [Logits]) -> Result<(), Error> {
        let replica = &self.replicas[0];
        let (device, params) = (&replica.device, replica.result());
        for (images, out) in images.chunks(EVALUATED).zip(out.chunks_mut(EVALUATED)) {
            let pixels = device.upload("test images", bytemuck::cast_slice::<_, u8>(images))?;
            let mut logits = device.alloc("logits", images.len() * CLASSES)?;
            device.logits(&pixels, images.len(), params, &mut logits)?;
            let logits = device.read("logits", &logits)?;
            device.finish("an evaluation")?;
            out.as_flattened_mut().copy_from_slice(&logits);
        }
        Ok(())
    }

    fn state(&self) -> Result<State, Error> {
        let replica = &self.replicas[0];
        let read = |from: &CudaSlice<f32>| -> Result<Box<Params>, Error> {
            let flat = replica.device.read("parameters", from)?;
            replica.device.finish("a copy of the parameters")?;
            let mut params: Box<Params> = zeroed_box();
            params.as_flat_mut().copy_from_slice(&flat);
            Ok(params)
        };
        Ok(State {
            params: read(&replica.params)?,
            moment1: read(&replica.moment1)?,
            moment2: read(&replica.moment2)?,
            step: self.step,
            mean: replica.mean.as_ref().map(read).transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_a_batch_in_order() {
        let shares = |batch, devices| [0, 1, 2].map(|rank| share(&batch, rank, devices));
        assert_eq!(shares(6..16, 3), [6..9, 9..12, 12..16]);
        assert_eq!(shares(6..8, 3), [6..6, 6..7, 7..8]);
        assert_eq!(share(&(6..16), 0, 1), 6..16);
    }
}
