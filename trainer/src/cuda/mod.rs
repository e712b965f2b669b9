//! Training on an NVIDIA GPU: buffers, launches, and one graph an epoch. The kernels are in step.cu, compiled ahead to
//! step.ptx, so that running needs a driver and no toolkit.
//!
//! Data and parameters stay on the device. The order of an epoch is computed there, from its keys; an epoch is two
//! kernels a step, captured once as a graph that is launched again for each epoch, and one synchronisation at its end,
//! when the losses come back. Everything adds in a fixed order: two runs give the same bits.

mod constants;
mod driver;

pub use constants::{ARCH, THREADS, UPDATE_BLOCKS, definitions};
pub use driver::{Driver, probe};

use crate::adam::Adam;
use crate::backend::{Backend, Batches, State, StepStats};
use crate::dataset::{Order, ROUNDS, Split};
use crate::error::Error;
use bytemuck::zeroed_box;
use constants::{CONV_PARAMS, GROUP, Trace};
use cudarc::driver::sys::{CUevent_flags, CUgraphInstantiate_flags, CUresult, CUstreamCaptureMode};
use cudarc::driver::{
    CudaContext, CudaEvent, CudaFunction, CudaGraph, CudaSlice, CudaStream, DeviceRepr,
    DriverError, LaunchConfig, PushKernelArg,
};
use cudarc::nvrtc::Ptx;
use lenet_core::arch::{CLASSES, Logits, NUM_PARAMS, Params, Pixels};
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

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

/// A stream with two events, and the kernels.
struct Device {
    stream: Arc<CudaStream>,
    /// Recorded before and after an epoch.
    epoch_events: [CudaEvent; 2],
    logits: CudaFunction,
    gradients: CudaFunction,
    update: CudaFunction,
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
        } = batches;
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
            if on_step(stats).is_break() {
                break;
            }
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

impl Device {
    fn new(context: &Arc<CudaContext>) -> Result<Self, Error> {
        let module = context
            .load_module(Ptx::from_src(PTX))
            .map_err(failed("load the kernels"))?;
        let load = |name| {
            let found = module.load_function(name);
            found.map_err(failed(format!("find the kernel {name}")))
        };
        let event = || {
            let event = context.new_event(Some(CUevent_flags::CU_EVENT_DEFAULT));
            event.map_err(failed("make an event"))
        };
        Ok(Self {
            epoch_events: [event()?, event()?],
            // A stream of its own, because the default one cannot be captured.
            stream: context.new_stream().map_err(failed("make a stream"))?,
            logits: load("logits")?,
            gradients: load("gradients")?,
            update: load("update")?,
        })
    }

    /// Room for `len` values, zeros.
    fn alloc<T: DeviceRepr + cudarc::driver::ValidAsZeroBits>(
        &self,
        what: &str,
        len: usize,
    ) -> Result<CudaSlice<T>, Error> {
        let bytes = len * size_of::<T>();
        self.stream
            .alloc_zeros(len)
            .map_err(failed(format!("allocate {bytes} bytes for the {what}")))
    }

    /// A copy on the device.
    fn upload<T: DeviceRepr>(&self, what: &str, values: &[T]) -> Result<CudaSlice<T>, Error> {
        let bytes = size_of_val(values);
        self.stream.clone_htod(values).map_err(failed(format!(
            "copy the {what} to the device, {bytes} bytes"
        )))
    }

    fn write<T: DeviceRepr>(
        &self,
        what: &str,
        from: &[T],
        to: &mut CudaSlice<T>,
    ) -> Result<(), Error> {
        let bytes = size_of_val(from);
        self.stream.memcpy_htod(from, to).map_err(failed(format!(
            "copy the {what} to the device, {bytes} bytes"
        )))
    }

    /// A copy on the host, complete after [`finish`](Self::finish).
    fn read<T: DeviceRepr>(&self, what: &str, from: &CudaSlice<T>) -> Result<Vec<T>, Error> {
        let bytes = from.num_bytes();
        self.stream.clone_dtoh(from).map_err(failed(format!(
            "copy the {what} from the device, {bytes} bytes"
        )))
    }

    /// Waits for everything under way.
    fn finish(&self, what: &str) -> Result<(), Error> {
        self.stream
            .synchronize()
            .map_err(failed(format!("finish {what}")))
    }

    /// The logits of `count` images, `(count, SIDE, SIDE)`, into `out`, `(count, CLASSES)`; `logits` of step.cu.
    fn logits(
        &self,
        images: &CudaSlice<u8>,
        count: usize,
        params: &CudaSlice<f32>,
        out: &mut CudaSlice<f32>,
    ) -> Result<(), Error> {
        assert!(images.len() == count * size_of::<Pixels>() && out.len() == count * CLASSES);
        let words = count as u32;
        let mut launch = self.stream.launch_builder(&self.logits);
        launch.arg(images).arg(&words).arg(params).arg(out);
        // SAFETY: the arguments are those of step.cu's `logits`, which reads `count` images and NUM_PARAMS parameters
        // and writes `count` rows of CLASSES.
        unsafe { launch.launch(blocks(count.div_ceil(GROUP))) }
            .map_err(failed("launch the kernel logits"))?;
        Ok(())
    }

