//! What one device holds, and its part of a step: all images, the whole state, and the graphs of the parts of an epoch
//! over its share of each batch.

use super::driver::failed;
use super::engine::{Flat, Images};
use super::kernels::{Device, Part};
use super::layout::COEFFICIENTS;
use super::ptx::Kernels;
use crate::dataset::{Augment, Order};
use crate::error::Error;
use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use cudarc::driver::{CudaContext, CudaGraph, CudaSlice};
use std::ops::Range;

/// A device with a copy of everything.
pub struct Replica {
    pub device: Device,
    images: CudaSlice<u8>,
    labels: CudaSlice<u8>,
    // Private, because the graphs hold their addresses.
    params: CudaSlice<f32>,
    moment1: CudaSlice<f32>,
    moment2: CudaSlice<f32>,
    mean: Option<CudaSlice<f32>>,
    epoch: Option<Epoch>,
}

/// What the parts of an epoch need beside the data and the state, kept for the next ones with this batch size.
struct Epoch {
    batch_size: usize,
    /// Most images of a part.
    images: usize,
    /// `(steps, COEFFICIENTS)`
    coefficients: CudaSlice<f32>,
    /// `(images)`, by position in the part; on several devices those of the device's shares.
    loss: CudaSlice<f32>,
    /// `(images)`, as `loss`.
    correct: CudaSlice<u8>,
    /// `(share)` traces.
    traces: CudaSlice<f32>,
    /// The convolutions' parameters for each block.
    conv_grads: CudaSlice<f32>,
    /// The graphs that were captured, the most recent last. The last may still be in capture.
    graphs: Vec<Graph>,
}

/// Different lengths of parts whose graphs are kept: that of all but the last part of an epoch, and of the last.
const GRAPHS: usize = 2;

/// All launches of a part.
struct Graph {
    /// Images of the part.
    images: usize,
    part: Part,
    launches: Option<Launches>,
}

struct Launches(CudaGraph);

// SAFETY: the driver lets any thread use a graph, one at a time; a `Replica` is handed on as a whole, and is not `Sync`.
unsafe impl Send for Launches {}

impl Replica {
    /// Copies the images and the state to the device with this number and name.
    pub fn new(
        ordinal: usize,
        name: &str,
        kernels: &Kernels,
        train: Images,
        state: &Flat,
    ) -> Result<Self, Error> {
        let context =
            CudaContext::new(ordinal).map_err(failed(format!("open device {ordinal}")))?;
        // SAFETY: cudarc's events order the work of several streams of a device; here each has one.
        unsafe { context.disable_event_tracking() };
        let device = Device::new(&context, name, kernels)?;
        let flat = |params: &Vec<f32>| device.upload("parameters", params);
        Ok(Self {
            images: device.upload("images", train.pixels)?,
            labels: device.upload("labels", train.labels)?,
            params: flat(&state.params)?,
            moment1: flat(&state.moment1)?,
            moment2: flat(&state.moment2)?,
            mean: state.mean.as_ref().map(flat).transpose()?,
            epoch: None,
            device,
        })
    }

    /// Images of the training split.
    pub fn images(&self) -> usize {
        self.labels.len()
    }

    /// Returns the parameters and both moments, and the mean if there is one.
    pub fn state(&self) -> ([&CudaSlice<f32>; 3], Option<&CudaSlice<f32>>) {
        let state = [&self.params, &self.moment1, &self.moment2];
        (state, self.mean.as_ref())
    }

    /// As `State::result`.
    pub fn result(&self) -> &CudaSlice<f32> {
        self.mean.as_ref().unwrap_or(&self.params)
    }

