//! The logistic function.

/// `1 / (1 + exp(-x))`, with `exp` from libm on every target.
///
/// # Numerics
/// Checked over all 2³² floats against f64 (`tests/tests/sigmoid.rs`): monotone, in 0..=1, NaN stays NaN; the error is at
/// most 9·10⁻⁸, and at most 2.5 units in the last place where the exact value is a normal number (x > -87.3). Below
/// that the result is subnormal, and 0 once `exp(-x)` overflows (x < -88.7).
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + libm::expf(-x))
}

/// [`sigmoid`] of each element.
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
}
