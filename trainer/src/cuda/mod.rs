//! Training on an NVIDIA GPU. The kernels are compiled ahead, so that running needs a driver and no toolkit.
//!
//! | file | what |
//! |---|---|
//! | step.cu | the kernels, in CUDA C; step.ptx is what NVRTC makes of them (tests/tests/cuda/ptx.rs) |
//! | `constants.rs` | their dimensions, from `lenet_core::arch` |
//! | `kernels.rs` | buffers, and one safe function a kernel |
//! | `driver.rs` | whether there is a driver and a device, and what to do if not |
//! | `mod.rs` | the backend: one graph an epoch |
//!
//! Data and parameters stay on the device. The order of an epoch is computed there, from its keys; an epoch is two
//! kernels a step, captured once as a graph that is launched again for each epoch, and one synchronisation at its end,
//! when the losses come back. Everything adds in a fixed order: two runs give the same bits.

mod constants;
mod driver;
mod kernels;

pub use constants::{ARCH, THREADS, UPDATE_BLOCKS, definitions};
pub use driver::{Driver, probe};

use crate::adam::Adam;
use crate::backend::{Backend, Batches, State, StepStats};
use crate::dataset::{ROUNDS, Split};
use crate::error::Error;
use bytemuck::zeroed_box;
use constants::{CONV_PARAMS, GROUP, Trace};
use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use cudarc::driver::{CudaContext, CudaEvent, CudaGraph, CudaSlice};
use driver::failed;
use kernels::{Device, order_words};
use lenet_core::arch::{CLASSES, Logits, Params, Pixels};
use std::ops::{ControlFlow, Range};

/// The kernels, for any GPU from Volta on and any driver from CUDA 12.0 on (525, end of 2022).
pub const PTX: &str = include_str!("step.ptx");

/// Images whose logits are computed in one go: 13 MB on the device.
const EVALUATED: usize = 16_384;

/// The backend.
pub struct Cuda {
    description: String,
    adam: Adam,
    step: u64,
    images: CudaSlice<u8>,
    labels: CudaSlice<u8>,
    params: CudaSlice<f32>,
    moment1: CudaSlice<f32>,
    moment2: CudaSlice<f32>,
    epoch: Option<Epoch>,
    device: Device,
}

/// What an epoch needs beside the data and the state, kept for the next one of the same shape.
struct Epoch {
    batch_size: usize,
    range: Range<usize>,
    /// `Order` of step.cu.
    order: CudaSlice<u32>,
    /// `(steps, 6)`
    coefficients: CudaSlice<f32>,
    /// `(images)`, by position in the epoch.
    loss: CudaSlice<f32>,
    /// `(images)`, by position in the epoch.
    correct: CudaSlice<u8>,
    /// `(batch size)` of `Trace`.
    traces: CudaSlice<f32>,
    /// `(blocks, CONV_PARAMS)`
    conv_grads: CudaSlice<f32>,
    /// All its launches.
    graph: Option<CudaGraph>,
}

impl Cuda {
    /// Goes on from `state` with the images of `train`, on the first device.
    ///
    /// # Errors
    /// `Cuda`: as [`probe`], or the device has not the memory.
    pub fn new(train: &Split, state: &State, adam: Adam) -> Result<Self, Error> {
        let driver = probe()?;
        let context = CudaContext::new(0).map_err(failed("open device 0"))?;
        // SAFETY: cudarc's events order the work of several streams; this backend has one.
        unsafe { context.disable_event_tracking() };
        let device = Device::new(&context)?;
        let flat = |params: &Params| device.upload("parameters", params.as_flat());
        Ok(Self {
            description: format!("cuda ({})", driver.devices[0]),
            adam,
            step: state.step,
            images: device.upload("images", train.images().as_flattened().as_flattened())?,
            labels: device.upload("labels", train.labels())?,
            params: flat(&state.params)?,
            moment1: flat(&state.moment1)?,
            moment2: flat(&state.moment2)?,
            epoch: None,
            device,
        })
    }

    /// Time that the device needed for the last [`train`](Backend::train), in milliseconds, by its own clock: from the
    /// first kernel to the last, without the copies before and after.
    ///
    /// # Errors
    /// `Cuda`: nothing was trained yet, or the device failed.
    pub fn last_epoch_ms(&self) -> Result<f32, Error> {
        let [start, end] = &self.device.epoch_events;
        start.elapsed_ms(end).map_err(failed("time an epoch"))
    }

