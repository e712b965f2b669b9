//! Sigmoid and tanh as tables of 1,024 bytes, computed at compile time.
//!
//! Entry `i` is the function at `(i - 512) · step`, rounded to the nearest byte. For the sigmoid the step is 1/64, so its table
//! ends at ±8, where the function is within a quarter of a byte of 0 and 1. For tanh the step is 1/128, and the table ends at ±4.

use super::finish::TABLE_BITS;
use crate::layer::Activation;

const LEN: usize = 1 << TABLE_BITS;
const SIGMOID_STEP: f64 = 1.0 / 64.0;
const TANH_STEP: f64 = 1.0 / 128.0;

/// The sigmoid, times 255.
pub static SIGMOID: [u8; LEN] = {
    let mut table = [0; LEN];
    let mut i = 0;
    while i < LEN {
        let x = (i as f64 - (LEN / 2) as f64) * SIGMOID_STEP;
        table[i] = (255.0 / (1.0 + exp(-x)) + 0.5) as u8;
        i += 1;
    }
    table
};

/// Tanh, times 127, plus 128.
pub static TANH: [u8; LEN] = {
    let mut table = [0; LEN];
    let mut i = 0;
    while i < LEN {
        let x = (i as f64 - (LEN / 2) as f64) * TANH_STEP;
        let tanh = 1.0 - 2.0 / (exp(2.0 * x) + 1.0);
        table[i] = (127.0 * tanh + 128.0 + 0.5) as u8;
        i += 1;
    }
    table
};

/// Returns the difference between the inputs of neighbouring entries in the table of an activation, or `None` if it has no table.
pub const fn step(activation: Activation) -> Option<f64> {
    match activation {
        Activation::Sigmoid => Some(SIGMOID_STEP),
        Activation::Tanh => Some(TANH_STEP),
        Activation::Identity | Activation::Relu => None,
    }
}

/// Returns the value of one step of the output byte of an activation, or `None` if it must be calibrated on images.
pub const fn output_step(activation: Activation) -> Option<f64> {
    match activation {
        Activation::Sigmoid => Some(1.0 / 255.0),
        Activation::Tanh => Some(1.0 / 127.0),
        Activation::Identity | Activation::Relu => None,
    }
}

/// Returns `exp(x)` for `|x| ≤ 8` to about 13 digits: the Taylor series at `x / 256`, squared eight times.
const fn exp(x: f64) -> f64 {
    let small = x / 256.0;
    let (mut sum, mut term, mut n) = (1.0, 1.0, 1);
    while n < 12 {
        term *= small / n as f64;
        sum += term;
        n += 1;
    }
    let mut squared = 0;
    while squared < 8 {
        sum *= sum;
        squared += 1;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{sigmoid, tanh};

    #[test]
    fn activations_with_a_table_have_fixed_steps() {
        let steps = |activation| (step(activation), output_step(activation));
        assert_eq!(
            steps(Activation::Sigmoid),
            (Some(1.0 / 64.0), Some(1.0 / 255.0))
        );
        assert_eq!(
            steps(Activation::Tanh),
            (Some(1.0 / 128.0), Some(1.0 / 127.0))
        );
        assert_eq!(steps(Activation::Relu), (None, None));
        assert_eq!(steps(Activation::Identity), (None, None));
    }

    #[test]
    fn entries_are_the_functions_rounded() {
        let middle = (LEN / 2) as f32;
        for i in 0..LEN {
            let x = (i as f32 - middle) * SIGMOID_STEP as f32;
            let distance = f32::from(SIGMOID[i]) - 255.0 * sigmoid(x);
            assert!(distance.abs() < 0.5 + 1e-4, "sigmoid({x})");
            let x = (i as f32 - middle) * TANH_STEP as f32;
            let distance = f32::from(TANH[i]) - 128.0 - 127.0 * tanh(x);
            assert!(distance.abs() < 0.5 + 1e-4, "tanh({x})");
        }
        assert_eq!((SIGMOID[0], SIGMOID[LEN - 1]), (0, 255));
        assert_eq!((TANH[0], TANH[LEN / 2], TANH[LEN - 1]), (1, 128, 255));
    }
}
