//! Post-training quantization: converts the parameters of a network from f32 to int8.
//!
//! [`lenet_core::int8`] defines the arithmetic of an int8 network; this module chooses its scales. Each output channel has its own
//! weight scale, which maps the largest magnitude of its weights to 127. The step of the activations, the difference between two
//! neighbouring bytes, is fixed after a sigmoid or tanh. After ReLU or no activation it follows from the range of the activations,
//! which [`ranges`] measures by running the f32 network on training images.
//!
//! All computations use f64 and operations that round equally on every machine, so the same f32 file always gives the same int8
//! file.

use lenet_core::int8::finish::{FinishesMut, Rescale, Scale};
use lenet_core::int8::{
    EXCESS, Finish, Finishes, Int8, MAX_WEIGHT, Quantizable, headroom, input_zero, table, zero,
};
use lenet_core::layer::Pool;
use lenet_core::plan::Layer;
use lenet_core::{Network, Outputs};
use rayon::prelude::*;

/// The int8 version of the network `N`.
pub type Form<N> = <N as Quantizable>::Int8;

/// Measures the range of the activations of each layer on images: returns the magnitude that a share `share` of the activations
/// does not exceed. A share of 1 gives the largest magnitude. Layers whose activations have a fixed range get 0.
pub fn ranges<N: Quantizable>(params: &N::Params, images: &[N::Pixels], share: f64) -> Vec<f64> {
    let layers = N::LAYERS.iter().enumerate();
    let calibrated = |(index, layer): (usize, &Layer)| {
        let free = table::output_step(layer.activation).is_none() && index + 1 < N::LAYERS.len();
        free.then_some(index)
    };
    let calibrated: Vec<usize> = layers.filter_map(calibrated).collect();
    let mut ranges = vec![0.0; N::LAYERS.len()];
    if calibrated.is_empty() {
        return ranges;
    }
    let magnitudes: Vec<Vec<Vec<f32>>> = images
        .par_iter()
        .map_init(zeroed::<N::Activations>, |act, pixels| {
            run::<N>(params, pixels, act);
            let magnitudes = |&index: &usize| {
                let layer = &N::LAYERS[index];
                let values: Vec<f32> = match layer.pool {
                    // The activations are quantized before their average is taken, so the range is that of the values before
                    // pooling, which the f32 network does not keep.
                    Pool::Average(_) => {
                        let input: Vec<f32> = match index.checked_sub(1) {
                            None => bytemuck::cast_slice::<_, u8>(std::slice::from_ref(pixels))
                                .iter()
                                .map(|&pixel| f32::from(pixel) / 255.0)
                                .collect(),
                            Some(before) => outputs::<N>(act, before).iter().collect(),
                        };
                        unpooled(
                            layer,
                            &input,
                            tensor::<N>(params, 2 * index),
                            tensor::<N>(params, 2 * index + 1),
                        )
                    }
                    Pool::Whole | Pool::Max(_) => outputs::<N>(act, index).iter().collect(),
                };
                values.into_iter().map(f32::abs).collect()
            };
            calibrated.iter().map(magnitudes).collect()
        })
        .collect();
    for (at, &layer) in calibrated.iter().enumerate() {
        let images = magnitudes.iter();
        let mut all: Vec<f32> = images.flat_map(|image| image[at].iter().copied()).collect();
        let last = all.len().saturating_sub(1);
        let index = ((last as f64 * share).ceil() as usize).min(last);
        if !all.is_empty() {
            ranges[layer] = f64::from(*all.select_nth_unstable_by(index, f32::total_cmp).1);
        }
    }
    ranges
}

