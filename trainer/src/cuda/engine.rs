//! Trains any network on one or more devices. Images, parameters and logits are flat slices, so nothing here depends on the
//! network's types. The steps of an epoch are captured as one CUDA graph, or several.

use super::driver::{failed, probe};
use super::kernels::coefficient_words;
use super::layout::Layout;
use super::nccl::AllReduce;
use super::ptx::Kernels;
use super::replica::Replica;
use crate::adam::Adam;
use crate::backend::{Batches, Error, StepStats};
use crate::loss::sums;
use crate::threads;
use cudarc::driver::CudaSlice;
use rayon::ThreadPool;
use std::ops::{ControlFlow, Range};
use std::sync::{Mutex, PoisonError};

/// The maximum number of steps in a graph. An epoch with the default settings has 235. Training can stop only between graphs.
pub const STEPS: usize = 1024;

/// The number of images to evaluate at a time. Those of the default network take 13 MB on the device.
const EVALUATED: usize = 16_384;

/// Images with their labels.
#[derive(Clone, Copy, Debug)]
pub struct Images<'a> {
    /// The pixels of all images, one image after the other.
    pub pixels: &'a [u8],
    /// The class of each image.
    pub labels: &'a [u8],
}

/// The same data as [`State`](crate::backend::State), as flat vectors in the order of `TENSORS`.
#[derive(Clone, Debug, PartialEq)]
pub struct Flat {
    /// The parameters.
    pub params: Vec<f32>,
    /// Adam's first moment of each parameter.
    pub moment1: Vec<f32>,
    /// Adam's second moment of each parameter.
    pub moment2: Vec<f32>,
    /// The running mean of the parameters, if there is one.
    pub mean: Option<Vec<f32>>,
    /// Steps done.
    pub step: u64,
}

/// Trains a network on one or more devices.
pub struct Engine {
    description: String,
    adam: Adam,
    step: u64,
    /// The maximum number of steps in a graph.
    graph_steps: usize,
    /// One per device. Declared before `all_reduce`, so that the graphs that use it are dropped first.
    replicas: Vec<Replica>,
    /// Present if there is more than one device.
    all_reduce: Option<AllReduce>,
    /// One thread per device, if there is more than one.
    threads: Option<ThreadPool>,
}

impl Engine {
    /// Creates an engine that continues from `state` with the images of `train`, on the first `devices` devices (at least one).
    /// `kernels` returns the kernels of the network; it is called only once a driver has been found.
    ///
    /// # Errors
    /// * `Cuda`: [`probe`] or `kernels` failed, there are fewer devices, a device has too little memory, or there is more than
    ///   one device and no NCCL
    /// * `Backend`: the images, labels or parameters do not fit the network, or the system refuses a thread per device
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

    /// Describes the devices to people, such as `cuda (NVIDIA H100 PCIe, sm_90)`.
    pub fn describe(&self) -> &str {
        &self.description
    }

    /// Limits the number of steps in a graph to `steps` (at least one) instead of [`STEPS`].
    pub fn limit_graphs(&mut self, steps: usize) {
        self.graph_steps = steps.max(1);
    }

    /// Returns the time that the first device needed for the last call of [`train`](Self::train), in milliseconds, measured by
    /// events on the device. It includes the copies of the order and the coefficients to the device, but not the last copy of
    /// losses back to the host.
    ///
    /// # Errors
    /// `Cuda`: there has been no training yet, or the device failed.
    pub fn last_epoch_ms(&self) -> Result<f32, Error> {
        let [start, end] = &self.replicas[0].device.epoch_events;
        start.elapsed_ms(end).map_err(failed("time an epoch"))
    }

    /// Trains on the `images` images from position `first` of the epoch on. All their batches are full, except possibly the last
    /// of the epoch.
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
        // One thread per device, because a launch may block until its device is ready, and the devices wait for each other to add
        // up their gradients.
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
                let (part, hits) = sums(&losses[share.clone()], &hits[share]);
                loss += part;
                correct += hits;
            }
            StepStats {
                loss: (loss / batch.len() as f64) as f32,
                correct,
                images: batch.len() as u32,
            }
        };
        Ok(parts(0..images, batch_size).map(stats).collect())
    }

    /// Captures the steps on `images` images as a graph, one per device.
    fn capture(&mut self, images: usize, batch_size: usize) -> Result<(), Error> {
        let mut replicas = self.replicas.iter_mut();
        let begun = replicas.try_for_each(|replica| replica.begin_capture(images));
        let launched = begun.and_then(|()| self.launch_steps(images, batch_size));
        // End the captures after an error too, because a stream is unusable until then.
        let ended: Vec<_> = self.replicas.iter_mut().map(Replica::end_capture).collect();
        let captured = launched.and(ended.into_iter().collect());
        if captured.is_err() {
            // An incomplete graph must not be kept.
            for replica in &mut self.replicas {
                replica.forget_graph(images);
            }
        }
        captured
    }

    /// Launches the kernels of all steps on `images` images.
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

    /// Implements [`Backend::train`](crate::backend::Backend::train). `on_step` is called for the steps of a graph when the whole
    /// graph has run.
    ///
    /// # Errors
    /// * `Cuda`: the device failed
    /// * `Backend`: the batches do not belong to the images that the devices hold
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
            // All steps of the graph have run, so `on_step` must see them all, even after it asked to stop.
            for stats in self.train_part(batches, first, images)? {
                stop |= on_step(stats).is_break();
            }
            if stop {
                break;
            }
        }
        Ok(())
    }

    /// Computes the logits of images with the mean of the parameters if there is one, otherwise with the parameters, and writes
    /// them to `out`.
    ///
    /// # Errors
    /// * `Cuda`: the device failed
    /// * `Backend`: `pixels` is not a whole number of images, or `out` does not have the length of their logits
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
    /// `Cuda`: the device failed.
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

/// Checks that the images, labels and parameters fit the network, because the kernels do not check what they read.
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

/// Splits a range into parts of length `len`; the last part may be shorter.
fn parts(range: Range<usize>, len: usize) -> impl Iterator<Item = Range<usize>> {
    let Range { start, end } = range;
    let starts = (start..end).step_by(len);
    starts.map(move |start| start..(start + len).min(end))
}

/// Returns the positions of a batch that the device number `rank` of `devices` processes. The range may be empty if the batch has
/// fewer images than there are devices.
fn share(batch: &Range<usize>, rank: usize, devices: usize) -> Range<usize> {
    let boundary = |rank| batch.start + batch.len() * rank / devices;
    boundary(rank)..boundary(rank + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_share_a_batch_evenly_in_order() {
        let shares = |batch, devices| [0, 1, 2].map(|rank| share(&batch, rank, devices));
        assert_eq!(shares(6..16, 3), [6..9, 9..12, 12..16]);
        assert_eq!(shares(6..8, 3), [6..6, 6..7, 7..8]);
        assert_eq!(share(&(6..16), 0, 1), 6..16);
    }
}
