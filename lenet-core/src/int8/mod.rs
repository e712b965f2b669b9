//! The network in 8-bit integers: for microcontrollers without a floating-point unit, in a quarter of the flash.
//!
//! [`network!`](crate::network!) derives this form from the same description as the f32 network: the module `int8` inside the
//! network's module. Its type `Net` is a [`Network`] like the other, so that the weights file, the self-test
//! and the link work with both.
//!
//! # Arithmetic
//! An activation is a byte `q` that stands for `(q - zero) · step`. A pixel is the byte that is stored, which stands for
//! `q / 255`: `zero` is 0 and `step` is 1/255. The same holds after a sigmoid. After ReLU `zero` is 0 as well, and `step` comes from
//! training images. After tanh, where `step` is 1/127, and without an activation `zero` is 128.
//!
//! A weight is an integer from -127 to 127, times a scale of its output channel; it is stored with 128 added, as a byte. So both
//! factors of every product are unsigned bytes, which a Cortex-M0 loads in one instruction. The 128 is taken off once per sum:
//!
//! ```text
//! sum = Σ weight · q + bias = Σ (weight + 128) · q - 128 · Σ q + bias
//! ```
//!
//! `Σ q` is the same for all outputs that see the same inputs. The stored bias includes `-zero · Σ weight`, so that no kernel
//! needs to know `zero`, except for padding, which is filled with it.
//!
//! Sums are i32 and are computed modulo 2³², so that they may be taken in any order. The result is the exact one because the
//! exact one is within i32, for every byte that an input can be: see [`headroom`]. Then [`Finish`] turns a sum into the byte
//! of the next layer, or into a logit; that is the only place where anything is rounded, except for the mean of average
//! pooling ([`pool`]).
//!
//! No instruction depends on the data, so an image takes the same number of instructions whatever it shows.
//!
//! | module | holds |
//! |---|---|
//! | [`conv2d`] | convolution, with its pooling and activation |
//! | [`pairs`] | convolution on cores with DSP instructions |
//! | [`linear`] | the fully connected layer |
//! | [`pool`] | the largest and the mean of a window |
//! | [`finish`] | from a sum to a byte or a logit: the rounding |
//! | [`table`] | sigmoid and tanh as tables |

pub mod conv2d;
#[macro_use]
mod describe;
pub mod finish;
pub mod linear;
pub mod pairs;
pub mod pool;
pub mod table;

pub use finish::{Finish, Finishes, FinishesMut, Rescale, Scale};

use crate::Network;
use crate::layer::{Activation, Layered};
use crate::plan::{Kind, Layer, MAX_ACTIVATIONS};
use bytemuck::Zeroable;

/// What is added to a weight where it is stored.
pub const EXCESS: i32 = 128;
/// The largest weight; the smallest is `-MAX_WEIGHT`.
pub const MAX_WEIGHT: i32 = 127;
/// The largest byte that stands for an activation.
const MAX_BYTE: i64 = 255;

/// A layer of an int8 network as a type, for the kernels.
pub trait Quantized: Layered {
    /// The byte that stands for 0 in the layer's input.
    const INPUT_ZERO: u8;
    /// What is known of its sums.
    type Finish: Finish;
    /// Words that its kernel puts on the stack if it is computed by [`pairs`].
    type Scratch: Zeroable + AsMut<[u32]>;
}

/// Returns the byte that stands for 0 after this activation.
pub const fn zero(activation: Activation) -> u8 {
    match activation {
        Activation::Sigmoid | Activation::Relu => 0,
        Activation::Tanh | Activation::Identity => 128,
    }
}

/// Returns the byte that stands for 0 in the input of the layer of this index.
pub const fn input_zero(layers: &[Layer], index: usize) -> u8 {
    if index == 0 {
        0
    } else {
        zero(layers[index - 1].activation)
    }
}

