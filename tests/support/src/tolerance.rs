//! The tolerances of the tests of this package, each with its reason. Whatever has no tolerance must be equal bit for bit. Unit
//! tests of single kernels in other packages have tolerances of their own, next to the code.
//!
//! There are two kinds. Bounds are derived from the rounding of each operation, and hold for any order of sums, with or without
//! fused multiply-add (Higham: Accuracy and stability of numerical algorithms, 2002, chapter 3). Limits say how far whole training
//! steps may drift apart, and leave room above what was measured (docs/src/numerics.md).

use crate::oracle::{self, Net};
use lenet_core::layer::{Activation, Pool};
use ndarray::{Array1, Array3, ArrayView3};

/// The unit roundoff: the largest relative error of rounding a result to f32. It is half the distance from 1 to the next float.
pub const U: f64 = 1.0 / (1u64 << 24) as f64;

/// The largest absolute error of rounding a product or quotient that is subnormal.
pub const UNDERFLOW: f64 = 1e-45;

/// Returns the error bound of a sum of `terms` products, relative to the sum of their magnitudes. Each product takes part in at
/// most `terms` roundings.
pub fn gamma(terms: usize) -> f64 {
    let n = terms as f64;
    n * U / (1.0 - n * U)
}

/// Returns the error bound of a sum of `terms` terms whose magnitudes add up to `magnitude`.
pub fn sum(terms: usize, magnitude: f64) -> f64 {
    gamma(terms) * magnitude + terms as f64 * UNDERFLOW
}

/// Returns the error bound of a sigmoid near `value`. The exponential has an error of one unit in the last place (2U); the sum and
/// the quotient add U each. Below 2^-126, a backend may return 0.
pub fn sigmoid(value: f64) -> f64 {
    4.0 * U * value + f64::from(f32::MIN_POSITIVE)
}

/// The error bound of a tanh: 2.5 units in the last place of a value below 1.
pub const TANH: f64 = 5.0 * U;

/// Returns the relative error bound of a softmax probability for `classes` logits, if its own logit is `range` below the largest.
/// Subtracting the largest logit is rounded, which adds range · U to the exponent, and at most 0.4 · U for each term of the sum.
/// The two exponentials add 2U each, the sum adds `classes` · U, and the quotient adds U.
pub fn softmax(classes: usize, range: f64) -> f64 {
    (range + 5.0 + 1.4 * classes as f64) * U
}

/// The limit for the difference between central differences of the oracle and exact derivatives, relative to the largest element
/// of the tensor. The error consists of the square of the step 1e-5, and of 1e-16 divided by the step.
pub const DIFFERENCES: f64 = 1e-8;

/// The limit for the gradient of one batch, relative to the largest element of the tensor. PyTorch in f32 differs from f64 by at
/// most 5e-6 if no pooling window is near a tie.
pub const GRADIENT: f64 = 5e-6;

/// The limit for the loss of a step, over a hundred steps. PyTorch in f32 differs as much from f64.
pub const LOSS: f64 = 1e-5;

/// The limit for the absolute error of a parameter after ten steps. PyTorch in f32 differs from f64 by 3.2e-5. Adam moves each
/// parameter by up to 1e-3 per step, however small its gradient is, so the largest differences come from the smallest gradients
/// and from near ties in pooling windows.
pub const WEIGHTS: f64 = 5e-5;

/// The limit for the absolute error of a parameter after the hundred steps from PyTorch's initial parameters. PyTorch in f32
/// differs from f64 by 1.1e-4. The second channel of conv1 is unstable in these steps: from step 50 on, a difference in its bias
/// doubles every eight steps, from 3e-6 to 1.5e-4, in every implementation. Different orders of sums give differences from 4.5e-5
/// to 1.8e-4.
pub const WEIGHTS_AFTER_100: f64 = 3e-4;

/// The limit for the difference of a logit between backends, and between a backend and PyTorch in f64, for trained parameters and
/// logits below 10. The derived bound [`logits`] is a hundred times larger, because it assumes that all roundings go in the same
/// direction.
pub const LOGITS: f64 = 2e-5;

/// Asserts that a count of instructions, cycles or bytes is at most 3 % above the stated one. A smaller count always passes.
pub fn assert_count(what: &str, found: u64, stated: u64) {
    println!("{what}: {found}, stated {stated}");
    assert!(
        found * 100 <= stated * 103,
        "{what}: {found}, more than 3 % above the stated {stated}"
    );
}

/// Returns the error bound of each logit in f32 for an image `(C, H, W)`, for any order of sums. Each layer multiplies the error
/// of its input by the magnitudes of its weights and adds its own rounding error. An activation multiplies an error by its
/// steepest slope; pooling does not increase the largest error.
pub fn logits(net: &Net, image: ArrayView3<f64>) -> Array1<f64> {
    let outputs = net.forward(image);
    let (mut input, mut error) = (image.to_owned(), Array3::zeros(image.dim()));
    for ((layer, weight, bias), output) in net.layers().zip(outputs) {
        let weight: Vec<f64> = weight.iter().map(|w| w.abs()).collect();
        let bias: Vec<f64> = bias.iter().map(|b| b.abs()).collect();
        let terms = layer.weight_len() / layer.output[0] + 1;
        let none = vec![0.0; bias.len()];
        let own = oracle::layer_sums(layer, input.mapv(f64::abs).view(), &weight, &bias);
        let passed = oracle::layer_sums(layer, error.view(), &weight, &none);
        let sums = passed * (1.0 + gamma(terms)) + own.mapv(|m| sum(terms, m));
        let activated = match layer.activation {
            Activation::Identity | Activation::Relu => sums,
            Activation::Sigmoid => sums / 4.0 + sigmoid(1.0),
            Activation::Tanh => sums + TANH,
        };
        error = match layer.pool {
            Pool::Whole => activated,
            Pool::Max(n) => oracle::pool2d(activated.view(), n, |window| {
                window.fold(0.0, |a: f64, &b| a.max(b))
            }),
            Pool::Average(n) => {
                let largest = output
                    .sums
                    .mapv(|x| oracle::activation(layer.activation, x).abs());
                let largest = oracle::pool2d(largest.view(), n, |window| window.sum());
                let mean = oracle::pool2d(activated.view(), n, |window| {
                    window.sum() / window.len() as f64
                });
                mean + largest.mapv(|m| sum(n * n + 1, m))
            }
        };
        input = output.out;
    }
    Array1::from_iter(error.iter().copied())
}
