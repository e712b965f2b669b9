//! Converts a sum to the byte that the next layer reads (requantization), or to a logit.
//!
//! This is where an int8 network rounds. Each conversion is computed in 32 bits and without a branch, so it takes the same
//! number of instructions for every sum.

use super::table;
use crate::layer::{Activation, Layered};
use bytemuck::{Pod, Zeroable};
use core::fmt::Debug;
use lenet_asm::pin;

/// The number of bits of an index into a [`table`].
pub const TABLE_BITS: u32 = 10;

/// The numbers that convert the sums of one output channel to the outputs of the layer.
pub trait Finish: Pod + Send + Sync + Debug + PartialEq {
    /// The type of an output: a byte, or an f32 for a logit.
    type Out: Pod + Send + Sync + Debug + PartialEq;

    /// Returns the output for a sum, including the activation.
    fn finish<L: Layered>(self, sum: i32) -> Self::Out;

    /// Returns how much of the range of i32 this conversion needs in addition to the products: see
    /// [`headroom`](super::headroom). Returns `None` if the numbers are invalid, because a step of the computation could
    /// overflow 32 bits or a logit could be neither 0 nor a normal number.
    fn reach(self, activation: Activation, bias: i32) -> Option<i64>;

    /// Wraps the numbers of a layer in the variant for their type.
    fn known(all: &[Self]) -> Finishes<'_>;

    /// Wraps the numbers of a layer in the variant for their type, for writing.
    fn known_mut(all: &mut [Self]) -> FinishesMut<'_>;
}

/// The numbers that convert the sums of a layer, one element per output channel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Finishes<'a> {
    /// The numbers of a hidden layer.
    Hidden(&'a [Rescale]),
    /// The numbers of the last layer.
    Last(&'a [Scale]),
}

/// The numbers that convert the sums of a layer, one element per output channel, for writing.
#[derive(Debug, PartialEq)]
pub enum FinishesMut<'a> {
    /// The numbers of a hidden layer.
    Hidden(&'a mut [Rescale]),
    /// The numbers of the last layer.
    Last(&'a mut [Scale]),
}

/// Converts the sums of a hidden layer to bytes.
///
/// # Numerics
/// The byte is computed in unsigned 32 bits and rounded half up:
///
/// | activation | byte |
/// |---|---|
/// | ReLU | `(clamp(sum, 0, limit) · factor + 2²³) >> 24` |
/// | none | `(clamp(sum, -limit, limit) · factor + 2³¹ + 2²³) >> 24` |
/// | sigmoid, tanh | `table[(clamp(sum, -limit, limit) · factor + 2³¹ + 2²¹) >> 22]` |
///
/// `factor` is the value of one unit of the sum, in units of 2⁻²⁴ steps of the output or, for sigmoid and tanh, of 2⁻²²
/// steps of the table. `limit` is the magnitude of the sum at which the result saturates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Rescale {
    /// The multiplier, at least 1.
    pub factor: i32,
    /// The magnitude to which sums are clamped, at least 1.
    pub limit: i32,
}

/// The parts of the conversion to a byte that depend on the activation.
#[derive(Clone, Copy)]
struct Form {
    /// Whether sums below 0 count as 0.
    positive: bool,
    /// The number of bits of the product that remain after the shift.
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

    /// Returns what is added before the shift: a half, for rounding, and if sums can be negative the middle of the range.
    const fn offset(self) -> u32 {
        let half = 1 << (31 - self.bits);
        if self.positive {
            half
        } else {
            half + (1 << 31)
        }
    }

    /// Returns the largest product to which the offset can be added without overflowing 32 bits.
    const fn largest(self) -> u32 {
        u32::MAX - self.offset()
    }
}

impl Rescale {
    /// Returns the numbers for an activation, where `unit` is the value of one unit of the sum and `step` is the value of one
    /// step of the output byte. For an activation with a table, the step of the table replaces `step`.
    ///
    /// The factor is rounded to the nearest integer. Returns `None` if the ratio of `unit` to the step is too small or too large
    /// for it.
    pub fn new(activation: Activation, unit: f64, step: f64) -> Option<Self> {
        let form = Form::of(activation);
        let step = table::step(activation).unwrap_or(step);
        let factor = unit / step * (1u64 << (32 - form.bits)) as f64 + 0.5;
        // The factor must be at least 1, and small enough that the limit is at least 2.
        if !(factor >= 1.0 && factor <= f64::from(form.largest() / 2)) {
            return None;
        }
        let factor = factor as i32;
        let limit = (form.largest() / factor as u32).min(i32::MAX as u32) as i32;
        Some(Self { factor, limit })
    }

    /// Returns the value of one unit of the sum that the factor represents: the `unit` passed to [`new`](Self::new), rounded.
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
        // The shifts leave 8 or 10 bits, so the tables are indexed without a bounds check.
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

/// Converts the sums of the last layer to logits. The number is what one unit of the sum adds to the logit.
///
/// # Numerics
/// Gives the bits of `sum as f32 * scale`. The sum is converted to f32, which is exact up to 2²⁴ and otherwise rounds to
/// nearest, and the product is rounded to nearest. The computation is in integers, because on a core without floating point
/// the number of instructions of the library functions depends on the operands.
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(transparent)]
pub struct Scale(pub f32);

/// The valid scales. Sums are below 2³² in magnitude, so with these scales every logit is 0 or a normal number.
const SCALES: core::ops::RangeInclusive<f32> =
    f32::from_bits((127 - 100) << 23)..=f32::from_bits((127 + 90) << 23);

impl Finish for Scale {
    type Out = f32;

    #[inline(always)]
    fn finish<L: Layered>(self, sum: i32) -> f32 {
        product(sum, self.0)
    }

    fn reach(self, _: Activation, bias: i32) -> Option<i64> {
        SCALES.contains(&self.0).then(|| i64::from(bias).abs())
    }

    fn known(all: &[Self]) -> Finishes<'_> {
        Finishes::Last(all)
    }

    fn known_mut(all: &mut [Self]) -> FinishesMut<'_> {
        FinishesMut::Last(all)
    }
}

