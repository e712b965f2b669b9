//! The fully connected layer with its activation.

use super::{Activation, Layered, Pool};
use crate::ops;
use crate::plan::{Kind, Layer, Refusal};

/// The fields of a linear layer in a description.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// The number of outputs, 1 to 4096.
    pub outputs: usize,
    /// The activation, by default none.
    pub activation: Activation,
}

impl Spec {
    /// The defaults for fields that a description leaves out.
    pub const DEFAULT: Self = Self {
        outputs: 0,
        activation: Activation::Identity,
    };

    /// Returns the layer for an input of this shape, or stops the build with an error if a field is invalid.
    #[track_caller]
    pub const fn layer(self, name: &'static str, input: [usize; 3]) -> Layer {
        let Self {
            outputs,
            activation,
        } = self;
        let refusal = Refusal::of(name);
        if outputs == 0 {
            refusal
                .text("a linear layer needs `outputs: 1` or more")
                .stop()
        }
        if outputs > 4096 {
            refusal
                .number(outputs)
                .text(" outputs are more than 4096")
                .stop()
        }
        Layer {
            name,
            kind: Kind::Linear,
            input,
            kernel: 1,
            padding: 0,
            pool: Pool::Whole,
            activation,
            output: [outputs, 1, 1],
        }
    }
}

/// The type of inputs and outputs: a flat array of all values.
pub type Array<T, const C: usize, const H: usize, const W: usize, const LEN: usize> = [T; LEN];
/// The type of the weight, `(OUT, IN)`.
pub type Weight<T, const OUT: usize, const C: usize, const K: usize, const LEN: usize> =
    [[T; LEN]; OUT];

/// Returns an array of zeros.
pub const fn zeros<const LEN: usize>() -> [f32; LEN] {
    [0.0; LEN]
}

/// Computes `out[o] = activation(bias[o] + Σ input[i] · weight[o][i])`.
///
/// # Shapes
/// * `input`: `(IN)`
/// * `weight`: `(OUT, IN)`
/// * `bias`: `(OUT)`
/// * `out`: `(OUT)`; overwritten
///
/// # Numerics
/// See [`ops::linear`] and [`Activation`].
///
/// # Cost
/// `OUT · IN` multiply-adds and one activation per output. It needs no scratch memory.
#[cfg_attr(not(target_os = "none"), inline(always))]
pub fn forward<L: Layered, const IN: usize, const OUT: usize>(
    _: L,
    input: &[f32; IN],
    weight: &[[f32; IN]; OUT],
    bias: &[f32; OUT],
    out: &mut [f32; OUT],
) {
    ops::linear(input, weight, bias, out);
    const { L::LAYER.activation }.apply(out);
}
