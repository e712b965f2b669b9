//! The one table of tolerances, each with its reason. What is not here must be equal bit for bit.
//!
//! Two kinds: bounds derived from the rounding of each operation, which hold for any order of sums and with or
//! without fused multiply-add (Higham: Accuracy and stability of numerical algorithms, 2002, chapter 3), and limits
//! on what whole training steps may drift apart, which are about ten times what was measured.

use crate::oracle::{self, Net, flat};
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

/// Error of the sigmoid's gradient `grad · out · (1 - out)`, relative to `grad`: three roundings of at most 1/4, and
/// `out`'s own rounding.
pub const SIGMOID_GRAD: f64 = 2.0 * U;

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

/// The largest error of each logit in f32, any order of sums, for an image `(1, 28, 28)`: each layer passes on its
/// input's error through its weights' magnitudes and adds its own rounding. A sigmoid shrinks errors to a quarter, a
/// pool never widens the largest.
pub fn logits(net: &Net, image: ArrayView3<f64>) -> Array1<f64> {
    let act = net.forward(image);
    let conv = |input: &Array3<f64>, error: &Array3<f64>, (weight, bias): (_, _)| {
        let (weight, bias) = magnitudes(weight, bias);
        let terms = weight.len() / bias.len() + 1;
        let none = Array1::zeros(bias.len());
        let own = oracle::conv2d(input.mapv(f64::abs).view(), weight.view(), bias.view());
        let passed = oracle::conv2d(error.view(), weight.view(), none.view());
        let error = (passed * (1.0 + gamma(terms)) + own.mapv(|m| sum(terms, m))) / 4.0;
        oracle::max_pool2d(error.view()) + sigmoid(1.0)
    };
    let linear = |input: &Array1<f64>, error: &Array1<f64>, (weight, bias): (_, _)| {
        let (weight, bias) = magnitudes(weight, bias);
        let terms = weight.ncols() + 1;
        let own = weight.dot(&input.mapv(f64::abs)) + bias;
        weight.dot(error) * (1.0 + gamma(terms)) + own.mapv(|m| sum(terms, m))
    };
    let image = image.to_owned();
    let pool1 = conv(&image, &(&image * 0.0), net.conv1);
    let pool2 = conv(&act.pool1, &pool1, net.conv2);
    let (input, error) = (flat(&act.pool2).to_owned(), flat(&pool2).to_owned());
    let fc1 = linear(&input, &error, net.fc[0]) / 4.0 + sigmoid(1.0);
    let fc2 = linear(&act.fc1, &fc1, net.fc[1]) / 4.0 + sigmoid(1.0);
    linear(&act.fc2, &fc2, net.fc[2])
}

fn magnitudes<D: ndarray::Dimension>(
    weight: ndarray::ArrayView<f64, D>,
    bias: ndarray::ArrayView1<f64>,
) -> (ndarray::Array<f64, D>, Array1<f64>) {
    (weight.mapv(f64::abs), bias.mapv(f64::abs))
}
