//! The network in 8-bit integers, for microcontrollers without a floating-point unit. Its weights take a quarter of the flash.
//!
//! [`network!`](crate::network!) derives this form from the same description as the f32 network and puts it into a module
//! `int8` inside the network's module. Its type `Net` implements [`Network`] like that of the f32 network, so the weights
//! file, the self-test and the link work with both.
//!
//! # Arithmetic
//! An activation is stored as a byte `q`, which stands for the real number `(q - zero) · step`. Here `zero` is the zero point
//! and `step` is the difference between the values of two neighbouring bytes:
//!
//! | activation | `zero` | `step` |
//! |---|---|---|
//! | pixel, or after sigmoid | 0 | 1/255 |
//! | after ReLU | 0 | calibrated on training images |
//! | after tanh | 128 | 1/127 |
//! | without an activation function | 128 | calibrated on training images |
//!
//! A weight is an integer from -128 to 127, times a scale that its output channel shares. The quantizer does not use -128. The integer
//! is stored as a byte, with 128 added. Both factors of every product are therefore unsigned bytes, which a Cortex-M0 loads with one instruction. The 128 is
//! subtracted once per sum:
//!
//! ```text
//! sum = Σ weight · q + bias = Σ (weight + 128) · q - 128 · Σ q + bias
//! ```
//!
//! `Σ q` is the same for all outputs that read the same inputs. The stored bias includes `-zero · Σ weight`, so the kernels
//! need `zero` only as the value of the padding.
//!
//! Sums are i32 and are computed modulo 2³², so their terms can be added in any order. The result is exact, because the exact
//! sum fits into an i32 whatever bytes the inputs are: see [`headroom`]. [`Finish`] then converts a sum to the byte of the
//! next layer or to a logit. This and the mean of average pooling ([`pool`]) are the only operations that round.
//!
//! Which instructions are executed does not depend on the data, so every image takes the same number of instructions.
//!
//! | module | contents |
//! |---|---|
//! | [`conv2d`] | the convolution, with its pooling and activation |
//! | [`pairs`] | the convolution on cores with DSP instructions |
//! | [`linear`] | the fully connected layer |
//! | [`pool`] | the maximum and the mean of a window |
//! | [`finish`] | converts sums to bytes or logits, with all rounding |
//! | [`table`] | sigmoid and tanh as tables |

pub mod conv2d;
#[macro_use]
mod describe;
pub mod finish;
pub mod linear;
pub mod pairs;
pub mod pool;
pub mod table;

#[cfg(test)]
mod plain;
#[cfg(test)]
mod tests;

pub use finish::{Finish, Finishes, FinishesMut, Rescale, Scale};

use crate::Network;
use crate::layer::{Activation, Layered};
use crate::plan::{Kind, Layer, MAX_ACTIVATIONS};
use bytemuck::Zeroable;

/// The number that is added to a weight when it is stored.
pub const EXCESS: i32 = 128;
/// The largest weight. The quantizer uses the weights from `-MAX_WEIGHT` to `MAX_WEIGHT`, but a byte can also store -128.
pub const MAX_WEIGHT: i32 = 127;
/// The largest byte of an activation.
const MAX_BYTE: i64 = 255;

/// A layer of an int8 network as a type, for which the compiler specializes the kernels.
pub trait Quantized: Layered {
    /// The zero point of the layer's input: the byte that stands for 0.
    const INPUT_ZERO: u8;
    /// The type of the numbers that convert the layer's sums to its outputs.
    type Finish: Finish;
    /// The array of words that [`pairs`] puts on the stack; empty if [`pairs`] does not compute this layer.
    type Scratch: Zeroable + AsMut<[u32]>;
}

/// Returns the zero point of the outputs of an activation: the byte that stands for 0.
pub const fn zero(activation: Activation) -> u8 {
    match activation {
        Activation::Sigmoid | Activation::Relu => 0,
        Activation::Tanh | Activation::Identity => 128,
    }
}

