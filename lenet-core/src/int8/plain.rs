//! A simple implementation of an int8 network in i64, against which `lenet_core` is tested: one sum per output, with each rounding
//! as documented, and with pooling after the activation. From `lenet_core` it uses only the description of the layers and the
//! parameters. It is compiled for tests only, those of this crate and those that use `lenet-test-support`, which includes it.

use lenet_core::int8::{Finishes, Int8, LayerParams, Rescale, zero};
use lenet_core::layer::{Activation, Pool};
use lenet_core::plan::{Kind, Layer};
use std::vec::Vec;

/// The output of a layer.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// The output of a hidden layer.
    Bytes(Vec<u8>),
    /// The output of the last layer.
    Logits(Vec<f32>),
}

/// Computes the outputs of all layers for the pixels of an image `(C, H, W)`.
///
/// # Panics
/// If a sum does not fit into an i32.
pub fn forward<N: Int8>(params: &N::Params, pixels: &[u8]) -> Vec<Output> {
    let (mut input, mut input_zero) = (pixels.to_vec(), 0);
    let mut outputs = Vec::new();
    for (index, layer) in N::LAYERS.iter().enumerate() {
        let params = N::layer(params, index).expect("a layer");
        let sums = sums(layer, &params, &input, input_zero);
        match params.finish {
            Finishes::Last(scales) => {
                let logits = sums.iter().zip(scales).map(|(sum, scale)| {
                    let [sum] = sum[..] else { panic!("no pool") };
                    sum as i32 as f32 * scale.0
                });
                outputs.push(Output::Logits(logits.collect()));
            }
            Finishes::Hidden(rescales) => {
                let per_map = sums.len() / rescales.len();
                let bytes = sums.iter().enumerate().map(|(at, window)| {
                    let bytes = window
                        .iter()
                        .map(|&sum| byte(layer.activation, rescales[at / per_map], sum));
                    match layer.pool {
                        Pool::Whole | Pool::Max(_) => bytes.max().expect("not empty"),
                        Pool::Average(_) => {
                            let (n, sum) = (window.len() as i64, bytes.map(i64::from).sum::<i64>());
                            ((2 * sum + n) / (2 * n)) as u8
                        }
                    }
                });
                let bytes: Vec<u8> = bytes.collect();
                (input, input_zero) = (bytes.clone(), zero(layer.activation).into());
                outputs.push(Output::Bytes(bytes));
            }
        }
    }
    outputs
}

/// Computes the sums in the window of each output, `(M, PH, PW)`.
fn sums(layer: &Layer, params: &LayerParams<'_>, input: &[u8], input_zero: i64) -> Vec<Vec<i64>> {
    let ([channels, h, w], [maps, ph, pw], k) = (layer.input, layer.output, layer.kernel);
    let n = layer.pool.window();
    let per_map = layer.weight_len() / maps;
    let weight = |at: usize| i64::from(params.weight[at]) - 128;
    let sum = |m: usize, y: usize, x: usize| -> i64 {
        let mut sum = i64::from(params.bias[m]);
        match layer.kind {
            Kind::Linear => {
                for (i, &q) in input.iter().enumerate() {
                    sum += weight(m * per_map + i) * i64::from(q);
                }
            }
            Kind::Conv2d => {
                for (c, i, j) in (0..channels * k * k).map(|t| (t / (k * k), t / k % k, t % k)) {
                    let at = |from: usize, side: usize| {
                        from.checked_sub(layer.padding).filter(|&at| at < side)
                    };
                    let q = match (at(y + i, h), at(x + j, w)) {
                        (Some(y), Some(x)) => i64::from(input[(c * h + y) * w + x]),
                        _ => input_zero,
                    };
                    sum += weight(m * per_map + (c * k + i) * k + j) * q;
                }
            }
        }
        i32::try_from(sum).expect("within i32");
        sum
    };
    let outputs = (0..maps * ph * pw).map(|p| (p / (ph * pw), p / pw % ph, p % pw));
    outputs
        .map(|(m, y, x)| {
            let window = (0..n * n).map(|q| sum(m, n * y + q / n, n * x + q % n));
            window.collect()
        })
        .collect()
}

/// Converts a sum to an output byte as documented in `lenet_core::int8::Rescale`.
///
/// # Panics
/// If a number does not fit into 32 bits.
pub fn byte(activation: Activation, Rescale { factor, limit }: Rescale, sum: i64) -> u8 {
    let (factor, limit) = (i64::from(factor), i64::from(limit));
    let symmetric = sum.clamp(-limit, limit) * factor + (1 << 31);
    let shifted = |product: i64, bits: u32| {
        let rounded = product + (1 << (bits - 1));
        u32::try_from(rounded).expect("within 32 bits") as i64 >> bits
    };
    match activation {
        Activation::Relu => shifted(sum.clamp(0, limit) * factor, 24) as u8,
        Activation::Identity => shifted(symmetric, 24) as u8,
        Activation::Sigmoid => {
            let x = (shifted(symmetric, 22) - 512) as f64 / 64.0;
            (255.0 / (1.0 + (-x).exp())).round() as u8
        }
        Activation::Tanh => {
            let x = (shifted(symmetric, 22) - 512) as f64 / 128.0;
            (128.0 + 127.0 * x.tanh()).round() as u8
        }
    }
}
