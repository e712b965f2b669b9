//! The oracle: a simple implementation of a network in f64, with one expression per operation over `ndarray`'s views, with which
//! all others are compared. It shares neither loops nor the order of operations with `lenet_core`; for example, pooling comes
//! after the activation, as in the paper and in PyTorch. From `lenet_core` it uses only the description of the layers.

use lenet_core::layer::{Activation, Pool};
use lenet_core::plan::{Kind, Layer};
use ndarray::{Array1, Array3, ArrayView1, ArrayView2, ArrayView3, ArrayView4, s};

/// Computes `out[o][y][x] = bias[o] + Σ input[c][y+i-P][x+j-P] · weight[o][c][i][j]`, with an input that is padded with `P` zeros.
pub fn conv2d(
    input: ArrayView3<f64>,
    padding: usize,
    weight: ArrayView4<f64>,
    bias: ArrayView1<f64>,
) -> Array3<f64> {
    let (c_out, _, kh, kw) = weight.dim();
    let (c_in, h, w) = input.dim();
    let mut bordered = Array3::zeros((c_in, h + 2 * padding, w + 2 * padding));
    bordered
        .slice_mut(s![.., padding..padding + h, padding..padding + w])
        .assign(&input);
    let (oh, ow) = (h + 2 * padding - kh + 1, w + 2 * padding - kw + 1);
    let mut out = Array3::from_shape_fn((c_out, oh, ow), |(o, _, _)| bias[o]);
    for ((o, c, i, j), &weight) in weight.indexed_iter() {
        let shifted = bordered.slice(s![c, i..i + oh, j..j + ow]);
        out.slice_mut(s![o, .., ..]).scaled_add(weight, &shifted);
    }
    out
}

/// Applies `pool` to each window of `n` by `n` values.
pub fn pool2d(
    input: ArrayView3<f64>,
    n: usize,
    pool: impl Fn(ArrayView2<f64>) -> f64,
) -> Array3<f64> {
    let (c, h, w) = input.dim();
    Array3::from_shape_fn((c, h / n, w / n), |(c, y, x)| {
        pool(input.slice(s![c, n * y..n * (y + 1), n * x..n * (x + 1)]))
    })
}

/// Returns the smallest distance between the two largest distinct values of any window of `n` by `n` values. As long as the
/// values change by less than half of this, each maximum stays at the same position. Equal values are ignored, because in real
/// images they come from equal patches and stay equal.
pub fn smallest_gap(input: ArrayView3<f64>, n: usize) -> f64 {
    let mut least = f64::INFINITY;
    for map in input.outer_iter() {
        for window in map.exact_chunks((n, n)) {
            let largest = window.fold(f64::NEG_INFINITY, |a, &b| a.max(b));
            let others = window.iter().filter(|&&value| value < largest);
            least = others.fold(least, |least, value| least.min(largest - value));
        }
    }
    least
}

/// Applies an activation.
pub fn activation(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Identity => x,
        Activation::Sigmoid => sigmoid(x),
        Activation::Tanh => x.tanh(),
        Activation::Relu => x.max(0.0),
    }
}

/// Computes `weight · input + bias`.
pub fn linear(
    input: ArrayView1<f64>,
    weight: ArrayView2<f64>,
    bias: ArrayView1<f64>,
) -> Array1<f64> {
    weight.dot(&input) + bias
}

/// Computes `1 / (1 + exp(-x))`.
pub fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Computes `exp(logits[i]) / Σ exp(logits[k])`, shifted so that nothing overflows.
pub fn softmax(logits: ArrayView1<f64>) -> Array1<f64> {
    let largest = logits.fold(f64::NEG_INFINITY, |a, &b| a.max(b));
    let exps = logits.mapv(|logit| (logit - largest).exp());
    let sum = exps.sum();
    exps / sum
}

/// Computes `log Σ exp(logits) - logits[label]`.
pub fn cross_entropy(logits: ArrayView1<f64>, label: u8) -> f64 {
    let largest = logits.fold(f64::NEG_INFINITY, |a, &b| a.max(b));
    let sum = logits.mapv(|logit| (logit - largest).exp()).sum();
    largest + sum.ln() - logits[usize::from(label)]
}

