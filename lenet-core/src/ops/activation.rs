//! Activation functions: sigmoid, tanh, ReLU.

/// The activation function that a layer applies to each of its values.
///
/// All of them are monotone over all floats, so maximum pooling may come before them (`tests/support/tests/activation.rs` checks
/// every float). NaN stays NaN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// No activation: returns the value itself.
    Identity,
    /// [`sigmoid`]
    Sigmoid,
    /// [`tanh`]
    Tanh,
    /// [`relu`]
    Relu,
}

impl Activation {
    /// Returns the activation of one value. In kernels `self` is a constant, so the compiler keeps only one arm.
    #[inline(always)]
    pub fn of(self, x: f32) -> f32 {
        match self {
            Self::Identity => x,
            Self::Sigmoid => sigmoid(x),
            Self::Tanh => tanh(x),
            Self::Relu => relu(x),
        }
    }

    /// Replaces each value by its activation.
    #[inline(always)]
    pub fn apply(self, values: &mut [f32]) {
        if !matches!(self, Self::Identity) {
            for value in values {
                *value = self.of(*value);
            }
        }
    }

    /// Returns the derivative as a function of the output `y = self.of(x)`. At 0 the derivative of ReLU is 0, as in PyTorch.
    pub fn derivative(self, y: f32) -> f32 {
        match self {
            Self::Identity => 1.0,
            Self::Sigmoid => y * (1.0 - y),
            Self::Tanh => 1.0 - y * y,
            Self::Relu => {
                if y > 0.0 {
                    1.0
                } else {
                    0.0
                }
            }
        }
    }

    /// Returns the function's name in lower case, or `""` for [`Identity`](Self::Identity).
    pub const fn name(self) -> &'static str {
        match self {
            Self::Identity => "",
            Self::Sigmoid => "sigmoid",
            Self::Tanh => "tanh",
            Self::Relu => "relu",
        }
    }
}

/// Returns the logistic function `1 / (1 + exp(-x))`.
///
/// # Numerics
/// The function is monotone, its results are in 0..=1, and NaN stays NaN. The error is at most 9·10⁻⁸, and at most 2.5 units in
/// the last place where the exact value is a normal number (x > -87.3). Below that the result is subnormal, and 0 once `exp(-x)`
/// overflows (x < -88.7). The bits are those that `libm::expf` gives. `tests/support/tests/activation.rs` checks all 2³² floats.
///
/// # Cost
/// Executes the same instructions for every `x`.
#[cfg_attr(not(target_os = "none"), inline(always))]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Returns the hyperbolic tangent.
///
/// # Numerics
/// The function is monotone and odd, its results are in -1..=1, and NaN stays NaN. The error is at most 2.5 units in the last
/// place. `tests/support/tests/activation.rs` checks all 2³² floats against f64.
///
/// For `|x| < 0.625` it computes `x + x³·Q(x²)`, where the polynomial `Q` of degree 4 minimizes the relative error (4.4·10⁻⁹).
/// For other values it computes `1 - 2 / (exp(2·|x|) + 1)` with the sign of `x`.
///
/// # Cost
/// Executes the same instructions for every `x`: it computes both forms and selects one.
#[cfg_attr(not(target_os = "none"), inline(always))]
pub fn tanh(x: f32) -> f32 {
    const Q: [f32; 5] = [
        -0.333_332_8,
        0.133_314_28,
        -0.053_738_52,
        0.020_635_005,
        -0.005_700_238,
    ];
    let a = x.abs();
    let z = x * x;
    let q = (((Q[4] * z + Q[3]) * z + Q[2]) * z + Q[1]) * z + Q[0];
    let small = a + a * (z * q);
    let large = 1.0 - 2.0 / (exp(2.0 * a) + 1.0);
    let y = if a < 0.625 { small } else { large };
    y.copysign(x)
}

/// Returns `max(x, 0)`; NaN stays NaN.
#[inline(always)]
pub fn relu(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}