    /// Makes room for parts of at most `steps` steps, of which this device has at most `share` images a batch.
    pub fn prepare(&mut self, batch_size: usize, steps: usize, share: usize) -> Result<(), Error> {
        let images = self.images().min(steps.saturating_mul(batch_size));
        let kept = self.epoch.as_ref();
        if kept.is_some_and(|kept| (kept.batch_size, kept.images) == (batch_size, images)) {
            return Ok(());
        }
        self.epoch = None;
        let device = &self.device;
        let steps = images.div_ceil(batch_size);
        let layout = &device.layout;
        let sums = share.div_ceil(layout.group()) * layout.conv_params();
        self.epoch = Some(Epoch {
            batch_size,
            images,
            coefficients: device.alloc("coefficients", COEFFICIENTS * steps)?,
            loss: device.alloc("losses", images)?,
            correct: device.alloc("hits", images)?,
            traces: device.alloc("traces", share * layout.trace_len())?,
            // At least one: nothing cannot be allocated.
            conv_grads: device.alloc("gradients", sums.max(1))?,
            graphs: Vec::new(),
        });
        Ok(())
    }

    /// Whether the graph of a part with so many images is there.
    pub fn has_graph(&self, images: usize) -> bool {
        let epoch = self.epoch.as_ref().expect("prepared");
        let mut graphs = epoch.graphs.iter();
        graphs.any(|graph| graph.images == images && graph.launches.is_some())
    }

    /// Drops the graph of a part with so many images, if there is one.
    pub fn forget_graph(&mut self, images: usize) {
        if let Some(epoch) = &mut self.epoch {
            epoch.graphs.retain(|graph| graph.images != images);
        }
    }

    /// Launches go into the graph of a part with so many images from here on.
    pub fn begin_capture(&mut self, images: usize) -> Result<(), Error> {
        let part = self.device.part(self.images(), images)?;
        self.forget_graph(images);
        let graphs = &mut self.epoch.as_mut().expect("prepared").graphs;
        graphs.drain(..(graphs.len() + 1).saturating_sub(GRAPHS));
        graphs.push(Graph {
            images,
            part,
            launches: None,
        });
        // Thread-local: other threads may go on allocating.
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        let begun = self.device.stream.begin_capture(mode);
        begun.map_err(failed("begin the capture of an epoch"))
    }

    /// Ends what `begin_capture` began, and keeps the graph.
    pub fn end_capture(&mut self) -> Result<(), Error> {
        let graph = self.device.stream.end_capture(CUgraphInstantiate_flags(0));
        let graph = graph.map_err(failed("make a graph of an epoch"))?;
        if let Some(begun) = self.epoch.as_mut().expect("prepared").graphs.last_mut() {
            begun.launches = graph.map(Launches);
        }
        Ok(())
    }

    /// Launches forward and backward of the images at the positions `share`, of a batch of `batch` images.
    pub fn gradients(&mut self, share: &Range<usize>, batch: usize) -> Result<(), Error> {
        let epoch = self.epoch.as_mut().expect("prepared");
        let graph = epoch.graphs.last().expect("a capture has begun");
        self.device.gradients(
            (&self.images, &self.labels),
            (&graph.part, share.clone(), 1.0 / batch as f32),
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

    /// Starts the captured part of so many images that begins at position `first` of the epoch.
    pub fn start(
        &mut self,
        (first, images): (usize, usize),
        (order, augment): (&Order, Option<&Augment>),
        coefficients: &[f32],
    ) -> Result<(), Error> {
        let device = &self.device;
        let epoch = self.epoch.as_mut().expect("prepared");
        let graph = epoch.graphs.iter_mut().find(|graph| graph.images == images);
        let graph = graph.expect("captured");
        device.set_part(&mut graph.part, order, first, augment)?;
        device.write("coefficients", coefficients, &mut epoch.coefficients)?;
        let Launches(launches) = graph.launches.as_ref().expect("captured: a part has steps");
        launches.launch().map_err(failed("launch an epoch"))
    }

    /// Records the time before (0) or after (1) what is under way.
    pub fn record(&self, which: usize) -> Result<(), Error> {
        let recorded = self.device.epoch_events[which].record(&self.device.stream);
        recorded.map_err(failed("time an epoch"))
    }

    /// Waits for the part; its losses and hits by position, those of this device's shares.
    pub fn finish(&self) -> Result<(Vec<f32>, Vec<u8>), Error> {
        let epoch = self.epoch.as_ref().expect("prepared");
        let loss = self.device.read("losses", &epoch.loss)?;
        let correct = self.device.read("hits", &epoch.correct)?;
        self.device.finish("an epoch")?;
        Ok((loss, correct))
    }
}
