//! Convolution, max-pool and sigmoid in one: what the forward pass uses.
//!
//! The sigmoid is monotone, so pooling first gives the same bits and a quarter of the exponentials; the four
//! convolution outputs of a window live in registers, so no convolution output is stored.

use super::max_pool2d::first_max;
use super::sigmoid;

/// `sigmoid(max_pool2d(conv2d(input, weight, bias)))`, bit for bit.
///
/// # Shapes
/// * `input`: `(C_IN, H, W)`
/// * `weight`: `(C_OUT, C_IN, K, K)`
/// * `bias`: `(C_OUT)`
/// * `out`: `(C_OUT, PH, PW)` with `PH = (H - K + 1) / 2`, `PW = (W - K + 1) / 2`, both exact; overwritten
///
/// # Numerics
/// As [`conv2d`](super::conv2d), [`max_pool2d`](super::max_pool2d) and [`sigmoid`].
///
/// # Cost
/// The multiply-adds of the convolution, one sigmoid per output; no scratch memory.
pub fn conv_pool_sigmoid<
    const C_IN: usize,
    const C_OUT: usize,
    const H: usize,
    const W: usize,
    const K: usize,
    const PH: usize,
    const PW: usize,
>(
    input: &[[[f32; W]; H]; C_IN],
    weight: &[[[[f32; K]; K]; C_IN]; C_OUT],
    bias: &[f32; C_OUT],
    out: &mut [[[f32; PW]; PH]; C_OUT],
) {
    const {
        assert!(
            2 * PH + K == H + 1 && 2 * PW + K == W + 1,
            "out must be ((H-K+1)/2, (W-K+1)/2)"
        )
    }
    for ((out, weight), &bias) in out.iter_mut().zip(weight).zip(bias) {
        for (y, out_row) in out.iter_mut().enumerate() {
            for (x, out) in out_row.iter_mut().enumerate() {
                let mut window = [bias; 4];
                for (input, weight) in input.iter().zip(weight) {
                    for (i, weight_row) in weight.iter().enumerate() {
                        for (j, &weight) in weight_row.iter().enumerate() {
                            for (p, sum) in window.iter_mut().enumerate() {
                                *sum += input[2 * y + i + p / 2][2 * x + j + p % 2] * weight;
                            }
                        }
                    }
                }
                *out = sigmoid(first_max(window));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{conv2d, max_pool2d, sigmoid_in_place};
    use super::*;

    #[test]
    fn equals_the_three_kernels_in_turn() {
        // H ≠ W, C_IN ≠ C_OUT, and values of both signs without a pattern.
        let mut value = 1u32;
        let mut next = || {
            value = value.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (value >> 8) as f32 / 16_777_216.0 - 0.5
        };
        let input: [[[f32; 8]; 6]; 2] =
            core::array::from_fn(|_| core::array::from_fn(|_| core::array::from_fn(|_| next())));
        let weight: [[[[f32; 3]; 3]; 2]; 5] = core::array::from_fn(|_| {
            core::array::from_fn(|_| core::array::from_fn(|_| core::array::from_fn(|_| next())))
        });
        let bias: [f32; 5] = core::array::from_fn(|_| next());

        let mut conv = [[[0.0; 6]; 4]; 5];
        let mut expected = [[[0.0; 3]; 2]; 5];
        conv2d(&input, &weight, &bias, &mut conv);
        max_pool2d(&conv, &mut expected);
        expected
            .as_flattened_mut()
            .iter_mut()
            .for_each(|row| sigmoid_in_place(row));

        let mut out = [[[0.0; 3]; 2]; 5];
        conv_pool_sigmoid(&input, &weight, &bias, &mut out);
        assert_eq!(out, expected);
    }
}