/// Returns `exp(t)` with the bits of `libm::expf`, or `exp(-87)` if `t < -87`. There are no branches, so that hosts can vectorize
/// it and a microcontroller executes the same number of instructions for every `t`.
///
/// Method: `exp(t) = 2ᵏ·exp(r)`, where `k` is `t / ln 2` rounded, so that `|r| ≤ ln 2 / 2`. For `exp(r)` it uses the rational
/// function and the constants of FreeBSD's `e_expf.c`, as libm does.
#[inline(always)]
pub(super) fn exp(t: f32) -> f32 {
    use core::f32::consts::LOG2_E;
    // ln 2 in two parts; k times the first is exact.
    const LN_2_HIGH: f32 = 0.693_145_75;
    const LN_2_LOW: f32 = 1.428_606_8e-6;
    const P1: f32 = 0.166_666_25;
    const P2: f32 = -2.766_733_3e-3;
    // 2⁻¹³: for |t| up to this value, exp(t) is 1 + t.
    const TINY: f32 = 1.220_703_1e-4;
    // 1.5·2²³: adding it rounds to an integer, which the low bits of the sum then hold; subtracting it gives the integer as f32.
    const ROUND: f32 = 12_582_912.0;

    // exp(89) is infinite. The comparisons leave a NaN unchanged.
    let t = if t > 89.0 { 89.0 } else { t };
    let t = if t < -87.0 { -87.0 } else { t };

    // Rounds half away from zero: adds a half, rounds to nearest, and corrects the result if that went too far from zero.
    let half = 0.5f32.copysign(t);
    let further = t * LOG2_E + half;
    let mut k = (further + ROUND) - ROUND;
    if k.abs() > further.abs() {
        k -= 2.0 * half;
    }
    let high = t - k * LN_2_HIGH;
    let low = k * LN_2_LOW;
    let r = high - low;
    let rr = r * r;
    let c = r - rr * (P1 + rr * P2);
    let exp_r = 1.0 + (r * c / (2.0 - c) - low + high);
    let exp_r = if t.abs() > TINY { exp_r } else { 1.0 + t };

    // Multiplies by 2ᵏ in two factors, because k can be 128, for which 2ᵏ is not an f32.
    let k = (k + ROUND).to_bits().wrapping_sub(ROUND.to_bits()) as i32;
    let power_of_two = |k: i32| f32::from_bits((k.wrapping_add(127) as u32) << 23);
    exp_r * power_of_two(k >> 1) * power_of_two(k.wrapping_sub(k >> 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        assert_eq!(sigmoid(0.0), 0.5);
        assert_eq!(sigmoid(f32::INFINITY), 1.0);
        assert_eq!(sigmoid(f32::NEG_INFINITY), 0.0);
        assert!((sigmoid(1.0) - 0.731_058_6).abs() < 1e-7);
        assert_eq!(tanh(0.0).to_bits(), 0.0f32.to_bits());
        assert_eq!(tanh(-0.0).to_bits(), (-0.0f32).to_bits());
        assert_eq!(tanh(1e-20), 1e-20);
        assert_eq!(tanh(f32::INFINITY), 1.0);
        assert_eq!(tanh(f32::NEG_INFINITY), -1.0);
        assert!((tanh(-1.0) + 0.761_594_2).abs() < 1e-7);
        assert_eq!((relu(-2.0), relu(3.0)), (0.0, 3.0));
    }

    #[test]
    fn nan_stays_nan() {
        use Activation::*;
        for activation in [Identity, Sigmoid, Tanh, Relu] {
            assert!(activation.of(f32::NAN).is_nan(), "{activation:?}");
        }
    }

    #[test]
    fn the_sigmoid_has_the_bits_of_libm() {
        // This checks one float in 4099; `tests/support/tests/activation.rs` checks all of them.
        for bits in (0..=u32::MAX).step_by(4099) {
            let x = f32::from_bits(bits);
            let libm = 1.0 / (1.0 + libm::expf(-x));
            assert!(
                x.is_nan() || sigmoid(x).to_bits() == libm.to_bits(),
                "{x:e}"
            );
        }
    }

    #[test]
    fn derivatives_are_slopes() {
        use Activation::*;
        for activation in [Identity, Sigmoid, Tanh, Relu] {
            for x in [-2.0f32, -0.5, 0.25, 1.5] {
                let slope = (activation.of(x + 1e-2) - activation.of(x - 1e-2)) / 2e-2;
                let derivative = activation.derivative(activation.of(x));
                assert!((slope - derivative).abs() < 1e-4, "{activation:?} at {x}");
            }
        }
    }
}