/// Returns the zero point of the input of the layer of this index.
pub const fn input_zero(layers: &[Layer], index: usize) -> u8 {
    if index == 0 {
        0
    } else {
        zero(layers[index - 1].activation)
    }
}

/// Returns how much of the range of i32 is left for the bias and the limit of an output, in magnitude, if every input is 255
/// and every weight is -128, the largest in magnitude that a byte can store. If bias and limit together are no larger, no sum can
/// overflow.
///
/// Every kernel asserts at compile time that at least [`LEAST_HEADROOM`] is left. That holds for every valid description: an output of
/// a linear layer is a sum of at most 65,536 products, because the outputs of all layers may take 256 KiB as f32, and an output of a
/// convolution is a sum of fewer.
pub const fn headroom(layer: &Layer) -> i64 {
    let products = products_of(layer) as i64;
    i32::MAX as i64 - products * MAX_BYTE * EXCESS as i64
}

/// A network in f32 that also has an int8 form. [`network!`](crate::network!) implements this trait for every network.
pub trait Quantizable: Network {
    /// The int8 form.
    type Int8: Int8<Pixels = Self::Pixels, Logits = Self::Logits>;
}

/// A network in int8.
pub trait Int8: Network {
    /// Returns the parameters of the layer of this index, or `None` if there is no such layer.
    fn layer(params: &Self::Params, index: usize) -> Option<LayerParams<'_>>;

    /// Returns the parameters of the layer of this index for writing, or `None` if there is no such layer.
    fn layer_mut(params: &mut Self::Params, index: usize) -> Option<LayerParamsMut<'_>>;
}

/// The parameters of a layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerParams<'a> {
    /// The value of one step of an output byte; 1 in the last layer, whose outputs are the logits themselves.
    pub step: f32,
    /// The bias of each output channel.
    pub bias: &'a [i32],
    /// The numbers that convert the sums of each output channel.
    pub finish: Finishes<'a>,
    /// Each weight plus 128, one output channel after another.
    pub weight: &'a [u8],
}

/// The parameters of a layer, for writing.
#[derive(Debug, PartialEq)]
pub struct LayerParamsMut<'a> {
    /// The value of one step of an output byte; empty in the last layer.
    pub step: &'a mut [f32],
    /// The bias of each output channel.
    pub bias: &'a mut [i32],
    /// The numbers that convert the sums of each output channel.
    pub finish: FinishesMut<'a>,
    /// Each weight plus 128, one output channel after another.
    pub weight: &'a mut [u8],
}

/// The smallest [`headroom`] that a valid description can have.
pub const LEAST_HEADROOM: i64 = (1 << 23) - 1;

const _: () = assert!(
    i32::MAX as i64 - (MAX_ACTIVATIONS / 4) as i64 * MAX_BYTE * EXCESS as i64 >= LEAST_HEADROOM,
    "a sum could leave i32"
);

/// Returns the number of products in a sum.
const fn products_of(layer: &Layer) -> usize {
    match layer.kind {
        Kind::Conv2d => layer.input[0] * layer.kernel * layer.kernel,
        Kind::Linear => layer.input_len(),
    }
}

/// Selects the type of the numbers that convert the sums of a layer, by whether the layer is the last one.
pub struct IsLast<const LAST: bool>;

/// Maps [`IsLast`] to that type.
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

/// Returns the first output with invalid parameters, as the name of its layer and its index there. With such parameters a sum
/// could overflow, or a step or a scale is out of its range.
pub fn unusable<N: Int8>(params: &N::Params) -> Option<(&'static str, usize)> {
    for (index, layer) in N::LAYERS.iter().enumerate() {
        if let Some(output) = unusable_output(layer, &N::layer(params, index)?) {
            return Some((layer.name, output));
        }
    }
    None
}

/// Returns the first such output of a layer. The function is neither generic nor inlined, so that all layers share its code.
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

/// Returns the number of bytes that pad `len` bytes to a multiple of four.
pub const fn filling(len: usize) -> usize {
    len.next_multiple_of(4) - len
}
