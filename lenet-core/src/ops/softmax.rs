//! Computes the class and the probabilities from logits.

use super::activation::exp;

/// Computes `out[i] = exp(logits[i] - max) / Σ exp(logits[k] - max)`, which is positive and sums to 1 within rounding.
///
/// # Shapes
/// * `logits`, `out`: `(N)`; `out` is overwritten
///
/// # Numerics
/// The largest logit is subtracted first, so nothing overflows, and the terms are added in ascending order of `i`. Each
/// exponential is at least `exp(-87)` (1.6·10⁻³⁸). If a logit is NaN or positive infinity, the result is NaN.
///
/// # Source
/// The same definition as `torch.nn.functional.softmax`.
pub fn softmax<const N: usize>(logits: &[f32; N], out: &mut [f32; N]) {
    let largest = largest(logits);
    let mut sum = 0.0;
    for (out, &logit) in out.iter_mut().zip(logits) {
        *out = exp(logit - largest);
        sum += *out;
    }
    for out in out {
        *out /= sum;
    }
}

/// Returns the [`softmax`] probability of one class, `exp(logits[class] - max) / Σ exp(logits[k] - max)`, or 0 if there is no
/// such class.
pub fn probability(logits: &[f32], class: usize) -> f32 {
    let largest = largest(logits);
    let mut sum = 0.0;
    for &logit in logits {
        sum += exp(logit - largest);
    }
    logits
        .get(class)
        .map_or(0.0, |logit| exp(logit - largest) / sum)
}

fn largest(logits: &[f32]) -> f32 {
    let mut largest = f32::NEG_INFINITY;
    for &logit in logits {
        if logit > largest {
            largest = logit;
        }
    }
    largest
}

/// Returns the index of the largest logit, and of equal ones the first. It ignores NaN, and returns 0 if all logits are NaN.
pub fn argmax(logits: &[f32]) -> usize {
    let mut best = 0;
    let mut largest = f32::NEG_INFINITY;
    for (class, &logit) in logits.iter().enumerate() {
        if logit > largest {
            (best, largest) = (class, logit);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_logits_share_evenly_however_large() {
        let mut out = [0.0; 4];
        softmax(&[1e30; 4], &mut out);
        assert_eq!(out, [0.25; 4]);
    }

    #[test]
    fn a_difference_of_ln_3_is_three_to_one() {
        let mut out = [0.0; 2];
        softmax(&[0.0, 1.098_612_3], &mut out);
        assert!((out[0] - 0.25).abs() < 1e-6 && (out[1] - 0.75).abs() < 1e-6);
    }

    #[test]
    fn the_probability_of_one_class_is_that_of_all() {
        let logits = [0.5, -200.0, 3.0, 2.75];
        let mut out = [0.0; 4];
        softmax(&logits, &mut out);
        for (class, expected) in out.iter().enumerate() {
            assert_eq!(probability(&logits, class), *expected, "class {class}");
        }
        assert_eq!(probability(&logits, 4), 0.0);
    }

    #[test]
    fn nan_gives_nan() {
        let mut out = [0.0; 2];
        softmax(&[f32::NAN, 0.0], &mut out);
        assert!(out.iter().all(|p| p.is_nan()));
    }

    #[test]
    fn argmax_takes_the_first_of_equals() {
        assert_eq!(argmax(&[0.0, 2.0, 2.0, 1.0, 2.0]), 1);
        assert_eq!(argmax(&[-1.0; 10]), 0);
    }

    #[test]
    fn argmax_ignores_nan() {
        let mut logits = [f32::NAN; 10];
        assert_eq!(argmax(&logits), 0);
        logits[7] = -3.0;
        assert_eq!(argmax(&logits), 7);
    }
}
