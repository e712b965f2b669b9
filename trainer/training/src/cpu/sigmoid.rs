//! The exponential and the sigmoid on vectors, and the sigmoid's gradient.
//!
//! `exp(-x) = 2^n * 2^r` with an integer `n` and `r` in -0.5..=0.5. Adding `1.5 * 2^23` rounds to an integer and leaves it in
//! the low bits, so `2^n` is one integer addition to the exponent. `2^r` is a polynomial of degree five, fitted for the least
//! relative error (1.1e-7) with its constant term fixed at 1, so that `exp(0)` is 1.

use super::simd::Lanewise;

/// The largest `|x|` for which `exp(-x)` is normal. Beyond it, a sigmoid no longer changes.
const LIMIT: f32 = 87.0;
const ROUND: f32 = 12_582_912.0;
// The first coefficient is close to ln 2 but not equal to it: it comes from the fit.
#[allow(clippy::approx_constant)]
const POWERS: [f32; 5] = [
    0.693_147,
    0.240_222_42,
    0.055_507_336,
    0.009_671_513,
    0.001_326_472_7,
];

/// Computes `exp(-x)`, with `x` clamped to -87..=87; NaN stays NaN. The relative error is at most 2e-7 for `|x| < 1`, and grows
/// by 4e-8 for each 1 of `|x|`.
#[inline(always)]
pub(super) fn exp_neg<const N: usize, S: Lanewise<N>>(s: S, x: S::V) -> S::V {
    let round = s.splat(ROUND);
    let x = s.max(s.splat(-LIMIT), s.min(s.splat(LIMIT), x));
    let scale = s.splat(-std::f32::consts::LOG2_E);
    let t = s.mul_add(x, scale, round);
    let r = s.mul_add(x, scale, s.sub(round, t));
    let mut power = s.splat(POWERS[4]);
    for k in (0..4).rev() {
        power = s.mul_add(power, r, s.splat(POWERS[k]));
    }
    s.scale_exponent(s.mul_add(power, r, s.splat(1.0)), t)
}

/// Computes `1 / (1 + exp(-x))`.
#[inline(always)]
pub(super) fn sigmoid<const N: usize, S: Lanewise<N>>(s: S, x: S::V) -> S::V {
    let one = s.splat(1.0);
    s.div(one, s.add(one, exp_neg(s, x)))
}

/// Computes the gradient of the sigmoid's input, `grad * (out * (1 - out))`.
#[inline(always)]
pub(super) fn sigmoid_grad<const N: usize, S: Lanewise<N>>(s: S, out: S::V, grad: S::V) -> S::V {
    s.mul(grad, s.mul(out, s.sub(s.splat(1.0), out)))
}

#[cfg(test)]
mod tests {
    use super::super::activation::Activate;
    use super::super::simd::{Isa, LANES, Lanes};
    use lenet_core::layer::Activation;

    #[test]
    fn is_the_sigmoid_within_two_units_of_1() {
        for isa in Isa::available() {
            let mut x = -100.0f32;
            while x < 100.0 {
                let inputs: Lanes = std::array::from_fn(|i| x + i as f32 * 0.001);
                let mut out = [inputs];
                isa.run(Activate {
                    activation: Activation::Sigmoid,
                    values: &mut out,
                });
                for (x, y) in inputs.into_iter().zip(out[0]) {
                    let exact = 1.0 / (1.0 + (-f64::from(x)).exp());
                    assert!(
                        (f64::from(y) - exact).abs() < 1.2e-7,
                        "{isa:?}: {x} {y} {exact}"
                    );
                }
                x += LANES as f32 * 0.001;
            }
        }
    }

    #[test]
    fn known_values_on_every_version() {
        for isa in Isa::available() {
            let mut lanes = [0.0; LANES];
            lanes[1..5].copy_from_slice(&[f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -0.0]);
            let mut out = [lanes];
            isa.run(Activate {
                activation: Activation::Sigmoid,
                values: &mut out,
            });
            let [out] = out;
            assert_eq!((out[0], out[1], out[4]), (0.5, 1.0, 0.5), "{isa:?}");
            assert!(out[2] >= 0.0 && out[2] < 1e-37, "{isa:?}: {}", out[2]);
            assert!(out[3].is_nan(), "{isa:?}");
        }
    }
}
