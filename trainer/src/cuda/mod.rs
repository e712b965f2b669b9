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
//! | `mod.rs` | the backend: one graph an epoch, or several |
//!
//! Data and parameters stay on the device. The order of an epoch is computed there, from its keys, and so is how its images
//! are changed; an epoch is two kernels a step, and one more for a mean of the parameters, captured once as a graph that is
//! launched again for each epoch, and one synchronisation at its end, when the losses come back. An epoch of more than
//! [`STEPS`] steps is several such parts, and may end after each. Everything adds in a fixed order: two runs give the same
//! bits.
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
pub use kernels::{coefficient_words, epoch_words};
pub use nccl::Nccl;

use crate::adam::Adam;
use crate::backend::{Backend, Batches, State, StepStats};
use crate::dataset::{Order, Split};
use crate::error::Error;
use crate::threads;
use bytemuck::zeroed_box;
use cudarc::driver::CudaSlice;
use driver::failed;
use lenet_core::network::{CLASSES, Logits, Params, Pixels};
use nccl::AllReduce;
use rayon::ThreadPool;
use replica::Replica;
use std::ops::{ControlFlow, Range};
use std::sync::{Mutex, PoisonError};

/// The kernels, for any GPU from Volta on and any driver from CUDA 12.0 on (525, end of 2022).
pub const PTX: &str = include_str!("step.ptx");

/// Most steps of a graph: the normal epoch has 235. Between graphs a training can be stopped.
pub const STEPS: usize = 1024;

/// Images whose logits are computed in one go: 13 MB on the device.
const EVALUATED: usize = 16_384;

/// The backend.
pub struct Cuda {
    description: String,
    adam: Adam,
    step: u64,
    /// Most steps of a graph.
    graph_steps: usize,
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
            graph_steps: STEPS,
            replicas,
            all_reduce,
            threads: (devices > 1).then(|| threads::pool(devices)).transpose()?,
        })
    }

    /// Lets a graph have at most so many steps, at least one, in place of [`STEPS`].
    pub fn limit_graphs(&mut self, steps: usize) {
        self.graph_steps = steps.max(1);
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

    /// Trains on the `images` images from position `first` of the epoch on, whose batches are whole but for the epoch's
    /// last.
    fn train_part(
        &mut self,
        batches: &Batches,
        first: usize,
        images: usize,
    ) -> Result<Vec<StepStats>, Error> {
        let batch_size = batches.batch_size;
        let steps = images.div_ceil(batch_size);
        if !self
            .replicas
            .iter()
            .all(|replica| replica.has_graph(images))
        {
            self.capture(images, batch_size)?;
        }
        let coefficients: Vec<f32> = (1..=steps as u64)
            .flat_map(|step| coefficient_words(&self.adam.coefficients(self.step + step)))
            .collect();
        let (order, augment) = (&batches.order, batches.augment.as_ref());
        // A thread a device: a launch may wait for the device, which waits for the others to add up gradients.
        let replicas: Vec<_> = self.replicas.iter_mut().map(Mutex::new).collect();
        let start = |rank: usize| {
            let replica = replicas[rank].lock();
            let mut replica = replica.unwrap_or_else(PoisonError::into_inner);
            replica.start((first, images), (order, augment), &coefficients)
        };
        match &self.threads {
            None => start(0)?,
            Some(threads) => threads
                .broadcast(|thread| start(thread.index()))
                .into_iter()
                .collect::<Result<(), _>>()?,
        }
        self.replicas[0].record(1)?;
        let results: Vec<_> = self.replicas.iter().map(Replica::finish).collect();
        let results = results.into_iter().collect::<Result<Vec<_>, _>>()?;
        self.step += steps as u64;

        let stats = |batch: Range<usize>| {
            let (mut loss, mut correct) = (0.0, 0);
            for (rank, (losses, hits)) in results.iter().enumerate() {
                let share = share(&batch, rank, results.len());
                loss += losses[share.clone()]
                    .iter()
                    .copied()
                    .map(f64::from)
                    .sum::<f64>();
                correct += hits[share].iter().copied().map(u32::from).sum::<u32>();
            }
            StepStats {
                loss: (loss / batch.len() as f64) as f32,
                correct,
                images: batch.len() as u32,
            }
        };
        Ok(parts(0..images, batch_size).map(stats).collect())
    }

    /// Makes a graph of the steps on so many images, a device.
    fn capture(&mut self, images: usize, batch_size: usize) -> Result<(), Error> {
        let mut replicas = self.replicas.iter_mut();
        let begun = replicas.try_for_each(|replica| replica.begin_capture(images));
        let launched = begun.and_then(|()| self.launch_steps(images, batch_size));
        // Ended in any case, so that the streams are usable after an error.
        let ended: Vec<_> = self.replicas.iter_mut().map(Replica::end_capture).collect();
        launched?;
        ended.into_iter().collect()
    }

    /// Launches the kernels of a part.
    fn launch_steps(&mut self, images: usize, batch_size: usize) -> Result<(), Error> {
        for (step, batch) in parts(0..images, batch_size).enumerate() {
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

/// The range in parts of `len`, the last with what remains.
fn parts(range: Range<usize>, len: usize) -> impl Iterator<Item = Range<usize>> {
    let Range { start, end } = range;
    let starts = (start..end).step_by(len);
    starts.map(move |start| start..(start + len).min(end))
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
            ..
        } = batches;
        let of_the_split = match order {
            Order::Sequential => true,
            Order::Shuffled(permutation) => permutation.len() == *images,
        };
        if !of_the_split || *images != self.replicas[0].images() || *batch_size == 0 {
            return Err(Error::Backend(format!(
                "batches of {batch_size} out of {images} images, in an order {order:?}, are asked of a device that holds {}",
                self.replicas[0].images()
            )));
        }
        let range = range.start..range.end.min(images.div_ceil(*batch_size));
        if range.is_empty() {
            return Ok(());
        }
        let share = batch_size.min(images).div_ceil(self.replicas.len());
        for replica in &mut self.replicas {
            replica.prepare(*batch_size, self.graph_steps, share)?;
        }
        self.replicas[0].record(0)?;
        for part in parts(range, self.graph_steps) {
            let first = part.start * batch_size;
            let images = (part.end * batch_size).min(*images) - first;
            let mut stop = false;
            // The whole part is done: all of it is told, whatever is asked for.
            for stats in self.train_part(batches, first, images)? {
                stop |= on_step(stats).is_break();
            }
            if stop {
                break;
            }
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
