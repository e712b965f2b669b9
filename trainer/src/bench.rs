//! Measures how fast the CPU backend trains and evaluates on this machine, compared with the machine's peak.
//!
//! All figures are medians of one call, after a warm-up. Rates count the multiply-adds of the network's definition
//! ([`Phase::multiply_adds`](crate::cpu::Phase::multiply_adds)), each as two operations. Winograd's algorithm executes fewer, so a
//! rate compares with a program that follows the definition; it is not a utilization, and can exceed the peak. Comparisons with
//! other programs are left to scripts that run both in turn.

use crate::adam::Adam;
use crate::backend::{Backend, Batches, State};
use crate::cpu::{Cpu, peak_multiply_adds, phases};
use crate::dataset::{Dataset, Order};
use crate::error::Error;
use crate::evaluate::Confusion;
use crate::forward::forward;
use crate::init::initial_params;
use lenet_core::image::grey;
use lenet_core::network::{Activations, CLASSES, LAYERS};
use serde::Serialize;
use std::hint::black_box;
use std::ops::ControlFlow;
use std::time::Instant;

/// The settings of a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Number of threads; 0 means one per core.
    pub threads: usize,
    /// Images per step, at most those of the training split.
    pub batch_size: usize,
    /// Number of epochs to time, at least one.
    pub epochs: u32,
}

/// The results of a measurement.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Description of the device: `cpu (avx2, 2 threads)`.
    pub device: String,
    /// Threads.
    pub threads: usize,
    /// Images per step.
    pub batch_size: usize,
    /// Time of a step of a whole batch, in milliseconds.
    pub step_ms: f64,
    /// Images of the training split.
    pub images: usize,
    /// Time of an epoch without the test, in seconds.
    pub epoch_s: f64,
    /// Images per second in a step.
    pub images_per_s: f64,
    /// 10⁹ operations per second in a step.
    pub gflops: f64,
    /// 10⁹ operations per second of fused multiply-adds from registers, on one thread.
    pub peak_gflops_one_thread: f64,
    /// The same, on all threads at once.
    pub peak_gflops: f64,
    /// `gflops / peak_gflops`; can exceed 1, see the module.
    pub share_of_peak: f64,
    /// The time that a thread spends in each phase, in the order of a step.
    pub phases: Vec<PhaseReport>,
    /// Time in which a thread is idle, in microseconds per image.
    pub waiting_us: f64,
    /// Images of the test split.
    pub evaluation_images: usize,
    /// Time to evaluate them, in milliseconds.
    pub evaluation_ms: f64,
    /// Time of [`forward`] for one image on one thread, in microseconds.
    pub forward_us: f64,
}

/// A phase of a step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PhaseReport {
    /// Its name.
    pub phase: String,
    /// Time of one thread, in microseconds per image.
    pub us: f64,
    /// 10⁹ operations per second of one thread.
    pub gflops: f64,
    /// `gflops / peak_gflops_one_thread`; can exceed 1, see the module.
    pub share_of_peak: f64,
}

/// Trains from seed 0 and measures the times.
///
/// # Errors
/// Returns the errors of the backend.
pub fn measure(data: &Dataset, plan: &Plan) -> Result<Report, Error> {
    let images = data.train.len();
    let state = State::new(initial_params(0));
    let mut cpu = Cpu::new(&data.train, state, Adam::default(), plan.threads)?;
    let (isa, threads) = (cpu.isa(), cpu.threads());
    let batches =
        |epoch| Batches::epoch(Order::shuffled(0, epoch, images), images, plan.batch_size);

    // Part of an epoch is enough to warm up, and to see how a step divides.
    let mut some = batches(0);
    some.range.end = some.range.end.min(60);

    // The peak is measured before and after the work, because the speed of a machine changes.
    let peaks = || -> Result<[f64; 2], Error> {
        let peaks = [
            peak_multiply_adds(isa, 1)?,
            peak_multiply_adds(isa, threads)?,
        ];
        Ok(peaks.map(|peak| 2e-9 * peak))
    };
    let before = peaks()?;
    let (mut steps, mut epochs) = (Vec::new(), Vec::new());
    cpu.train(&some, &mut |_| ControlFlow::Continue(()))?;
    for epoch in 1..=plan.epochs {
        let start = Instant::now();
        let mut last = start;
        cpu.train(&batches(epoch), &mut |stats| {
            let now = Instant::now();
            if stats.images as usize == plan.batch_size {
                steps.push((now - last).as_secs_f64());
            }
            last = now;
            ControlFlow::Continue(())
        })?;
        epochs.push(start.elapsed().as_secs_f64());
    }
    let start = Instant::now();
    let times = cpu.profile(&some)?;
    let profiled = start.elapsed().as_secs_f64() * threads as f64;
    let after = peaks()?;
    let [peak_one, peak] = [0, 1].map(|i| f64::max(before[i], after[i]));

    let test = &data.test;
    let mut logits = vec![[0.0; CLASSES]; test.len()];
    let evaluation = median_of(9, || {
        cpu.logits(test.images(), &mut logits)?;
        black_box(Confusion::new(&logits, test.labels()));
        Ok(())
    })?;

    let params = cpu.state()?.params;
    let images_f32: Vec<_> = test.images().iter().take(200).map(grey).collect();
    let mut act = Activations::new();
    let forward = median_of(21, || {
        for image in &images_f32 {
            black_box(forward(&params, image, &mut act));
        }
        Ok(())
    })?;

    let step = median(&mut steps);
    let profiled_images = images.min(some.range.end * plan.batch_size);
    let an_image = |seconds: f64| 1e6 * seconds / profiled_images as f64;
    let images_per_s = plan.batch_size as f64 / step;
    let gflops = 2e-9 * images_per_s * multiply_adds() as f64;
    Ok(Report {
        device: cpu.describe(),
        threads,
        batch_size: plan.batch_size,
        step_ms: 1e3 * step,
        images,
        epoch_s: median(&mut epochs),
        images_per_s,
        gflops,
        peak_gflops_one_thread: peak_one,
        peak_gflops: peak,
        share_of_peak: gflops / peak,
        phases: phases(&LAYERS)
            .into_iter()
            .zip(&times)
            .map(|(phase, time)| {
                let us = an_image(time.as_secs_f64());
                let gflops = 2e-3 * phase.multiply_adds as f64 / us;
                PhaseReport {
                    phase: phase.name,
                    us,
                    gflops,
                    share_of_peak: gflops / peak_one,
                }
            })
            .collect(),
        waiting_us: an_image(profiled - times.iter().sum::<std::time::Duration>().as_secs_f64()),
        evaluation_images: test.len(),
        evaluation_ms: 1e3 * evaluation,
        forward_us: 1e6 * forward / images_f32.len() as f64,
    })
}

/// Returns the number of multiply-adds in a training step for one image.
pub fn multiply_adds() -> usize {
    let phases = phases(&LAYERS);
    phases.iter().map(|phase| phase.multiply_adds).sum()
}

/// Returns the median time of `runs` runs in seconds, after one that is not timed.
pub(crate) fn median_of(
    runs: usize,
    mut work: impl FnMut() -> Result<(), Error>,
) -> Result<f64, Error> {
    work()?;
    let mut times = Vec::with_capacity(runs);
    for _ in 0..runs {
        let start = Instant::now();
        work()?;
        times.push(start.elapsed().as_secs_f64());
    }
    Ok(median(&mut times))
}

/// Returns the median; of an even number of values the upper one of the two in the middle.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_of_any_order() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0]), 4.0);
    }
}
