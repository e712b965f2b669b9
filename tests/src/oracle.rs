//! The network in f64, as naive as can be: dimensions written out, one expression an operation, over `ndarray`'s
//! views. It shares no loop, no constant and no order of operations with `lenet_core` (its pools come after the
//! sigmoid, as in the paper and in PyTorch).

use ndarray::{Array1, Array3, ArrayView1, ArrayView2, ArrayView3, ArrayView4, s};

/// `out[o][y][x] = bias[o] + Σ input[c][y+i][x+j] · weight[o][c][i][j]`.
pub fn conv2d(
    input: ArrayView3<f64>,
    weight: ArrayView4<f64>,
    bias: ArrayView1<f64>,
) -> Array3<f64> {
    let (c_out, _, kh, kw) = weight.dim();
    let (_, h, w) = input.dim();
    let (oh, ow) = (h - kh + 1, w - kw + 1);
    let mut out = Array3::from_shape_fn((c_out, oh, ow), |(o, _, _)| bias[o]);
    for ((o, c, i, j), &weight) in weight.indexed_iter() {
        let shifted = input.slice(s![c, i..i + oh, j..j + ow]);
        out.slice_mut(s![o, .., ..]).scaled_add(weight, &shifted);
    }
    out
}

/// The largest of each 2×2 window.
pub fn max_pool2d(input: ArrayView3<f64>) -> Array3<f64> {
    let (c, h, w) = input.dim();
    Array3::from_shape_fn((c, h / 2, w / 2), |(c, y, x)| {
        let window = input.slice(s![c, 2 * y..2 * y + 2, 2 * x..2 * x + 2]);
        window.fold(f64::NEG_INFINITY, |a, &b| a.max(b))
    })
}

/// The least distance between the two largest distinct values of any 2×2 window: how far every pool is from passing
/// on another element. Equal values do not count: on real images they come from equal patches and stay equal.
pub fn smallest_gap(input: ArrayView3<f64>) -> f64 {
    let mut least = f64::INFINITY;
    for map in input.outer_iter() {
        for window in map.exact_chunks((2, 2)) {
            let largest = window.fold(f64::NEG_INFINITY, |a, &b| a.max(b));
            let others = window.iter().filter(|&&value| value < largest);
            least = others.fold(least, |least, value| least.min(largest - value));
        }
    }
    least
}

/// `out = weight · input + bias`.
pub fn linear(
    input: ArrayView1<f64>,
    weight: ArrayView2<f64>,
    bias: ArrayView1<f64>,
) -> Array1<f64> {
    weight.dot(&input) + bias
}

/// `1 / (1 + exp(-x))`.
pub fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// `exp(logits[i]) / Σ exp(logits[k])`, shifted so that nothing overflows.
pub fn softmax(logits: ArrayView1<f64>) -> Array1<f64> {
    let largest = logits.fold(f64::NEG_INFINITY, |a, &b| a.max(b));
    let exps = logits.mapv(|logit| (logit - largest).exp());
    let sum = exps.sum();
    exps / sum
}

/// `log Σ exp(logits) - logits[label]`.
pub fn cross_entropy(logits: ArrayView1<f64>, label: u8) -> f64 {
    let largest = logits.fold(f64::NEG_INFINITY, |a, &b| a.max(b));
    let sum = logits.mapv(|logit| (logit - largest).exp()).sum();
    largest + sum.ln() - logits[usize::from(label)]
}

/// The ten tensors, views of one flat run of 44,426 numbers in PyTorch's order.
#[derive(Clone, Debug)]
pub struct Net<'a> {
    /// `(6, 1, 5, 5)` and `(6)`
    pub conv1: (ArrayView4<'a, f64>, ArrayView1<'a, f64>),
    /// `(16, 6, 5, 5)` and `(16)`
    pub conv2: (ArrayView4<'a, f64>, ArrayView1<'a, f64>),
    /// `(120, 256)` and `(120)`, `(84, 120)` and `(84)`, `(10, 84)` and `(10)`
    pub fc: [(ArrayView2<'a, f64>, ArrayView1<'a, f64>); 3],
}

/// What the layers compute.
#[derive(Clone, Debug)]
pub struct Activations {
    /// Before sigmoid and pool, `(6, 24, 24)`.
    pub conv1: Array3<f64>,
    /// `(6, 12, 12)`
    pub pool1: Array3<f64>,
    /// Before sigmoid and pool, `(16, 8, 8)`.
    pub conv2: Array3<f64>,
    /// `(16, 4, 4)`
    pub pool2: Array3<f64>,
    /// `(120)`
    pub fc1: Array1<f64>,
    /// `(84)`
    pub fc2: Array1<f64>,
    /// `(10)`
    pub logits: Array1<f64>,
}

impl<'a> Net<'a> {
    /// Views of the run.
    pub fn new(flat: &'a [f64]) -> Self {
        let mut rest = flat;
        let mut next = |len: usize| rest.split_off(..len).expect("44,426 numbers");
        let mut conv = |c_out, c_in| {
            let weight = next(c_out * c_in * 25);
            let weight = ArrayView4::from_shape((c_out, c_in, 5, 5), weight).expect("just counted");
            (weight, ArrayView1::from(next(c_out)))
        };
        let (conv1, conv2) = (conv(6, 1), conv(16, 6));
        let mut linear = |output, input| {
            let weight = next(output * input);
            let weight = ArrayView2::from_shape((output, input), weight).expect("just counted");
            (weight, ArrayView1::from(next(output)))
        };
        let fc = [linear(120, 256), linear(84, 120), linear(10, 84)];
        assert!(rest.is_empty(), "44,426 numbers");
        Self { conv1, conv2, fc }
    }

    /// All activations for an image `(1, 28, 28)`.
    pub fn forward(&self, image: ArrayView3<f64>) -> Activations {
        let conv1 = conv2d(image, self.conv1.0, self.conv1.1);
        let pool1 = max_pool2d(conv1.mapv(sigmoid).view());
        let conv2 = conv2d(pool1.view(), self.conv2.0, self.conv2.1);
        let pool2 = max_pool2d(conv2.mapv(sigmoid).view());
        let [(weight1, bias1), (weight2, bias2), (weight3, bias3)] = self.fc;
        let fc1 = linear(flat(&pool2), weight1, bias1).mapv(sigmoid);
        let fc2 = linear(fc1.view(), weight2, bias2).mapv(sigmoid);
        let logits = linear(fc2.view(), weight3, bias3);
        Activations {
            conv1,
            pool1,
            conv2,
            pool2,
            fc1,
            fc2,
            logits,
        }
    }

    /// The loss of an image `(1, 28, 28)`.
    pub fn loss(&self, image: ArrayView3<f64>, label: u8) -> f64 {
        cross_entropy(self.forward(image).logits.view(), label)
    }
}

/// An array of maps in row order.
pub fn flat(maps: &Array3<f64>) -> ArrayView1<'_, f64> {
    maps.view()
        .into_shape_with_order(maps.len())
        .expect("in standard layout")
}

/// Any nested array of f32 as a run of f64.
pub fn widen<A: bytemuck::Pod>(array: &A) -> Vec<f64> {
    let values: &[f32] = bytemuck::cast_slice(std::slice::from_ref(array));
    values.iter().copied().map(f64::from).collect()
}
