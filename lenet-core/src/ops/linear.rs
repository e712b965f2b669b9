//! Fully connected layer.

/// `out[o] = bias[o] + Σ input[i] · weight[o][i]`.
///
/// # Shapes
/// * `input`: `(IN)`
/// * `weight`: `(OUT, IN)`
/// * `bias`: `(OUT)`
/// * `out`: `(OUT)`; overwritten
///
/// # Numerics
/// f32, summed from the bias upward in `i`, without fused multiply-add. Error against exact arithmetic is at most
/// `γ·(|bias| + Σ|input·weight|)`, with `γ ≈ (IN + 1)·2⁻²⁴`. NaN and infinity propagate.
///
/// # Cost
/// `OUT·IN` multiply-adds; no scratch memory.
///
/// # Source
/// Same definition as `torch.nn.Linear`.
pub fn linear<const IN: usize, const OUT: usize>(
    input: &[f32; IN],
    weight: &[[f32; IN]; OUT],
    bias: &[f32; OUT],
    out: &mut [f32; OUT],
) {
    for ((out, weight), &bias) in out.iter_mut().zip(weight).zip(bias) {
        let mut sum = bias;
        for (&input, &weight) in input.iter().zip(weight) {
            sum += input * weight;
        }
        *out = sum;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_the_weight_are_outputs() {
        let mut out = [0.0; 3];
        linear(
            &[1.0, 10.0],
            &[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]],
            &[0.0, 0.5, 0.0],
            &mut out,
        );
        assert_eq!(out, [21.0, 43.5, 65.0]);
    }

    #[test]
    fn the_sum_starts_from_the_bias() {
        // 1 + 2^24 - 2^24 is 0 or 1 by the order of its terms; from the bias upward it is 0.
        let mut out = [0.0];
        linear(
            &[1.0, 1.0],
            &[[16_777_216.0, -16_777_216.0]],
            &[1.0],
            &mut out,
        );
        assert_eq!(out, [0.0]);
    }
}
