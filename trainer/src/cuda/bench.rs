//! Measures how fast a GPU trains and evaluates. The device's clock measures the work on the device; the host's clock also
//! includes the copies and the waiting.
//!
//! Every figure is a median. The first epoch, in which the graph is captured, is not timed.

use super::Cuda;
use crate::adam::Adam;
use crate::backend::{Backend, Batches, State};
use crate::bench::{Plan, median, median_of, multiply_adds};
use crate::dataset::{Dataset, Order};
use crate::error::Error;
use crate::init::initial_params;
use lenet_core::network::CLASSES;
use serde::Serialize;
use std::ops::ControlFlow;
use std::time::Instant;

/// The result of a measurement.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// A description of the devices, such as `cuda (NVIDIA H100 PCIe, sm_90)`.
    pub device: String,
    /// The number of devices that share a batch.
    pub devices: usize,
    /// Images per step.
    pub batch_size: usize,
    /// Steps per epoch; the last one may have fewer images.
    pub steps: usize,
    /// The mean time of a step in an epoch, by the device's clock, in milliseconds.
    pub step_ms: f64,
    /// Images in the training split.
    pub images: usize,
    /// The time of an epoch without the evaluation, by the device's clock, in milliseconds.
    pub epoch_ms: f64,
    /// The time of an epoch by the host's clock, including the copies and the waiting, in milliseconds.
    pub epoch_host_ms: f64,
    /// Images trained per second, by the device's clock.
    pub images_per_s: f64,
    /// The arithmetic that the network needs, in 10⁹ operations per second. A multiply-add counts as two operations.
    pub gflops: f64,
    /// Images in the test split.
    pub evaluation_images: usize,
    /// The time to evaluate the test split, including the copies, by the host's clock, in milliseconds.
    pub evaluation_ms: f64,
}

/// Trains from seed 0 on the first `devices` devices and measures the speed. The plan's number of threads concerns only the CPU and
/// is ignored.
///
/// # Errors
/// Those of the backend.
pub fn measure(data: &Dataset, plan: &Plan, devices: usize) -> Result<Report, Error> {
    let images = data.train.len();
    let state = State::new(initial_params(0));
    let mut cuda = Cuda::new(&data.train, &state, Adam::default(), devices)?;
    let steps = images.div_ceil(plan.batch_size);
    let (mut by_device, mut by_host) = (Vec::new(), Vec::new());
    for epoch in 0..=plan.epochs {
        let order = Order::shuffled(0, epoch, images);
        let batches = Batches::epoch(order, images, plan.batch_size);
        let start = Instant::now();
        cuda.train(&batches, &mut |_| ControlFlow::Continue(()))?;
        if epoch > 0 {
            by_host.push(1e3 * start.elapsed().as_secs_f64());
            by_device.push(f64::from(cuda.last_epoch_ms()?));
        }
    }
    let mut logits = vec![[0.0; CLASSES]; data.test.len()];
    let evaluation = median_of(9, || Ok(cuda.logits(data.test.images(), &mut logits)?))?;

    let epoch_ms = median(&mut by_device);
    let images_per_s = 1e3 * images as f64 / epoch_ms;
    Ok(Report {
        device: cuda.describe(),
        devices,
        batch_size: plan.batch_size,
        steps,
        step_ms: epoch_ms / steps as f64,
        images,
        epoch_ms,
        epoch_host_ms: median(&mut by_host),
        images_per_s,
        gflops: 2e-9 * images_per_s * multiply_adds() as f64,
        evaluation_images: data.test.len(),
        evaluation_ms: 1e3 * evaluation,
    })
}
