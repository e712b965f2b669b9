//! What one device holds, and its part of a step: all images, the whole state, and the graph of an epoch over its share
//! of each batch.

use super::constants::{COEFFICIENTS, CONV_PARAMS, GROUP, Trace};
use super::driver::failed;
use super::kernels::Device;
use crate::backend::State;
use crate::dataset::{ROUNDS, Split};
use crate::error::Error;
use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use cudarc::driver::{CudaContext, CudaEvent, CudaGraph, CudaSlice};
use lenet_core::network::Params;
use std::ops::Range;

/// A device with a copy of everything.
pub struct Replica {
    pub device: Device,
    images: CudaSlice<u8>,
    labels: CudaSlice<u8>,
    pub params: CudaSlice<f32>,
    pub moment1: CudaSlice<f32>,
    pub moment2: CudaSlice<f32>,
    pub mean: Option<CudaSlice<f32>>,
    epoch: Option<Epoch>,
}

/// What an epoch needs beside the data and the state, kept for the next one of the same shape.
struct Epoch {
    batch_size: usize,
    range: Range<usize>,
    /// `Order` of step.cu.
    order: CudaSlice<u32>,
    /// `(steps, COEFFICIENTS)`
    coefficients: CudaSlice<f32>,
    /// `(images)`, by position in the epoch; zeros where another device writes.
    loss: CudaSlice<f32>,
    /// `(images)`, as `loss`.
    correct: CudaSlice<u8>,
    /// `(share)` of `Trace`.
    traces: CudaSlice<f32>,
    /// `(blocks, CONV_PARAMS)`
    conv_grads: CudaSlice<f32>,
    /// All its launches.
    graph: Option<Graph>,
}

struct Graph(CudaGraph);

// SAFETY: the driver lets any thread use a graph, one at a time; a `Replica` is handed on as a whole, and is not `Sync`.
unsafe impl Send for Graph {}

impl Replica {
    /// On a device of the machine, by number.
    pub fn new(ordinal: usize, train: &Split, state: &State) -> Result<Self, Error> {
        let context =
            CudaContext::new(ordinal).map_err(failed(format!("open device {ordinal}")))?;
        // SAFETY: cudarc's events order the work of several streams of a device; here each has one.
        unsafe { context.disable_event_tracking() };
        let device = Device::new(&context)?;
        let flat = |params: &Params| device.upload("parameters", params.as_flat());
        Ok(Self {
            images: device.upload("images", bytemuck::cast_slice::<_, u8>(train.images()))?,
            labels: device.upload("labels", train.labels())?,
            params: flat(&state.params)?,
            moment1: flat(&state.moment1)?,
            moment2: flat(&state.moment2)?,
            mean: state.mean.as_deref().map(flat).transpose()?,
            epoch: None,
            device,
        })
    }

    /// Images of the training split.
    pub fn images(&self) -> usize {
        self.labels.len()
    }

    /// As [`State::result`].
    pub fn result(&self) -> &CudaSlice<f32> {
        self.mean.as_ref().unwrap_or(&self.params)
    }

    /// Makes room for an epoch (or a part) of such a shape, of which this device has at most `share` images a batch.
    /// Returns whether the graph of that shape is there already.
    pub fn prepare(
        &mut self,
        batch_size: usize,
        range: &Range<usize>,
        share: usize,
    ) -> Result<bool, Error> {
        let kept = self.epoch.as_ref();
        if kept.is_some_and(|e| (e.batch_size, &e.range) == (batch_size, range)) {
            return Ok(kept.is_some_and(|e| e.graph.is_some()));
        }
        self.epoch = None;
        let images = self.images();
        let device = &self.device;
        self.epoch = Some(Epoch {
            batch_size,
            range: range.clone(),
            order: device.alloc("order", 2 + ROUNDS)?,
            coefficients: device.alloc("coefficients", COEFFICIENTS * range.len())?,
            loss: device.alloc("losses", images)?,
            correct: device.alloc("hits", images)?,
            traces: device.alloc("traces", share * size_of::<Trace>() / size_of::<f32>())?,
            conv_grads: device.alloc("gradients", share.div_ceil(GROUP) * CONV_PARAMS)?,
            graph: None,
        });
        Ok(false)
    }