    /// Forward and backward of the batch of `count` images from position `start` of the order; `gradients` of step.cu.
    fn gradients(
        &self,
        (images, labels): (&CudaSlice<u8>, &CudaSlice<u8>),
        (order, start, count): (&CudaSlice<u32>, usize, usize),
        params: &CudaSlice<f32>,
        (loss, correct): (&mut CudaSlice<f32>, &mut CudaSlice<u8>),
        (traces, conv_grads): (&mut CudaSlice<f32>, &mut CudaSlice<f32>),
    ) -> Result<(), Error> {
        let groups = count.div_ceil(GROUP);
        assert!(images.len() == labels.len() * size_of::<Pixels>());
        assert!(start + count <= labels.len() && loss.len() == labels.len());
        assert!(correct.len() == labels.len() && order.len() == 2 + ROUNDS);
        assert!(traces.num_bytes() >= count * size_of::<Trace>());
        assert!(conv_grads.len() >= groups * CONV_PARAMS && params.len() == NUM_PARAMS);
        let (start, count) = (start as u32, count as u32);
        let mut launch = self.stream.launch_builder(&self.gradients);
        launch.arg(images).arg(labels).arg(order);
        launch.arg(&start).arg(&count).arg(params);
        launch.arg(loss).arg(correct).arg(traces).arg(conv_grads);
        // SAFETY: the arguments are those of step.cu's `gradients`. It reads images below `len` of the order, which is
        // their number, and writes by position below `start + count`, `count` traces and `groups` sums.
        unsafe { launch.launch(blocks(groups)) }.map_err(failed("launch the kernel gradients"))?;
        Ok(())
    }

    /// The gradients over the batch, and Adam with the coefficients of `step`; `update` of step.cu.
    fn update(
        &self,
        (traces, conv_grads, count): (&CudaSlice<f32>, &CudaSlice<f32>, usize),
        (coefficients, step): (&CudaSlice<f32>, usize),
        [params, moment1, moment2]: [&mut CudaSlice<f32>; 3],
    ) -> Result<(), Error> {
        let groups = count.div_ceil(GROUP);
        assert!(traces.num_bytes() >= count * size_of::<Trace>());
        assert!(conv_grads.len() >= groups * CONV_PARAMS && coefficients.len() >= 6 * (step + 1));
        assert!([&*params, moment1, moment2].map(|p| p.len()) == [NUM_PARAMS; 3]);
        let (count, groups, step) = (count as u32, groups as u32, step as u32);
        let mut launch = self.stream.launch_builder(&self.update);
        launch.arg(traces).arg(&count).arg(conv_grads).arg(&groups);
        launch.arg(coefficients).arg(&step);
        launch.arg(params).arg(moment1).arg(moment2);
        // SAFETY: the arguments are those of step.cu's `update`. It reads `count` traces, `groups` sums and the
        // coefficients of `step`, and changes NUM_PARAMS values each of parameters and moments.
        unsafe { launch.launch(blocks(UPDATE_BLOCKS)) }
            .map_err(failed("launch the kernel update"))?;
        Ok(())
    }
}

/// So many blocks of the size all kernels have.
fn blocks(count: usize) -> LaunchConfig {
    LaunchConfig {
        grid_dim: (count as u32, 1, 1),
        block_dim: (THREADS as u32, 1, 1),
        shared_mem_bytes: 0,
    }
}

/// An order as step.cu's `Order`.
fn order_words(order: &Order) -> [u32; 2 + ROUNDS] {
    let mut words = [0; 2 + ROUNDS];
    if let Order::Shuffled(permutation) = order {
        words[0] = permutation.len;
        words[1] = permutation.half_bits;
        words[2..].copy_from_slice(&permutation.keys);
    }
    words
}

/// For `map_err`: what was tried, the driver's reason, and what to do.
fn failed(action: impl Into<String>) -> impl FnOnce(DriverError) -> Error {
    let action = action.into();
    move |DriverError(reason)| Error::Cuda {
        cause: format!("CUDA: cannot {action}: {reason:?}"),
        remedy: match reason {
            CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                "Other programs may hold the device's memory (nvidia-smi lists them); or try a smaller --batch-size, \
                 or --device cpu"
            }
            CUresult::CUDA_ERROR_STUB_LIBRARY => {
                "The library found is the toolkit's stub, not the driver's; take its folder out of LD_LIBRARY_PATH, \
                 or train with --device cpu"
            }
            CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU
            | CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION => {
                "The kernels need a GPU of compute capability 7.0 or later; train with --device cpu"
            }
            _ => "Try --device cpu; nvidia-smi shows the device's state",
        },
    }
}