/// Computes the activations of a convolution before pooling.
fn unpooled(layer: &Layer, input: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f32> {
    let ([channels, h, w], [maps, oh, ow], k) = (layer.input, layer.convolved(), layer.kernel);
    let mut out = Vec::with_capacity(maps * oh * ow);
    for (weight, &bias) in weight.chunks_exact(weight.len() / maps).zip(bias) {
        for (y, x) in (0..oh * ow).map(|at| (at / ow, at % ow)) {
            let mut sum = bias;
            for (c, i, j) in (0..channels * k * k).map(|tap| (tap / (k * k), tap / k % k, tap % k))
            {
                let at =
                    |from: usize, side| from.checked_sub(layer.padding).filter(|&at| at < side);
                if let (Some(y), Some(x)) = (at(y + i, h), at(x + j, w)) {
                    sum += input[(c * h + y) * w + x] * weight[(c * k + i) * k + j];
                }
            }
            out.push(layer.activation.of(sum));
        }
    }
    out
}

/// Returns the parameter tensor number `index`: a weight if it is even, a bias if it is odd.
fn tensor<N: Network>(params: &N::Params, index: usize) -> &[f32] {
    let params: &[f32] = bytemuck::cast_slice(std::slice::from_ref(params));
    &params[N::TENSORS[index].offset..][..N::TENSORS[index].len()]
}

/// Converts the parameters to int8. `ranges` contains the range of each layer's activations, as returned by [`ranges`].
///
/// # Errors
/// A sentence that names the layer and the output whose weights or bias cannot be represented in int8.
///
/// # Panics
/// If `ranges` does not have one range per layer.
pub fn quantize<N: Quantizable>(
    params: &N::Params,
    ranges: &[f64],
) -> Result<Box<<Form<N> as Network>::Params>, String> {
    assert_eq!(ranges.len(), N::LAYERS.len(), "a range per layer");
    let mut out = bytemuck::zeroed_box();
    let mut input_step = 1.0 / 255.0;
    for (index, layer) in N::LAYERS.iter().enumerate() {
        let [weight, bias] = [2 * index, 2 * index + 1].map(|index| tensor::<N>(params, index));
        let step = f64::from(output_step(layer, ranges[index]));
        let to = Form::<N>::layer_mut(&mut out, index).expect("as many layers");
        to.step.fill(step as f32);
        let mut finish = to.finish;
        let rows = weight.chunks_exact(weight.len() / bias.len());
        let rows_out = to.weight.chunks_exact_mut(weight.len() / bias.len());
        for (o, ((row, row_out), &b)) in rows.zip(rows_out).zip(bias).enumerate() {
            let channel = Channel::new(layer, row, b, input_step, input_zero(N::LAYERS, index));
            let fitted = match &mut finish {
                FinishesMut::Hidden(all) => channel.fit(row_out, |unit, bias| {
                    all[o] = Rescale::new(layer.activation, unit, step)?;
                    all[o].reach(layer.activation, bias)
                }),
                FinishesMut::Last(all) => channel.fit(row_out, |unit, bias| {
                    all[o] = Scale(unit as f32);
                    all[o].reach(layer.activation, bias)
                }),
            };
            to.bias[o] = fitted.ok_or_else(|| {
                format!(
                    "{}: the weights or the bias of output {o} are too large or too small for int8",
                    layer.name
                )
            })?;
        }
        input_step = step;
    }
    Ok(out)
}

/// Returns the step of a layer's output: the difference between the values that two neighbouring bytes stand for.
fn output_step(layer: &Layer, range: f64) -> f32 {
    let of_range = |largest: f64| {
        // If every activation was 0, any step would do.
        if range > 0.0 {
            range / largest
        } else {
            1.0 / largest
        }
    };
    let step = table::output_step(layer.activation).unwrap_or_else(|| {
        of_range(match zero(layer.activation) {
            0 => 255.0,
            _ => 127.0,
        })
    });
    step as f32
}

/// An output channel to be quantized.
struct Channel<'a> {
    layer: &'a Layer,
    weight: &'a [f32],
    bias: f64,
    input_step: f64,
    input_zero: u8,
}

impl<'a> Channel<'a> {
    fn new(
        layer: &'a Layer,
        weight: &'a [f32],
        bias: f32,
        input_step: f64,
        input_zero: u8,
    ) -> Self {
        Self {
            layer,
            weight,
            bias: bias.into(),
            input_step,
            input_zero,
        }
    }

