//! How fast training and testing are on a GPU: by the device's clock, and by the host's, which has the copies and waits
//! too.
//!
//! Every figure is a median, taken after an epoch that is not timed, in which the graph is made.

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

/// What was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// What computed: `cuda (NVIDIA H100 PCIe, sm_90)`.
    pub device: String,
    /// Devices that share a batch.
    pub devices: usize,
    /// Images a step.
    pub batch_size: usize,
    /// Steps of an epoch, the last with what images remain.
    pub steps: usize,
    /// Time of a step, the mean over an epoch, by the device's clock, in milliseconds.
    pub step_ms: f64,
    /// Images of the training split.
    pub images: usize,
    /// Time of an epoch without the test, by the device's clock, in milliseconds.
    pub epoch_ms: f64,
    /// The same by the host's clock, with the copies and the wait, in milliseconds.
    pub epoch_host_ms: f64,
    /// Images a second of an epoch, by the device's clock.
    pub images_per_s: f64,
    /// 10⁹ operations a second that the network needs, each multiply-add two.
    pub gflops: f64,
    /// Images of the test split.
    pub evaluation_images: usize,
    /// Time to evaluate them, with the copies, by the host's clock, in milliseconds.
    pub evaluation_ms: f64,
}

/// Trains from seed 0 on the first `devices` devices and measures; the plan's threads are the CPU's and not used.
///
/// # Errors
/// What the backend gives.
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
    let evaluation = median_of(9, || cuda.logits(data.test.images(), &mut logits))?;

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
