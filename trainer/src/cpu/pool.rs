//! The max-pool's windows of 2x2, of sixteen images.

use super::simd::Lanewise;
use crate::lenet::POOL;

/// The largest value of a window and the bias, and with `WINNER` who that is: 0 to 3 in row order, of equal values the first.
#[inline(always)]
pub(super) fn pool<const N: usize, S: Lanewise<N>, const WINNER: bool>(
    s: S,
    [[a, b], [c, d]]: [&[[f32; N]; POOL]; POOL],
    bias: f32,
    out: &mut [f32; N],
    winner: &mut [u8; N],
) {
    let [a, b, c, d] = [s.load(a), s.load(b), s.load(c), s.load(d)];
    let [upper, lower] = [s.max(b, a), s.max(d, c)];
    s.store(s.add(s.max(lower, upper), s.splat(bias)), out);
    if WINNER {
        let [zero, one] = [s.splat(0.0), s.splat(1.0)];
        let in_upper = s.select_gt(b, a, one, zero);
        let in_lower = s.add(s.splat(2.0), s.select_gt(d, c, one, zero));
        s.store_bytes(s.select_gt(lower, upper, in_lower, in_upper), winner);
    }
}

/// The gradient by a window's four values, of which the winner's is not zero.
#[inline(always)]
pub(super) fn unpool<const N: usize, S: Lanewise<N>>(
    s: S,
    grad: &[f32; N],
    winner: &[u8; N],
) -> [[S::V; POOL]; POOL] {
    let (grad, winner, zero) = (s.load(grad), s.load_bytes(winner), s.splat(0.0));
    let lower = s.select_gt(winner, s.splat(1.0), grad, zero);
    let upper = s.sub(grad, lower);
    let right = [
        s.select_gt(winner, zero, upper, zero),
        s.select_gt(winner, s.splat(2.0), lower, zero),
    ];
    [
        [s.sub(upper, right[0]), right[0]],
        [s.sub(lower, right[1]), right[1]],
    ]
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::lenet::K;

    /// Asserts of one of a convolution's windows, after the pool and the sigmoid, that it is the largest of its four values by
    /// the definition, in f64, and that the largest, or one as good, won.
    ///
    /// # Shapes
    /// * `weight`: `(IN, K, K)`
    /// * `input`: by channel, row and column
    /// * `at`: the window's row and column
    pub(in super::super) fn assert_window<const IN: usize>(
        weight: &[[[f32; K]; K]; IN],
        bias: f32,
        input: impl Fn(usize, usize, usize) -> f64,
        at: [usize; 2],
        (out, winner): (f32, u8),
    ) {
        let values: [f64; POOL * POOL] = std::array::from_fn(|position| {
            let (top, left) = (2 * at[0] + position / 2, 2 * at[1] + position % 2);
            let mut sum = f64::from(bias);
            for (c, kernel) in weight.iter().enumerate() {
                for (i, row) in kernel.iter().enumerate() {
                    for (j, &tap) in row.iter().enumerate() {
                        sum += f64::from(tap) * input(c, top + i, left + j);
                    }
                }
            }
            sum
        });
        let largest = values.into_iter().fold(f64::NEG_INFINITY, f64::max);
        let error = f64::from(out) - 1.0 / (1.0 + (-largest).exp());
        assert!(error.abs() < 4e-7, "{at:?}: {error:e}");
        let chosen = values[usize::from(winner)];
        assert!(largest - chosen < 2e-6, "{at:?}: {winner} of {values:?}");
    }
}