    /// Makes room for an epoch (or a part) of such a shape.
    fn prepare(&mut self, batch_size: usize, range: &Range<usize>) -> Result<(), Error> {
        let kept = self.epoch.as_ref();
        if kept.is_some_and(|e| (e.batch_size, &e.range) == (batch_size, range)) {
            return Ok(());
        }
        self.epoch = None;
        let images = self.labels.len();
        let largest = batch_size.min(images);
        let device = &self.device;
        self.epoch = Some(Epoch {
            batch_size,
            range: range.clone(),
            order: device.alloc("order", 2 + ROUNDS)?,
            coefficients: device.alloc("coefficients", 6 * range.len())?,
            loss: device.alloc("losses", images)?,
            correct: device.alloc("hits", images)?,
            traces: device.alloc("traces", largest * size_of::<Trace>() / size_of::<f32>())?,
            conv_grads: device.alloc("gradients", largest.div_ceil(GROUP) * CONV_PARAMS)?,
            graph: None,
        });
        Ok(())
    }

    /// Launches the range's kernels: during capture, into the graph.
    fn launch_steps(&mut self) -> Result<(), Error> {
        let images = self.labels.len();
        let epoch = self.epoch.as_mut().expect("prepared");
        for (step, index) in epoch.range.clone().enumerate() {
            let start = index * epoch.batch_size;
            let count = epoch.batch_size.min(images - start);
            self.device.gradients(
                (&self.images, &self.labels),
                (&epoch.order, start, count),
                &self.params,
                (&mut epoch.loss, &mut epoch.correct),
                (&mut epoch.traces, &mut epoch.conv_grads),
            )?;
            self.device.update(
                (&epoch.traces, &epoch.conv_grads, count),
                (&epoch.coefficients, step),
                [&mut self.params, &mut self.moment1, &mut self.moment2],
            )?;
        }
        Ok(())
    }
}

impl Backend for Cuda {
    fn describe(&self) -> String {
        self.description.clone()
    }

    fn train(
        &mut self,
        batches: &Batches,
        on_step: &mut dyn FnMut(StepStats) -> ControlFlow<()>,
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
        assert_eq!(*images, self.labels.len(), "the images given to `new`");
        if range.is_empty() {
            return Ok(());
        }
        self.prepare(*batch_size, range)?;
        if self.epoch.as_ref().is_some_and(|e| e.graph.is_none()) {
            let stream = self.device.stream.clone();
            // Thread-local: other threads may go on allocating.
            stream
                .begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
                .map_err(failed("begin the capture of an epoch"))?;
            let launched = self.launch_steps();
            // Ended in any case, so that the stream is usable after an error.
            let graph = stream.end_capture(CUgraphInstantiate_flags(0));
            launched?;
            self.epoch.as_mut().expect("prepared").graph =
                graph.map_err(failed("make a graph of an epoch"))?;
        }

        let epoch = self.epoch.as_mut().expect("prepared");
        let coefficients: Vec<f32> = (1..=range.len() as u64)
            .flat_map(|step| {
                let c = self.adam.coefficients(self.step + step);
                [c.keep1, c.beta2, c.keep2, c.step_size, c.scale2, c.eps]
            })
            .collect();
        let device = &self.device;
        device.write("order", &order_words(order), &mut epoch.order)?;
        device.write("coefficients", &coefficients, &mut epoch.coefficients)?;
        let graph = epoch.graph.as_ref().expect("captured: the range has steps");
        let record = |event: &CudaEvent| {
            event
                .record(&device.stream)
                .map_err(failed("time an epoch"))
        };
        record(&device.epoch_events[0])?;
        graph.launch().map_err(failed("launch an epoch"))?;
        record(&device.epoch_events[1])?;
        let positions = range.start * batch_size..(range.end * batch_size).min(*images);
        let loss = device.read("losses", &epoch.loss)?;
        let correct = device.read("hits", &epoch.correct)?;
        device.finish("an epoch")?;
        self.step += range.len() as u64;

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
        for (images, out) in images.chunks(EVALUATED).zip(out.chunks_mut(EVALUATED)) {
            let pixels = self
                .device
                .upload("test images", images.as_flattened().as_flattened())?;
            let mut logits = self.device.alloc("logits", images.len() * CLASSES)?;
            self.device
                .logits(&pixels, images.len(), &self.params, &mut logits)?;
            let logits = self.device.read("logits", &logits)?;
            self.device.finish("an evaluation")?;
            out.as_flattened_mut().copy_from_slice(&logits);
        }
        Ok(())
    }

    fn state(&self) -> Result<State, Error> {
        let read = |from: &CudaSlice<f32>| -> Result<Box<Params>, Error> {
            let flat = self.device.read("parameters", from)?;
            self.device.finish("a copy of the parameters")?;
            let mut params: Box<Params> = zeroed_box();
            params.as_flat_mut().copy_from_slice(&flat);
            Ok(params)
        };
        Ok(State {
            params: read(&self.params)?,
            moment1: read(&self.moment1)?,
            moment2: read(&self.moment2)?,
            step: self.step,
        })
    }
}