/// A network: its layers, and its parameters as one slice in PyTorch's order.
#[derive(Clone, Copy, Debug)]
pub struct Net<'a> {
    layers: &'a [Layer],
    params: &'a [f64],
}

/// The results of a layer.
#[derive(Clone, Debug)]
pub struct Output {
    /// The sums before activation and pooling, `(C, H, W)`; those of a linear layer are `(N, 1, 1)`.
    pub sums: Array3<f64>,
    /// The output after activation and pooling.
    pub out: Array3<f64>,
}

impl<'a> Net<'a> {
    /// Creates a network from layers and parameters.
    ///
    /// # Panics
    /// If the number of parameters does not match the layers.
    pub fn new(layers: &'a [Layer], params: &'a [f64]) -> Self {
        let count: usize = layers.iter().map(Layer::params).sum();
        assert_eq!(count, params.len(), "parameters");
        Self { layers, params }
    }

    /// Returns the layers, each with its weight and its bias.
    pub fn layers(&self) -> impl Iterator<Item = (&'a Layer, &'a [f64], &'a [f64])> + use<'a> {
        let mut rest = self.params;
        self.layers.iter().map(move |layer| {
            let (weight, after) = rest.split_at(layer.weight_len());
            let (bias, after) = after.split_at(layer.output[0]);
            rest = after;
            (layer, weight, bias)
        })
    }

    /// Computes the outputs of all layers for an image `(C, H, W)`.
    pub fn forward(&self, image: ArrayView3<f64>) -> Vec<Output> {
        let mut outputs: Vec<Output> = Vec::new();
        for (layer, weight, bias) in self.layers() {
            let input = outputs.last().map_or(image, |output| output.out.view());
            let sums = layer_sums(layer, input, weight, bias);
            let activated = sums.mapv(|x| activation(layer.activation, x));
            let out = match layer.pool {
                Pool::Whole => activated,
                Pool::Max(n) => pool2d(activated.view(), n, |window| {
                    window.fold(f64::NEG_INFINITY, |a, &b| a.max(b))
                }),
                Pool::Average(n) => pool2d(activated.view(), n, |window| {
                    window.sum() / window.len() as f64
                }),
            };
            outputs.push(Output { sums, out });
        }
        outputs
    }

    /// Computes the logits of an image `(C, H, W)`.
    pub fn logits(&self, image: ArrayView3<f64>) -> Array1<f64> {
        let outputs = self.forward(image);
        let last = outputs.last().expect("a network has layers");
        Array1::from_iter(last.out.iter().copied())
    }

    /// Computes the loss of an image `(C, H, W)`.
    pub fn loss(&self, image: ArrayView3<f64>, label: u8) -> f64 {
        cross_entropy(self.logits(image).view(), label)
    }
}

/// Computes the sums of a layer, before activation and pooling.
pub fn layer_sums(
    layer: &Layer,
    input: ArrayView3<f64>,
    weight: &[f64],
    bias: &[f64],
) -> Array3<f64> {
    let outputs = layer.output[0];
    match layer.kind {
        Kind::Conv2d => {
            let dims = (outputs, layer.input[0], layer.kernel, layer.kernel);
            let weight = ArrayView4::from_shape(dims, weight).expect("one weight per tap");
            conv2d(input, layer.padding, weight, ArrayView1::from(bias))
        }
        Kind::Linear => {
            let input = Array1::from_iter(input.iter().copied());
            let weight = ArrayView2::from_shape((outputs, input.len()), weight)
                .expect("one weight per input and output");
            let out = linear(input.view(), weight, ArrayView1::from(bias));
            out.into_shape_with_order((outputs, 1, 1)).expect("as many")
        }
    }
}

/// Converts a nested array of f32 to a flat vector of f64.
pub fn widen<A: bytemuck::Pod>(array: &A) -> Vec<f64> {
    let values: &[f32] = bytemuck::cast_slice(std::slice::from_ref(array));
    values.iter().copied().map(f64::from).collect()
}
