//! The activation functions on vectors, and their gradients.
//!
//! A gradient is computed from the activation's output, so its input need not be kept.

use super::sigmoid::{sigmoid, sigmoid_grad};
use super::simd::{Kernel, Lanes, Lanewise, Simd};
use lenet_core::layer::Activation;

/// Applies an activation function.
///
/// The convolutions' kernels pass a constant `activation`, so the compiler removes all arms but one.
#[inline(always)]
pub(super) fn activate<const N: usize, S: Lanewise<N>>(
    s: S,
    activation: Activation,
    x: S::V,
) -> S::V {
    match activation {
        Activation::Identity => x,
        Activation::Sigmoid => sigmoid(s, x),
        Activation::Tanh => tanh(s, x),
        Activation::Relu => s.max(s.splat(0.0), x),
    }
}

/// Computes the gradient of an activation's input from its output and the gradient of the output.
///
/// The derivative of ReLU at 0 is 0. A NaN in either argument gives NaN, except that ReLU passes the gradient of a NaN, as
/// PyTorch does.
#[inline(always)]
pub(super) fn activate_grad<const N: usize, S: Lanewise<N>>(
    s: S,
    activation: Activation,
    out: S::V,
    grad: S::V,
) -> S::V {
    match activation {
        Activation::Identity => grad,
        Activation::Sigmoid => sigmoid_grad(s, out, grad),
        Activation::Tanh => {
            let minus_grad = s.sub(s.splat(0.0), grad);
            s.mul_add(s.mul(out, out), minus_grad, grad)
        }
        Activation::Relu => {
            // A number less than the smallest positive one is at most 0. A NaN does not compare as less.
            let least = s.splat(f32::from_bits(1));
            s.select_gt(least, out, s.splat(0.0), grad)
        }
    }
}

/// From here on, the hyperbolic tangent rounds to 1.
const LIMIT: f32 = 9.5;
const ROUND: f32 = 12_582_912.0;
/// `(2^r - 1) / r` for `r` in -0.5..=0.5, interpolated at the Chebyshev nodes: the relative error is 2.2e-8.
const POWERS: [f32; 6] = [
    std::f32::consts::LN_2,
    0.240_226_5,
    0.055_503_57,
    0.009_618_083,
    0.001_339_086_3,
    0.000_154_531_63,
];

/// Computes the hyperbolic tangent as `-e / (2 + e)` with `e = exp(-2x) - 1`; NaN stays NaN.
///
/// As in [`exp_neg`](super::sigmoid::exp_neg), `exp(-2x) = 2^n * 2^r`. Here `2^r - 1` is the polynomial, without its constant
/// term, so that `e = 2^n * (2^r - 1) + (2^n - 1)` is accurate near 0. The relative error is at most 3e-7.
#[inline(always)]
fn tanh<const N: usize, S: Lanewise<N>>(s: S, x: S::V) -> S::V {
    let (one, round) = (s.splat(1.0), s.splat(ROUND));
    let x = s.max(s.splat(-LIMIT), s.min(s.splat(LIMIT), x));
    let scale = s.splat(-2.0 * std::f32::consts::LOG2_E);
    let t = s.mul_add(x, scale, round);
    let r = s.mul_add(x, scale, s.sub(round, t));
    let mut power = s.splat(POWERS[5]);
    for k in (0..5).rev() {
        power = s.mul_add(power, r, s.splat(POWERS[k]));
    }
    let whole = s.scale_exponent(one, t);
    let e = s.mul_add(whole, s.mul(power, r), s.sub(whole, one));
    s.div(s.sub(s.splat(0.0), e), s.add(s.splat(2.0), e))
}

/// Applies an activation to each value, in place.
pub(super) struct Activate<'a> {
    pub activation: Activation,
    pub values: &'a mut [Lanes],
}

impl Kernel for Activate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        #[inline(always)]
        fn each<S: Simd>(s: S, values: &mut [Lanes], activation: Activation) {
            for lanes in values {
                s.store(activate(s, activation, s.load(lanes)), lanes);
            }
        }
        // The function is chosen outside the loop.
        match self.activation {
            Activation::Identity => {}
            Activation::Sigmoid => each(s, self.values, Activation::Sigmoid),
            Activation::Tanh => each(s, self.values, Activation::Tanh),
            Activation::Relu => each(s, self.values, Activation::Relu),
        }
    }
}

/// Computes the gradient of an activation's input from that of its output.
pub(super) struct ActivateGrad<'a> {
    pub activation: Activation,
    /// The activation's output.
    pub out: &'a [Lanes],
    /// The gradient of the output; as long as `out`.
    pub grad: &'a [Lanes],
    /// The gradient of the input; as long as `out`; overwritten.
    pub to: &'a mut [Lanes],
}

