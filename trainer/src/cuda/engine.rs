//! Training any network, with images, parameters and logits as runs of numbers: one graph an epoch, or several.

use super::driver::{failed, probe};
use super::kernels::coefficient_words;
use super::layout::Layout;
use super::nccl::AllReduce;
use super::ptx::Kernels;
use super::replica::Replica;
use crate::adam::Adam;
use crate::backend::{Batches, StepStats};
use crate::error::Error;
use crate::threads;
use cudarc::driver::CudaSlice;
use rayon::ThreadPool;
use std::ops::{ControlFlow, Range};
use std::sync::{Mutex, PoisonError};

/// The most steps in one graph; an epoch with the default settings has 235. Training can stop only between graphs.
pub const STEPS: usize = 1024;

/// The number of images that are evaluated at a time. Those of the default network take 13 MB on the device.
const EVALUATED: usize = 16_384;

/// Images with their labels.
#[derive(Clone, Copy, Debug)]
pub struct Images<'a> {
    /// The values of their pixels, image after image.
    pub pixels: &'a [u8],
    /// A class for each image.
    pub labels: &'a [u8],
}

/// As [`State`](crate::backend::State), each part in the order of `TENSORS`.
#[derive(Clone, Debug, PartialEq)]
pub struct Flat {
    /// The parameters.
    pub params: Vec<f32>,
    /// Adam's first moment of each parameter.
    pub moment1: Vec<f32>,
    /// Adam's second moment of each parameter.
    pub moment2: Vec<f32>,
    /// The running mean of the parameters, where there is one.
    pub mean: Option<Vec<f32>>,
    /// Steps done.
    pub step: u64,
}

/// Trains a network on one or more devices.
pub struct Engine {
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

impl Engine {
    /// Goes on from `state` with the images of `train`, on the first `devices` devices, at least one; `kernels` says for
    /// which network once the driver is there.
    ///
    /// # Errors
    /// * `Cuda`: as [`probe`] and `kernels`, there are fewer devices, one has not the memory, or there is no NCCL for several
    /// * `Backend`: images, labels or parameters are not those of the network, or the system refuses a thread per device
    pub fn new(
        kernels: impl FnOnce() -> Result<Kernels, Error>,
        train: Images,
        mut state: Flat,
        adam: Adam,
        devices: usize,
    ) -> Result<Self, Error> {
        let driver = probe()?;
        let names = driver.devices.get(..devices);
        let names = names.filter(|names| !names.is_empty()).ok_or_else(|| Error::Cuda {
            cause: format!(
                "--devices {devices}, and the driver finds {}: {}",
                driver.devices.len(),
                driver.devices.join("; ")
            ),
            remedy: "nvidia-smi lists GPUs, CUDA_VISIBLE_DEVICES may hide some; or ask for fewer",
        })?;
        state.mean = adam
            .average
            .map(|_| state.mean.unwrap_or_else(|| state.params.clone()));
        let kernels = kernels()?;
        check(kernels.layout(), train, &state)?;
        let replicas = names
            .iter()
            .enumerate()
            .map(|(ordinal, name)| Replica::new(ordinal, name, &kernels, train, &state))
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

    /// Returns what computes, for people.
    pub fn describe(&self) -> &str {
        &self.description
    }

    /// Lets a graph have at most so many steps, at least one, in place of [`STEPS`].
    pub fn limit_graphs(&mut self, steps: usize) {
        self.graph_steps = steps.max(1);
    }

    /// Time that the first device needed for the last [`train`](Self::train), in milliseconds, by its own clock: from
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
        let captured = launched.and(ended.into_iter().collect());
        if captured.is_err() {
            // A graph that lacks launches must not be kept.
            for replica in &mut self.replicas {
                replica.forget_graph(images);
            }
        }
        captured
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

    /// As [`Backend::train`](crate::backend::Backend::train): a step is told when the graph that it is in is done.
    ///
    /// # Errors
    /// * `Cuda`: the device failed
    /// * `Backend`: the batches are not those of the images that the devices hold
    pub fn train(
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
        if !order.is_of(*images) || *images != self.replicas[0].images() || *batch_size == 0 {
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

    /// Computes the logits of images by the present result into `out`.
    ///
    /// # Errors
    /// * `Cuda`: the device failed
    /// * `Backend`: `out` has not the length of the images' logits
    pub fn logits(&mut self, pixels: &[u8], out: &mut [f32]) -> Result<(), Error> {
        let replica = &self.replicas[0];
        let (device, params) = (&replica.device, replica.result());
        let (image, classes) = (device.layout.image_len(), device.layout.classes());
        if !pixels.len().is_multiple_of(image) || out.len() != pixels.len() / image * classes {
            return Err(Error::Backend(format!(
                "{} logits are asked of {} bytes of images: an image has {image}, and {classes} logits",
                out.len(),
                pixels.len()
            )));
        }
        let parts = pixels.chunks(EVALUATED * image);
        for (pixels, out) in parts.zip(out.chunks_mut(EVALUATED * classes)) {
            let count = pixels.len() / image;
            let pixels = device.upload("test images", pixels)?;
            let mut logits = device.alloc("logits", count * classes)?;
            device.logits(&pixels, count, params, &mut logits)?;
            let logits = device.read("logits", &logits)?;
            device.finish("an evaluation")?;
            out.copy_from_slice(&logits);
        }
        Ok(())
    }

    /// Returns a copy of the state.
    ///
    /// # Errors
    /// `Cuda`: the device failed
    pub fn state(&self) -> Result<Flat, Error> {
        let replica = &self.replicas[0];
        let read = |from: &CudaSlice<f32>| -> Result<Vec<f32>, Error> {
            let flat = replica.device.read("parameters", from)?;
            replica.device.finish("a copy of the parameters")?;
            Ok(flat)
        };
        let ([params, moment1, moment2], mean) = replica.state();
        Ok(Flat {
            params: read(params)?,
            moment1: read(moment1)?,
            moment2: read(moment2)?,
            mean: mean.map(read).transpose()?,
            step: self.step,
        })
    }
}

/// Compares with the network what the kernels will read.
fn check(layout: &Layout, Images { pixels, labels }: Images, state: &Flat) -> Result<(), Error> {
    let (classes, params) = (layout.classes(), layout.params());
    let problem = if labels.is_empty() || pixels.len() != labels.len() * layout.image_len() {
        format!(
            "{} bytes of images and {} labels",
            pixels.len(),
            labels.len()
        )
    } else if let Some(label) = labels.iter().find(|&&label| usize::from(label) >= classes) {
        format!("a label {label}, and the network has {classes} classes")
    } else if [&state.params, &state.moment1, &state.moment2]
        .into_iter()
        .chain(&state.mean)
        .any(|values| values.len() != params)
    {
        format!(
            "{} parameters, and the network has {params}",
            state.params.len()
        )
    } else {
        return Ok(());
    };
    let name = layout.name();
    Err(Error::Backend(format!(
        "the network {name} was given {problem}"
    )))
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