    /// Quantizes the weights into `out` and returns the quantized bias, or `None` if no scale works.
    ///
    /// It starts with the scale that maps the largest weight to 127, and doubles the scale until the sums fit into an i32. This is
    /// necessary if the weights are tiny compared with the bias, or all 0.
    ///
    /// `reach` is given the real value of one unit of the sum, and the bias. It stores the parameters that convert the sum to the
    /// output. It returns the range that the sum needs in addition to its products, to be compared with [`headroom`], or `None` if
    /// the conversion is impossible.
    fn fit(&self, out: &mut [u8], mut reach: impl FnMut(f64, i32) -> Option<i64>) -> Option<i32> {
        let magnitudes = self.weight.iter().map(|w| w.abs());
        let largest = f64::from(magnitudes.fold(0.0, f32::max));
        let mut scale = largest / f64::from(MAX_WEIGHT);
        if scale == 0.0 {
            scale = f64::from(f32::MIN_POSITIVE);
        }
        // Fewer than 300 doublings lead from the smallest f32 to the largest.
        for _ in 0..300 {
            let unit = scale * self.input_step;
            let mut sum = 0;
            for (out, &w) in out.iter_mut().zip(self.weight) {
                let w = (f64::from(w) / scale).round() as i32;
                sum += i64::from(w);
                *out = (w + EXCESS) as u8;
            }
            let bias = (self.bias / unit).round() - f64::from(self.input_zero) * sum as f64;
            let bias = (bias.abs() < f64::from(i32::MAX)).then_some(bias as i32);
            if let Some(bias) = bias
                && reach(unit, bias).is_some_and(|reach| reach <= headroom(self.layer))
            {
                return Some(bias);
            }
            scale *= 2.0;
        }
        None
    }
}

/// Returns the real values that the output bytes of a layer stand for.
pub fn real_outputs<N: Quantizable>(
    params: &<Form<N> as Network>::Params,
    act: &<Form<N> as Network>::Activations,
    layer: usize,
) -> impl Iterator<Item = f32> {
    let outputs = outputs::<Form<N>>(act, layer);
    let step = Form::<N>::layer(params, layer).map_or(1.0, |layer| layer.step);
    let zero = match layer + 1 == N::LAYERS.len() {
        true => 0.0,
        false => f32::from(zero(N::LAYERS[layer].activation)),
    };
    outputs.iter().map(move |value| (value - zero) * step)
}

/// The parameters of an int8 layer, together with the scales that define the real values of its integers. A weight stands for
/// `weight[o][i] · unit[o] / input_step`, a bias for `bias[o] · unit[o]`, and an input or output byte `q` for `(q - zero) · step`.
#[derive(Clone, Debug, PartialEq)]
pub struct Scaled {
    /// The step of the input bytes.
    pub input_step: f32,
    /// The input byte that stands for 0.
    pub input_zero: u8,
    /// The weights, from -128 to 127.
    pub weight: Vec<i8>,
    /// The bias, without the correction for the input's zero that the weights file includes.
    pub bias: Vec<i32>,
    /// For each output channel, the real value of one unit of its sums.
    pub unit: Vec<f64>,
    /// The step of the output bytes; 1 in the last layer.
    pub step: f32,
    /// The output byte that stands for 0; 0 in the last layer.
    pub zero: u8,
}

/// Returns the layers of an int8 network together with their scales.
///
/// # Panics
/// If the parameters are [`unusable`](lenet_core::int8::unusable).
pub fn scaled<N: Int8>(params: &N::Params) -> Vec<Scaled> {
    let mut input_step = 1.0 / 255.0;
    let layer = |(index, layer): (usize, &Layer)| {
        let params = N::layer(params, index).expect("as many layers");
        let input_zero = input_zero(N::LAYERS, index);
        let weight: Vec<i8> = params
            .weight
            .iter()
            .map(|&w| (i32::from(w) - EXCESS) as i8)
            .collect();
        let rows = weight.chunks_exact(weight.len() / params.bias.len());
        let bias = rows.zip(params.bias).map(|(row, &bias)| {
            let sum: i64 = row.iter().map(|&w| i64::from(w)).sum();
            let bias = i64::from(bias) + i64::from(input_zero) * sum;
            i32::try_from(bias).expect("the headroom is for more")
        });
        let (unit, zero) = match params.finish {
            Finishes::Hidden(all) => {
                let unit = |rescale: &Rescale| rescale.unit(layer.activation, params.step.into());
                (all.iter().map(unit).collect(), zero(layer.activation))
            }
            Finishes::Last(all) => (all.iter().map(|scale| f64::from(scale.0)).collect(), 0),
        };
        Scaled {
            bias: bias.collect(),
            weight,
            unit,
            input_zero,
            input_step: std::mem::replace(&mut input_step, params.step),
            step: params.step,
            zero,
        }
    };
    N::LAYERS.iter().enumerate().map(layer).collect()
}

/// The difference between the results of an int8 network and those of the f32 network.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// For each layer, the signal-to-noise ratio of its outputs in decibels: the power of the f32 outputs divided by the power of
    /// the errors.
    pub signal_to_noise: Vec<f64>,
    /// The number of images to which both networks assign the same class.
    pub same_class: usize,
    /// The largest change of a logit.
    pub largest_change: f32,
}