/// Returns `sum as f32 * scale` for a scale in [`SCALES`]. Executes the same instructions for all operands.
// Not inlined, so that all logits share the code.
#[inline(never)]
fn product(sum: i32, scale: f32) -> f32 {
    let sign = (sum >> 31) as u32;
    let magnitude = (sum as u32 ^ sign).wrapping_sub(sign);
    // The magnitude is always `bits · 2^(exponent - 31)`. The loop shifts until the highest bit of `bits` is set.
    let (mut bits, mut exponent) = (magnitude, 31);
    for shift in [16, 8, 4, 2, 1] {
        // 1 if the upper `shift` bits are 0.
        let empty = pin(pin(bits >> (32 - shift)).wrapping_sub(1) >> 31);
        bits <<= shift * empty;
        exponent -= shift * empty;
    }
    // Rounds to the upper 24 bits, half to even, as the conversion to f32 does.
    let upper = bits >> 8;
    let upper = upper + (((bits & 0xff) + 0x7f + (upper & 1)) >> 8);

    // The product of the two 24-bit significands: its upper half is `high`, of 23 or 24 bits, and its lower half is `low`.
    let fraction = scale.to_bits() & 0x007f_ffff | 0x0080_0000;
    let [a, b, c, d] = [upper >> 12, upper & 0xfff, fraction >> 12, fraction & 0xfff];
    let middle = a * d + b * c + ((b * d) >> 12);
    let high = a * c + (middle >> 12);
    let low = (middle & 0xfff) << 12 | ((b * d) & 0xfff);

    let full = pin(high >> 23);
    let rest = low << (1 - full);
    let significand = high << (1 - full) | rest >> 24;
    let significand =
        significand + (((rest & 0x00ff_ffff) + 0x007f_ffff + (significand & 1)) >> 24);
    // The highest bit of the significand adds 1 to the exponent, and so does a carry from rounding.
    let exponent = (scale.to_bits() >> 23) + exponent + full - 1;
    let not_zero = ((magnitude | magnitude.wrapping_neg()) as i32 >> 31) as u32;
    f32::from_bits((sign & 0x8000_0000 | (exponent << 23).wrapping_add(significand)) & not_zero)
}

/// Returns the larger of two numbers that are less than 2³¹ apart, without a branch.
#[inline(always)]
pub(crate) fn max(a: i32, b: i32) -> i32 {
    let distance = a.wrapping_sub(b);
    b.wrapping_add(distance & !(distance >> 31))
}

