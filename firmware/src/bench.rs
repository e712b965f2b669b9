//! Cost of each layer and of the whole forward pass, in whatever a counter counts.

use core::hint::black_box;
use lenet_core::arch::{FLAT, Image, Params};
use lenet_core::network::{Activations, forward};
use lenet_core::ops::{conv_pool_sigmoid, linear, sigmoid_in_place};

/// What is measured, in the order of [`Cost::stages`].
pub const STAGES: [&str; 5] = ["conv1_pool1", "conv2_pool2", "fc1", "fc2", "fc3"];

/// Counts for one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// One for each of [`STAGES`], sigmoids included.
    pub stages: [u32; STAGES.len()],
    /// [`forward`], measured on its own.
    pub forward: u32,
    /// Whether the stages one by one gave the bits that `forward` gave.
    pub same_bits: bool,
}

impl Cost {
    /// The same in another unit.
    pub fn map(self, unit: impl Fn(u32) -> u32) -> Self {
        Self {
            stages: self.stages.map(&unit),
            forward: unit(self.forward),
            ..self
        }
    }
}

/// Measures with a counter that counts upwards and may wrap; everything runs once before, to warm caches.
pub fn measure(
    params: &Params,
    image: &Image,
    act: &mut Activations,
    now: &dyn Fn() -> u32,
) -> Cost {
    run_stages(params, image, act, now);
    let stages = run_stages(params, image, act, now);
    let bits = act.logits.map(f32::to_bits);

    forward(params, image, act);
    let start = now();
    let logits = black_box(forward(black_box(params), black_box(image), act));
    let forward = now().wrapping_sub(start);
    Cost {
        stages,
        forward,
        same_bits: logits.map(f32::to_bits) == bits,
    }
}

#[inline(never)]
fn run_stages(
    params: &Params,
    image: &Image,
    act: &mut Activations,
    now: &dyn Fn() -> u32,
) -> [u32; STAGES.len()] {
    // The black box keeps the work between the two readings.
    let mut time = |stage: fn(&Params, &Image, &mut Activations)| {
        let start = now();
        stage(black_box(params), black_box(image), black_box(&mut *act));
        black_box(&mut *act);
        now().wrapping_sub(start)
    };
    [
        time(|params, image, act| {
            conv_pool_sigmoid(
                image,
                &params.conv1_weight,
                &params.conv1_bias,
                &mut act.pool1,
            )
        }),
        time(|params, _, act| {
            conv_pool_sigmoid(
                &act.pool1,
                &params.conv2_weight,
                &params.conv2_bias,
                &mut act.pool2,
            )
        }),
        time(|params, _, act| {
            let flat: &[f32; FLAT] = bytemuck::must_cast_ref(&act.pool2);
            linear(flat, &params.fc1_weight, &params.fc1_bias, &mut act.fc1);
            sigmoid_in_place(&mut act.fc1);
        }),
        time(|params, _, act| {
            linear(&act.fc1, &params.fc2_weight, &params.fc2_bias, &mut act.fc2);
            sigmoid_in_place(&mut act.fc2);
        }),
        time(|params, _, act| {
            linear(
                &act.fc2,
                &params.fc3_weight,
                &params.fc3_bias,
                &mut act.logits,
            )
        }),
    ]
}