    /// Launches go into a graph from here on.
    pub fn begin_capture(&self) -> Result<(), Error> {
        // Thread-local: other threads may go on allocating.
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        let begun = self.device.stream.begin_capture(mode);
        begun.map_err(failed("begin the capture of an epoch"))
    }

    /// Ends what `begin_capture` began, and keeps the graph.
    pub fn end_capture(&mut self) -> Result<(), Error> {
        let graph = self.device.stream.end_capture(CUgraphInstantiate_flags(0));
        let graph = graph.map_err(failed("make a graph of an epoch"))?;
        self.epoch.as_mut().expect("prepared").graph = graph.map(Graph);
        Ok(())
    }

    /// Launches forward and backward of the images at the positions `share`, of a batch of `batch` images.
    pub fn gradients(&mut self, share: &Range<usize>, batch: usize) -> Result<(), Error> {
        let epoch = self.epoch.as_mut().expect("prepared");
        self.device.gradients(
            (&self.images, &self.labels),
            (&epoch.order, share.clone(), 1.0 / batch as f32),
            &self.params,
            (&mut epoch.loss, &mut epoch.correct),
            (&mut epoch.traces, &mut epoch.conv_grads),
        )
    }

    /// Launches the update by the gradients of the last `count` images.
    pub fn update(&mut self, count: usize, step: usize) -> Result<(), Error> {
        let epoch = self.epoch.as_ref().expect("prepared");
        self.device.update(
            (&epoch.traces, &epoch.conv_grads, count),
            (&epoch.coefficients, step),
            [&mut self.params, &mut self.moment1, &mut self.moment2],
        )
    }

    /// Launches the sum of the gradients of the last `count` images.
    pub fn sum_gradients(&self, count: usize, grads: &mut CudaSlice<f32>) -> Result<(), Error> {
        let epoch = self.epoch.as_ref().expect("prepared");
        self.device
            .sum_gradients((&epoch.traces, &epoch.conv_grads, count), grads)
    }

    /// Launches the update by `grads`.
    pub fn adam(&mut self, grads: &CudaSlice<f32>, step: usize) -> Result<(), Error> {
        let epoch = self.epoch.as_ref().expect("prepared");
        self.device.adam(
            grads,
            (&epoch.coefficients, step),
            [&mut self.params, &mut self.moment1, &mut self.moment2],
        )
    }

    /// Launches what takes the parameters into their mean, if there is one.
    pub fn average(&mut self, step: usize) -> Result<(), Error> {
        let epoch = self.epoch.as_ref().expect("prepared");
        if let Some(mean) = &mut self.mean {
            let coefficients = (&epoch.coefficients, step);
            self.device.average(&self.params, coefficients, mean)?;
        }
        Ok(())
    }

    /// Starts the captured epoch.
    pub fn start(&mut self, order: &[u32], coefficients: &[f32]) -> Result<(), Error> {
        let device = &self.device;
        let epoch = self.epoch.as_mut().expect("prepared");
        device.write("order", order, &mut epoch.order)?;
        device.write("coefficients", coefficients, &mut epoch.coefficients)?;
        let Graph(graph) = epoch.graph.as_ref().expect("captured: the range has steps");
        let [before, after] = &device.epoch_events;
        let time = |event: &CudaEvent| {
            let recorded = event.record(&device.stream);
            recorded.map_err(failed("time an epoch"))
        };
        time(before)?;
        graph.launch().map_err(failed("launch an epoch"))?;
        time(after)
    }

    /// Waits for the epoch; its losses and hits by position, zeros where another device computed them.
    pub fn finish(&self) -> Result<(Vec<f32>, Vec<u8>), Error> {
        let epoch = self.epoch.as_ref().expect("prepared");
        let loss = self.device.read("losses", &epoch.loss)?;
        let correct = self.device.read("hits", &epoch.correct)?;
        self.device.finish("an epoch")?;
        Ok((loss, correct))
    }
}