/// Returns what bias and limit of an output may be together, so that no sum leaves i32: what is left when every input is 255
/// and every weight is the largest.
///
/// Every kernel asserts, when it is compiled, that 2²⁴ or more is left. That holds for every legal description: a layer has at
/// most 65,536 inputs, because their activations may take 256 KiB as f32.
pub const fn headroom(layer: &Layer) -> i64 {
    let products = products_of(layer) as i64;
    i32::MAX as i64 - products * MAX_BYTE * MAX_WEIGHT as i64
}

/// A network in f32 that has a form in int8: every one.
pub trait Quantizable: Network {
    /// That form.
    type Int8: Int8<Pixels = Self::Pixels, Logits = Self::Logits>;
}

/// A network in int8.
pub trait Int8: Network {
    /// Returns the parameters of the layer of this index, or `None` if there is no such layer.
    fn layer(params: &Self::Params, index: usize) -> Option<LayerParams<'_>>;

    /// Returns the parameters of the layer of this index, to write, or `None` if there is no such layer.
    fn layer_mut(params: &mut Self::Params, index: usize) -> Option<LayerParamsMut<'_>>;
}

/// The parameters of a layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerParams<'a> {
    /// What one step of an output byte is worth; 1 in the last layer, whose outputs are the logits themselves.
    pub step: f32,
    /// By output channel.
    pub bias: &'a [i32],
    /// By output channel.
    pub finish: Finishes<'a>,
    /// Each weight plus 128, output channel by output channel.
    pub weight: &'a [u8],
}

/// The parameters of a layer, to write.
#[derive(Debug, PartialEq)]
pub struct LayerParamsMut<'a> {
    /// What one step of an output byte is worth; nothing in the last layer.
    pub step: &'a mut [f32],
    /// By output channel.
    pub bias: &'a mut [i32],
    /// By output channel.
    pub finish: FinishesMut<'a>,
    /// Each weight plus 128, output channel by output channel.
    pub weight: &'a mut [u8],
}

/// The least that [`headroom`] leaves for any legal description.
pub const LEAST_HEADROOM: i64 = 1 << 24;

const _: () = assert!(
    i32::MAX as i64 - (MAX_ACTIVATIONS / 4) as i64 * MAX_BYTE * MAX_WEIGHT as i64 >= LEAST_HEADROOM,
    "a sum could leave i32"
);

/// The products that a sum has.
const fn products_of(layer: &Layer) -> usize {
    match layer.kind {
        Kind::Conv2d => layer.input[0] * layer.kernel * layer.kernel,
        Kind::Linear => layer.input_len(),
    }
}

/// The kind of numbers that finish the sums of a layer, chosen by whether it is the last.
pub struct IsLast<const LAST: bool>;

/// Maps [`IsLast`] to its type.
pub trait Choose {
    /// [`Rescale`] or [`Scale`].
    type Finish: Finish;
}

impl Choose for IsLast<false> {
    type Finish = Rescale;
}

impl Choose for IsLast<true> {
    type Finish = Scale;
}

/// Returns the name of the layer and the index of its first output whose numbers could take a sum out of its range.
pub fn unusable<N: Int8>(params: &N::Params) -> Option<(&'static str, usize)> {
    for (index, layer) in N::LAYERS.iter().enumerate() {
        if let Some(output) = unusable_output(layer, &N::layer(params, index)?) {
            return Some((layer.name, output));
        }
    }
    None
}

/// Returns the first such output of a layer. All layers share it.
#[inline(never)]
fn unusable_output(layer: &Layer, params: &LayerParams<'_>) -> Option<usize> {
    let headroom = headroom(layer);
    if !(params.step.is_finite() && params.step > 0.0) {
        return Some(0);
    }
    let unusable = |(output, &bias): (usize, &i32)| {
        let reach = match params.finish {
            Finishes::Hidden(all) => all.get(output)?.reach(layer.activation, bias),
            Finishes::Last(all) => all.get(output)?.reach(layer.activation, bias),
        };
        reach.is_none_or(|reach| reach > headroom).then_some(output)
    };
    params.bias.iter().enumerate().find_map(unusable)
}

/// The bytes that fill `len` bytes up to a multiple of four.
pub const fn filling(len: usize) -> usize {
    len.next_multiple_of(4) - len
}
