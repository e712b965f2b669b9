//! From a sum to the byte of the next layer, or to a logit.
//!
//! This is where the int8 network rounds. Each rounding is one expression below, in 32 bits and without a branch, so that it
//! costs the same for every sum.

use super::table;
use crate::layer::{Activation, Layered};
use bytemuck::{Pod, Zeroable};
use core::fmt::Debug;

/// The bits of an index of a [`table`].
pub const TABLE_BITS: u32 = 10;

/// What turns a sum of one output channel into the value that the layer passes on.
pub trait Finish: Pod + Send + Sync + Debug + PartialEq {
    /// A byte, or a logit.
    type Out: Pod + Send + Sync + Debug + PartialEq;

    /// Returns the value of a sum, activation included.
    fn finish<L: Layered>(self, sum: i32) -> Self::Out;

    /// Returns what the sum may reach beside its products: see [`headroom`](super::headroom). `None` if these numbers cannot
    /// be used, because a step of the computation would leave its 32 bits.
    fn reach(self, activation: Activation, bias: i32) -> Option<i64>;

    /// Returns numbers of a layer by what they are.
    fn known(all: &[Self]) -> Finishes<'_>;

    /// Returns numbers of a layer by what they are, to write.
    fn known_mut(all: &mut [Self]) -> FinishesMut<'_>;
}

/// What finishes the sums of a layer, one per output channel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Finishes<'a> {
    /// A hidden layer.
    Hidden(&'a [Rescale]),
    /// The last layer.
    Last(&'a [Scale]),
}

/// What finishes the sums of a layer, one per output channel, to write.
#[derive(Debug, PartialEq)]
pub enum FinishesMut<'a> {
    /// A hidden layer.
    Hidden(&'a mut [Rescale]),
    /// The last layer.
    Last(&'a mut [Scale]),
}

/// Finishes the sums of a hidden layer.
///
/// # Numerics
/// With `limit ≥ |clamped|`, all in unsigned 32 bits, rounded half up:
///
/// | activation | byte |
/// |---|---|
/// | ReLU | `(clamp(sum, 0, limit) · factor + 2²³) >> 24` |
/// | none | `(clamp(sum, -limit, limit) · factor + 2³¹ + 2²³) >> 24` |
/// | sigmoid, tanh | `table[(clamp(sum, -limit, limit) · factor + 2³¹ + 2²¹) >> 22]` |
///
/// `factor` is what one unit of the sum is worth, in units of 2⁻²⁴ steps of the output, or of 2⁻²² steps of the table.
/// `limit` is where the result saturates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Rescale {
    /// The multiplier, at least 1.
    pub factor: i32,
    /// The largest sum that is told from larger ones, at least 1.
    pub limit: i32,
}

/// How a sum becomes a byte, by the activation.
#[derive(Clone, Copy)]
struct Form {
    /// Sums below 0 count as 0.
    positive: bool,
    /// What is left of the product, in bits.
    bits: u32,
}

impl Form {
    const fn of(activation: Activation) -> Self {
        let (positive, bits) = match activation {
            Activation::Relu => (true, 8),
            Activation::Identity => (false, 8),
            Activation::Sigmoid | Activation::Tanh => (false, TABLE_BITS),
        };
        Self { positive, bits }
    }

    /// What is added before the shift: a half, and the middle of the range.
    const fn offset(self) -> u32 {
        let half = 1 << (31 - self.bits);
        if self.positive {
            half
        } else {
            half + (1 << 31)
        }
    }

    /// The largest product, so that no sum with the offset leaves 32 bits.
    const fn largest(self) -> u32 {
        u32::MAX - self.offset()
    }
}

impl Rescale {
    /// Returns the numbers for an activation where one unit of the sum is worth `unit`, rounded to the nearest, and `step` is
    /// what one step of the output byte is worth. Tables have steps of their own.
    ///
    /// Returns `None` if the ratio of `unit` to the step is too small or too large for the factor.
    pub fn new(activation: Activation, unit: f64, step: f64) -> Option<Self> {
        let form = Form::of(activation);
        let step = table::step(activation).unwrap_or(step);
        let factor = unit / step * (1u64 << (32 - form.bits)) as f64 + 0.5;
        // At least one step of the sum must be told from none, and the limit must be at least 1.
        if !(factor >= 1.0 && factor <= f64::from(form.largest() / 2)) {
            return None;
        }
        let factor = factor as i32;
        let limit = (form.largest() / factor as u32).min(i32::MAX as u32) as i32;
        Some(Self { factor, limit })
    }

    /// Returns what one unit of the sum is worth, as the factor has it: what [`new`](Self::new) was given, rounded.
    pub fn unit(self, activation: Activation, step: f64) -> f64 {
        let step = table::step(activation).unwrap_or(step);
        f64::from(self.factor) * step / (1u64 << (32 - Form::of(activation).bits)) as f64
    }
}

impl Finish for Rescale {
    type Out = u8;

    #[inline(always)]
    fn finish<L: Layered>(self, sum: i32) -> u8 {
        let form = const { Form::of(L::LAYER.activation) };
        let least = if form.positive {
            0
        } else {
            self.limit.wrapping_neg()
        };
        let clamped = min(max(sum, least), self.limit);
        let product = (clamped.wrapping_mul(self.factor) as u32).wrapping_add(form.offset());
        // The shifts leave 8 and 10 bits, so that no index needs a check.
        match const { L::LAYER.activation } {
            Activation::Identity | Activation::Relu => (product >> 24) as u8,
            Activation::Sigmoid => table::SIGMOID[(product >> (32 - TABLE_BITS)) as usize],
            Activation::Tanh => table::TANH[(product >> (32 - TABLE_BITS)) as usize],
        }
    }

    fn reach(self, activation: Activation, bias: i32) -> Option<i64> {
        let Self { factor, limit } = self;
        let product = i64::from(factor) * i64::from(limit);
        let largest = i64::from(Form::of(activation).largest());
        let usable = factor >= 1 && limit >= 1 && product <= largest;
        usable.then(|| i64::from(bias).abs() + i64::from(limit))
    }

    fn known(all: &[Self]) -> Finishes<'_> {
        Finishes::Hidden(all)
    }

    fn known_mut(all: &mut [Self]) -> FinishesMut<'_> {
        FinishesMut::Hidden(all)
    }
}

