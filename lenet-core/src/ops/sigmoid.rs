//! The logistic function.

/// `1 / (1 + exp(-x))`, with the bits of `libm::expf` on every target.
///
/// # Numerics
/// Checked over all 2³² floats against f64 (`tests/tests/sigmoid.rs`): monotone, in 0..=1, NaN stays NaN; the error is at
/// most 9·10⁻⁸, and at most 2.5 units in the last place where the exact value is a normal number (x > -87.3). Below
/// that the result is subnormal, and 0 once `exp(-x)` overflows (x < -88.7).
#[cfg_attr(not(target_arch = "arm"), inline(always))]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

#[cfg(target_arch = "arm")]
use libm::expf as exp;

/// `libm::expf` down to exp(-87), which is all that a sigmoid shows of it, but without branches: hosts then compute four
/// sigmoids at a time, in less than half the time. A Cortex-M, which does not, takes 23 instructions more this way.
///
/// Method: `exp(t) = 2ᵏ·exp(r)` with `k = t / ln 2` rounded, so that `|r| ≤ ln 2 / 2`, and for `exp(r)` the rational
/// function of FreeBSD's `e_expf.c`, which is libm's, with its constants.
#[cfg(not(target_arch = "arm"))]
#[inline(always)]
fn exp(t: f32) -> f32 {
    use core::f32::consts::LOG2_E;
    // ln 2 in two parts; k times the first is exact.
    const LN_2_HIGH: f32 = 0.693_145_75;
    const LN_2_LOW: f32 = 1.428_606_8e-6;
    const P1: f32 = 0.166_666_25;
    const P2: f32 = -2.766_733_3e-3;
    // 2⁻¹³: up to here exp(t) is 1 + t.
    const TINY: f32 = 1.220_703_1e-4;
    // 1.5·2²³: added and taken away again, it rounds to a whole number, which the sum has in its low bits.
    const ROUND: f32 = 12_582_912.0;

    // exp(89) is infinite. A NaN passes.
    let t = if t > 89.0 { 89.0 } else { t };
    let t = if t < -87.0 { -87.0 } else { t };

    // Half away from zero, then what this went too far.
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

    // 2ᵏ in two factors, as k reaches 128.
    let k = (k + ROUND).to_bits().wrapping_sub(ROUND.to_bits()) as i32;
    let power_of_two = |k: i32| f32::from_bits((k.wrapping_add(127) as u32) << 23);
    exp_r * power_of_two(k >> 1) * power_of_two(k.wrapping_sub(k >> 1))
}

/// [`sigmoid`] of each element.
#[cfg_attr(not(target_arch = "arm"), inline(always))]
pub fn sigmoid_in_place(values: &mut [f32]) {
    for value in values {
        *value = sigmoid(*value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        assert_eq!(sigmoid(0.0), 0.5);
        assert_eq!(sigmoid(f32::INFINITY), 1.0);
        assert_eq!(sigmoid(f32::NEG_INFINITY), 0.0);
        assert!(sigmoid(f32::NAN).is_nan());
        assert!((sigmoid(1.0) - 0.731_058_6).abs() < 1e-7);
    }

    #[test]
    fn hosts_and_boards_agree() {
        // Of every 4099 floats one; `tests/tests/sigmoid.rs` takes all.
        for bits in (0..=u32::MAX).step_by(4099) {
            let x = f32::from_bits(bits);
            let board = 1.0 / (1.0 + libm::expf(-x));
            assert!(
                x.is_nan() || sigmoid(x).to_bits() == board.to_bits(),
                "{x:e}"
            );
        }
    }
}
