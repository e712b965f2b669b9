//! The data and work of one device: it holds all images, the whole training state, and the graphs that process its share of each
//! batch.
//!
//! An epoch is split into parts, each of which is one launch of a graph; see `engine.rs`.

use super::driver::failed;
use super::engine::{Flat, Images};
use super::kernels::{Device, Part};
use super::layout::COEFFICIENTS;
use super::ptx::Kernels;
use crate::backend::Error;
use crate::dataset::{Augment, Order};
use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use cudarc::driver::{CudaContext, CudaGraph, CudaSlice};
use std::ops::Range;

/// A device with its own copy of the images and the training state.
pub struct Replica {
    pub device: Device,
    images: CudaSlice<u8>,
    labels: CudaSlice<u8>,
    // Private and never replaced, because the graphs contain their addresses.
    params: CudaSlice<f32>,
    moment1: CudaSlice<f32>,
    moment2: CudaSlice<f32>,
    mean: Option<CudaSlice<f32>>,
    epoch: Option<Epoch>,
}

/// The buffers and graphs for the parts of an epoch. They are kept for the following epochs with the same batch size.
struct Epoch {
    batch_size: usize,
    /// The maximum number of images in a part.
    images: usize,
    /// `(steps, COEFFICIENTS)`
    coefficients: CudaSlice<f32>,
    /// `(images)`, by position in the part. With several devices, only the positions in this device's shares are used.
    loss: CudaSlice<f32>,
    /// `(images)`, indexed like `loss`: 1 if the prediction is correct.
    correct: CudaSlice<u8>,
    /// One trace per image of this device's share of a batch.
    traces: CudaSlice<f32>,
    /// For each block, the gradients of the convolutions' parameters, summed over the block's images.
    conv_grads: CudaSlice<f32>,
    /// The captured graphs, the most recent one last. The last one may still be in capture.
    graphs: Vec<Graph>,
}

/// The number of graphs to keep, each for parts of a different length. Two suffice: all parts of an epoch have the same length,
/// except the last.
const GRAPHS: usize = 2;

/// The graph for parts of one length.
struct Graph {
    /// Images in the part.
    images: usize,
    part: Part,
    launches: Option<Launches>,
}

/// A captured CUDA graph with all launches of a part.
struct Launches(CudaGraph);

// SAFETY: the driver allows any thread to use a graph, one thread at a time. Only its `Replica` uses the graph; a `Replica` is moved
// between threads as a whole and is not `Sync`.
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
        // SAFETY: cudarc's events synchronise the streams of a device, and here each device has only one stream.
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

    /// Returns the number of images in the training split.
    pub fn images(&self) -> usize {
        self.labels.len()
    }

    /// Returns the parameters and both moments, and the mean if there is one.
    pub fn state(&self) -> ([&CudaSlice<f32>; 3], Option<&CudaSlice<f32>>) {
        let state = [&self.params, &self.moment1, &self.moment2];
        (state, self.mean.as_ref())
    }

    /// Returns the mean of the parameters if there is one, otherwise the parameters, like `State::result`.
    pub fn result(&self) -> &CudaSlice<f32> {
        self.mean.as_ref().unwrap_or(&self.params)
    }

    /// Allocates the buffers for parts of at most `steps` steps. This device processes at most `share` images of each batch.
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
            // At least one, because CUDA cannot allocate an empty buffer.
            conv_grads: device.alloc("gradients", sums.max(1))?,
            graphs: Vec::new(),
        });
        Ok(())
    }

    /// Returns whether there is a graph for parts of `images` images.
    pub fn has_graph(&self, images: usize) -> bool {
        let epoch = self.epoch.as_ref().expect("prepared");
        let mut graphs = epoch.graphs.iter();
        graphs.any(|graph| graph.images == images && graph.launches.is_some())
    }

    /// Drops the graph for parts of `images` images, if there is one.
    pub fn forget_graph(&mut self, images: usize) {
        if let Some(epoch) = &mut self.epoch {
            epoch.graphs.retain(|graph| graph.images != images);
        }
    }

    /// Begins the capture of a graph for parts of `images` images. Later launches are added to the graph instead of running.
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
        // In the thread-local mode, other threads can still allocate memory.
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        let begun = self.device.stream.begin_capture(mode);
        begun.map_err(failed("begin the capture of an epoch"))
    }

    /// Ends the capture and keeps the graph.
    pub fn end_capture(&mut self) -> Result<(), Error> {
        let graph = self.device.stream.end_capture(CUgraphInstantiate_flags(0));
        let graph = graph.map_err(failed("make a graph of an epoch"))?;
        if let Some(begun) = self.epoch.as_mut().expect("prepared").graphs.last_mut() {
            begun.launches = graph.map(Launches);
        }
        Ok(())
    }

    /// Launches the forward and backward pass of the images at the positions `share`, which belong to a batch of `batch` images.
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

    /// Launches the update with the gradients of the last `count` images.
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

    /// Launches the update with the gradients `grads`.
    pub fn adam(&mut self, grads: &CudaSlice<f32>, step: usize) -> Result<(), Error> {
        let epoch = self.epoch.as_ref().expect("prepared");
        self.device.adam(
            grads,
            (&epoch.coefficients, step),
            [&mut self.params, &mut self.moment1, &mut self.moment2],
        )
    }

    /// Launches the update of the parameters' mean, if there is one.
    pub fn average(&mut self, step: usize) -> Result<(), Error> {
        let epoch = self.epoch.as_ref().expect("prepared");
        if let Some(mean) = &mut self.mean {
            let coefficients = (&epoch.coefficients, step);
            self.device.average(&self.params, coefficients, mean)?;
        }
        Ok(())
    }

    /// Launches the graph for the `images` images that begin at position `first` of the epoch.
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

    /// Records the event at the start (0) or the end (1) of the training.
    pub fn record(&self, which: usize) -> Result<(), Error> {
        let recorded = self.device.epoch_events[which].record(&self.device.stream);
        recorded.map_err(failed("time an epoch"))
    }

    /// Waits until the part is done and returns the losses and hits (1 if the prediction is correct) by position. Only the
    /// positions in this device's shares are valid.
    pub fn finish(&self) -> Result<(Vec<f32>, Vec<u8>), Error> {
        let epoch = self.epoch.as_ref().expect("prepared");
        let loss = self.device.read("losses", &epoch.loss)?;
        let correct = self.device.read("hits", &epoch.correct)?;
        self.device.finish("an epoch")?;
        Ok((loss, correct))
    }
}