/// Finishes the sums of the last layer: what one unit of the sum adds to the logit.
///
/// # Numerics
/// The sum is converted to f32, exactly below 2²⁴ and else rounded to the nearest, then multiplied: one operation of
/// floating point per class, the only ones of the network.
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(transparent)]
pub struct Scale(pub f32);

impl Finish for Scale {
    type Out = f32;

    #[inline(always)]
    fn finish<L: Layered>(self, sum: i32) -> f32 {
        sum as f32 * self.0
    }

    fn reach(self, _: Activation, bias: i32) -> Option<i64> {
        (self.0.is_finite() && self.0 > 0.0).then(|| i64::from(bias).abs())
    }

    fn known(all: &[Self]) -> Finishes<'_> {
        Finishes::Last(all)
    }

    fn known_mut(all: &mut [Self]) -> FinishesMut<'_> {
        FinishesMut::Last(all)
    }
}

/// Returns the larger of two numbers less than 2³¹ apart, by the same instructions whichever it is.
#[inline(always)]
pub(crate) fn max(a: i32, b: i32) -> i32 {
    let distance = a.wrapping_sub(b);
    b.wrapping_add(distance & !(distance >> 31))
}

/// Returns the smaller of two numbers less than 2³¹ apart, by the same instructions whichever it is.
#[inline(always)]
pub(crate) fn min(a: i32, b: i32) -> i32 {
    let distance = a.wrapping_sub(b);
    b.wrapping_add(distance & (distance >> 31))
}