impl Kernel for ActivateGrad<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        #[inline(always)]
        fn each<S: Simd>(
            s: S,
            ActivateGrad { out, grad, to, .. }: ActivateGrad<'_>,
            activation: Activation,
        ) {
            for ((out, grad), to) in out.iter().zip(grad).zip(to) {
                s.store(activate_grad(s, activation, s.load(out), s.load(grad)), to);
            }
        }
        match self.activation {
            Activation::Identity => each(s, self, Activation::Identity),
            Activation::Sigmoid => each(s, self, Activation::Sigmoid),
            Activation::Tanh => each(s, self, Activation::Tanh),
            Activation::Relu => each(s, self, Activation::Relu),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::simd::{Isa, LANES};
    use super::*;

    const EVERY: [Activation; 4] = [
        Activation::Identity,
        Activation::Sigmoid,
        Activation::Tanh,
        Activation::Relu,
    ];

    fn run(isa: Isa, activation: Activation, inputs: Lanes) -> Lanes {
        let mut values = [inputs];
        isa.run(Activate {
            activation,
            values: &mut values,
        });
        values[0]
    }

    fn run_grad(isa: Isa, activation: Activation, out: Lanes, grad: Lanes) -> Lanes {
        let mut by_input = [[f32::NAN; LANES]];
        isa.run(ActivateGrad {
            activation,
            out: &[out],
            grad: &[grad],
            to: &mut by_input,
        });
        by_input[0]
    }

    /// Returns every 4,099th float of either sign, from the smallest to infinity.
    #[test]
    fn tanh_is_accurate_everywhere() {
        for isa in Isa::available() {
            let (mut worst, mut at) = (0.0f64, 0.0);
            let mut bits = 0;
            while bits < f32::INFINITY.to_bits() {
                let inputs: Lanes = std::array::from_fn(|i| {
                    let magnitude = f32::from_bits(bits + 4_099 * (i as u32 / 2));
                    if i % 2 == 0 { magnitude } else { -magnitude }
                });
                bits += 4_099 * LANES as u32 / 2;
                for (x, y) in inputs.into_iter().zip(run(isa, Activation::Tanh, inputs)) {
                    if x.is_nan() {
                        continue;
                    }
                    assert!(y.abs() <= 1.0, "{isa:?}: {x} {y}");
                    let exact = f64::from(x).tanh();
                    // A subnormal number has no relative accuracy.
                    let unit = exact.abs().max(f64::from(f32::MIN_POSITIVE));
                    let error = (f64::from(y) - exact).abs() / unit;
                    if error > worst {
                        (worst, at) = (error, x);
                    }
                }
            }
            assert!(worst < 3e-7, "{isa:?}: {worst:e} at {at:e}");
        }
    }

    #[test]
    fn known_values_on_every_version() {
        let mut inputs = [0.0; LANES];
        inputs[1..6].copy_from_slice(&[f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -2.5, 0.75]);
        for isa in Isa::available() {
            for activation in EVERY {
                let out = run(isa, activation, inputs);
                assert!(out[3].is_nan(), "{isa:?} {activation:?}");
                let expected = match activation {
                    Activation::Identity => [0.0, f32::INFINITY, f32::NEG_INFINITY],
                    Activation::Sigmoid => [0.5, 1.0, out[2]],
                    Activation::Tanh => [0.0, 1.0, -1.0],
                    Activation::Relu => [0.0, f32::INFINITY, 0.0],
                };
                assert_eq!(out[..3], expected, "{isa:?} {activation:?}");
            }
            let out = run(isa, Activation::Relu, inputs);
            assert_eq!(out[4..6], [0.0, 0.75], "{isa:?}");
        }
    }

    #[test]
    fn gradients_are_those_of_the_definition() {
        let inputs: Lanes = std::array::from_fn(|i| (i as f32 - 7.5) * 0.4);
        for isa in Isa::available() {
            for activation in EVERY {
                let out = run(isa, activation, inputs);
                let grad = run_grad(isa, activation, out, [3.0; LANES]);
                for (x, found) in inputs.into_iter().zip(grad) {
                    let x = f64::from(x);
                    let derivative = match activation {
                        Activation::Identity => 1.0,
                        Activation::Sigmoid => 1.0 / (2.0 + x.exp() + (-x).exp()),
                        Activation::Tanh => 1.0 - x.tanh() * x.tanh(),
                        Activation::Relu => f64::from(u8::from(x > 0.0)),
                    };
                    let error = f64::from(found) - 3.0 * derivative;
                    assert!(
                        error.abs() < 1e-6,
                        "{isa:?} {activation:?}: {x} {found} {derivative}"
                    );
                }
            }
            // Zeros of both signs, and a NaN.
            let mut out = [0.0; LANES];
            out[1..5].copy_from_slice(&[-0.0, f32::NAN, f32::from_bits(1), 1.0]);
            let grad = run_grad(isa, Activation::Relu, out, [2.0; LANES]);
            assert_eq!(grad[..5], [0.0, 0.0, 2.0, 2.0, 2.0], "{isa:?}");
            for activation in [Activation::Sigmoid, Activation::Tanh] {
                let grad = run_grad(isa, activation, out, [2.0; LANES]);
                assert!(grad[2].is_nan(), "{isa:?} {activation:?}");
            }
        }
    }

    #[test]
    fn every_version_gives_the_same_bits() {
        for activation in EVERY {
            for k in 0..200 {
                let inputs: Lanes =
                    std::array::from_fn(|i| ((k * LANES + i) as f32 - 1600.0) * 0.011);
                let bits = |isa| {
                    let out = run(isa, activation, inputs);
                    let grad = run_grad(isa, activation, out, inputs);
                    (out.map(f32::to_bits), grad.map(f32::to_bits))
                };
                let expected = bits(Isa::available()[0]);
                for isa in Isa::available() {
                    assert_eq!(bits(isa), expected, "{isa:?} {activation:?} {k}");
                }
            }
        }
    }
}