/// Returns the smaller of two numbers that are less than 2³¹ apart, without a branch.
#[inline(always)]
pub(crate) fn min(a: i32, b: i32) -> i32 {
    let distance = a.wrapping_sub(b);
    b.wrapping_add(distance & (distance >> 31))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn is_the_product(sum: i32, scale: f32) {
        let expected = sum as f32 * scale;
        let found = product(sum, scale);
        assert_eq!(
            found.to_bits(),
            expected.to_bits(),
            "{sum} * {scale:e}: {found:e}, {expected:e}"
        );
    }

    #[test]
    fn products_are_those_of_floats() {
        let ends = [
            1,
            2,
            3,
            (1 << 24) - 1,
            1 << 24,
            (1 << 24) + 1,
            (1 << 25) + 2,
            (1 << 25) + 6,
            i32::MAX,
        ];
        let (least, most) = (*SCALES.start(), *SCALES.end());
        let scales = [
            least,
            least.next_up(),
            1.0,
            1.0f32.next_up(),
            1.5,
            2.0f32.next_down(),
            most.next_down(),
            most,
        ];
        for scale in scales {
            for sum in ends {
                is_the_product(sum, scale);
                is_the_product(-sum, scale);
            }
            is_the_product(0, scale);
            is_the_product(i32::MIN, scale);
        }
        // A linear congruential generator gives sums and scales of all magnitudes.
        let mut state = 1u64;
        let mut random = || {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            (state >> 32) as u32
        };
        for _ in 0..3_000_000 {
            let sum = random() as i32 >> (random() % 32);
            let exponent = 27 + random() % 190;
            is_the_product(sum, f32::from_bits(exponent << 23 | random() >> 9));
        }
    }

    #[test]
    fn a_factor_is_the_ratio_of_the_steps() {
        // The factor is 2²⁴ · 0.5 / 2. The limit is the largest sum whose product leaves room for 2²³.
        let rescale = Rescale::new(Activation::Relu, 0.5, 2.0).unwrap();
        let (factor, limit) = (1 << 22, (u32::MAX - (1 << 23)) >> 22);
        assert_eq!((rescale.factor, rescale.limit), (factor, limit as i32));
        assert_eq!(rescale.unit(Activation::Relu, 2.0), 0.5);
        // The step of the table, 1/64, replaces that of the output. 2²² · 0.001 · 64 is 268,435.456.
        let rescale = Rescale::new(Activation::Sigmoid, 0.001, 2.0).unwrap();
        let limit = ((1u32 << 31) - (1 << 21) - 1) / 268_435;
        assert_eq!((rescale.factor, rescale.limit), (268_435, limit as i32));
        assert_eq!(
            rescale.unit(Activation::Sigmoid, 2.0),
            268_435.0 / f64::from(1 << 28)
        );
        // A factor of 0.5 is rounded up to 1, and a smaller one is refused. A factor is too large if its limit would be below 2.
        let least = 0.5 / f64::from(1 << 24);
        let new = |unit| Rescale::new(Activation::Relu, unit, 1.0);
        assert_eq!(new(least).unwrap().factor, 1);
        assert_eq!(new(least * 0.999), None);
        assert_eq!(new(127.0).unwrap().limit, 2);
        assert_eq!(new(128.0), None);
        assert_eq!(new(f64::NAN), None);
    }

    #[test]
    fn numbers_that_could_overflow_are_refused() {
        let reach = |factor, limit| Rescale { factor, limit }.reach(Activation::Identity, -5);
        let most = i32::MAX - (1 << 23);
        assert_eq!(reach(1, most), Some(i64::from(most) + 5));
        assert_eq!(reach(1, most + 1), None);
        assert_eq!(reach(0, 1), None);
        assert_eq!(reach(1, 0), None);
    }

    #[test]
    fn scales_that_could_give_another_kind_of_number_are_refused() {
        let usable = |scale| Scale(scale).reach(Activation::Identity, -7);
        assert_eq!(usable(0.1), Some(7));
        for scale in [0.0, -0.1, 1e-38, 1e38, f32::NAN, f32::INFINITY] {
            assert_eq!(usable(scale), None);
        }
        assert_eq!(i32::MIN as f32 * *SCALES.end(), -(2.0f32.powi(121)));
        assert!((*SCALES.start()).is_normal());
    }
}
