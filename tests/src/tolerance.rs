//! The tolerances of the tests of this package, each with its reason. Whatever has no tolerance must be equal bit for bit. Unit tests
//! of single kernels in other packages have tolerances of their own, next to the code.
//!
//! There are two kinds. Bounds are derived from the rounding of each operation, and hold for any order of sums, with or without
//! fused multiply-add (Higham: Accuracy and stability of numerical algorithms, 2002, chapter 3). Limits say how far whole training
//! steps may drift apart, and leave room above what was measured (docs/src/numerics.md).

use crate::oracle::{self, Net};
use lenet_core::layer::{Activation, Pool};
use ndarray::{Array1, Array3, ArrayView3};

/// Half the distance from 1 to the next float: what rounding an f32 result changes it by, relatively, at most.
pub const U: f64 = 1.0 / (1u64 << 24) as f64;

/// What rounding a product or quotient changes it by, absolutely, where the result is subnormal.
pub const UNDERFLOW: f64 = 1e-45;

/// Error of a sum of `terms` products, relative to the sum of their magnitudes: each passes `terms` roundings at most.
pub fn gamma(terms: usize) -> f64 {
    let n = terms as f64;
    n * U / (1.0 - n * U)
}

/// Error of a sum of `terms` terms whose magnitudes add up to `magnitude`.
pub fn sum(terms: usize, magnitude: f64) -> f64 {
    gamma(terms) * magnitude + terms as f64 * UNDERFLOW
}

/// Error of a sigmoid near `value`: exp is good to one unit in the last place (2U); sum and quotient add U each. Below
/// 2^-126 a backend may return 0.
pub fn sigmoid(value: f64) -> f64 {
    4.0 * U * value + f64::from(f32::MIN_POSITIVE)
}

/// Error of a tanh: 2.5 units in the last place of a value below 1.
pub const TANH: f64 = 5.0 * U;

/// Error of a probability, relatively, for `classes` logits, its own `range` below the largest: the shift by the largest
/// is rounded (range · U in its exponent, at most 0.4 · U for each term of the sum), exp twice 2U, the sum `classes`
/// times U, the quotient U.
pub fn softmax(classes: usize, range: f64) -> f64 {
    (range + 5.0 + 1.4 * classes as f64) * U
}

/// Central differences of the oracle in f64 against exact derivatives, relative to the tensor's largest: the step of
/// 1e-5 squared, and 1e-16 over the step.
pub const DIFFERENCES: f64 = 1e-8;

/// A gradient of one batch, relative to the tensor's largest element. PyTorch in f32 against f64 stays within 5e-6
/// where no window is near a tie.
pub const GRADIENT: f64 = 5e-6;

/// The loss of a step, over a hundred steps: as PyTorch in f32 against f64.
pub const LOSS: f64 = 1e-5;

/// A parameter, over ten steps, absolutely: PyTorch in f32 against f64 is 3.2e-5 away. Adam moves each by up to 1e-3 a step,
/// whatever the size of its gradient, so the smallest gradients decide, and near ties in a pool.
pub const WEIGHTS: f64 = 5e-5;

/// A parameter after the hundred steps from PyTorch's start, absolutely: PyTorch in f32 against f64 is 1.1e-4 away. There
/// conv1's second channel is on an edge: from step 50 on a difference in its bias doubles every eight steps, from 3e-6 to
/// 1.5e-4, whoever rounds it. Sums in other orders end between 4.5e-5 and 1.8e-4.
pub const WEIGHTS_AFTER_100: f64 = 3e-4;

/// A logit, backends against each other and against PyTorch in f64, for trained parameters and logits below 10. The derived
/// [`logits`] is a hundred times wider, because roundings do not all point one way.
pub const LOGITS: f64 = 2e-5;

/// The largest error of each logit in f32, any order of sums, for an image `(C, H, W)`: each layer passes on its input's error
/// through its weights' magnitudes and adds its own rounding. An activation multiplies an error by its steepest slope, a
/// pool never widens the largest.
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