/// Compares the results of an f32 network and its int8 version on images.
pub fn compare<N: Quantizable>(
    f32: &N::Params,
    int8: &<Form<N> as Network>::Params,
    images: &[N::Pixels],
) -> Difference {
    let count = N::LAYERS.len();
    // The results are collected first and added up in the order of the images below, so that they do not depend on the threads.
    let of_images: Vec<(Vec<[f64; 2]>, bool, f32)> = images
        .par_iter()
        .map_init(
            || {
                (
                    zeroed::<N::Activations>(),
                    zeroed::<<Form<N> as Network>::Activations>(),
                )
            },
            |(exact, quantized), pixels| {
                run::<N>(f32, pixels, exact);
                run::<Form<N>>(int8, pixels, quantized);
                let powers = (0..count).map(|layer| {
                    let pairs = outputs::<N>(exact, layer).iter();
                    let pairs = pairs.zip(real_outputs::<N>(int8, quantized, layer));
                    pairs.fold([0.0, 0.0], |[signal, noise], (a, b)| {
                        let (a, b) = (f64::from(a), f64::from(b));
                        [signal + a * a, noise + (a - b) * (a - b)]
                    })
                });
                let powers = powers.collect();
                let a: Vec<f32> = outputs::<N>(exact, count - 1).iter().collect();
                let b: Vec<f32> = outputs::<Form<N>>(quantized, count - 1).iter().collect();
                let changes = a.iter().zip(&b).map(|(a, b)| (a - b).abs());
                let largest = changes.fold(0.0, f32::max);
                (powers, best(&a) == best(&b), largest)
            },
        )
        .collect();
    let mut powers = vec![[0.0, 0.0]; count];
    let (mut same_class, mut largest_change) = (0, 0.0f32);
    for (of_image, same, largest) in &of_images {
        for (sum, power) in powers.iter_mut().zip(of_image) {
            *sum = [sum[0] + power[0], sum[1] + power[1]];
        }
        same_class += usize::from(*same);
        largest_change = largest_change.max(*largest);
    }
    Difference {
        signal_to_noise: powers
            .iter()
            .map(|[signal, noise]| 10.0 * (signal / noise).log10())
            .collect(),
        same_class,
        largest_change,
    }
}

/// Returns the index of the largest logit, or the first index if several are equal.
fn best(logits: &[f32]) -> usize {
    let mut best = 0;
    for (class, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = class;
        }
    }
    best
}

/// Runs a network on an image given as bytes.
pub fn run<N: Network>(params: &N::Params, pixels: &N::Pixels, act: &mut N::Activations) {
    let mut image = bytemuck::zeroed();
    N::write_image(pixels, &mut image);
    N::forward(params, &image, act);
}

fn outputs<N: Network>(act: &N::Activations, layer: usize) -> Outputs<'_> {
    N::outputs(act, layer).expect("a layer of the network")
}

fn zeroed<T: bytemuck::Zeroable>() -> Box<T> {
    bytemuck::zeroed_box()
}

/// The functions of this module for the network of the build, compiled here.
pub mod selected {
    use super::{Difference, real_outputs};
    use crate::forward::forward_int8;
    use lenet_core::network::{LAYERS, Net, Params, Pixels, int8};

    /// Calls [`ranges`](super::ranges).
    pub fn ranges(params: &Params, images: &[Pixels], share: f64) -> Vec<f64> {
        super::ranges::<Net>(params, images, share)
    }

    /// Calls [`quantize`](super::quantize()).
    ///
    /// # Errors
    /// Those of [`quantize`](super::quantize()).
    pub fn quantize(params: &Params, ranges: &[f64]) -> Result<Box<int8::Params>, String> {
        super::quantize::<Net>(params, ranges)
    }

    /// Runs the int8 network on an image and returns the real values of the outputs of all layers: [`real_outputs`].
    pub fn real_layers(params: &int8::Params, pixels: &Pixels) -> Vec<Vec<f32>> {
        let mut act = int8::Activations::new();
        forward_int8(params, pixels, &mut act);
        (0..LAYERS.len())
            .map(|layer| real_outputs::<Net>(params, &act, layer).collect())
            .collect()
    }

    /// Calls [`compare`](super::compare).
    pub fn compare(f32: &Params, int8: &int8::Params, images: &[Pixels]) -> Difference {
        super::compare::<Net>(f32, int8, images)
    }
}
