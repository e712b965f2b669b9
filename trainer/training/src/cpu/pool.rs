//! Pooling of 2x2 blocks of sums, and its gradient, for algorithms that compute several sums of a convolution together.
//!
//! **Numerics.** The maximum is taken before the activation, which is monotone; of equal values the first in row order wins.
//! The mean is taken after the activation: the window is summed in row order and divided.

use super::activation::{activate, activate_grad};
use super::simd::{Kernel, LANES, Lanes, Lanewise, Simd, part, part_mut};
use bytemuck::Zeroable;
use lenet_core::layer::{Layered, Pool};
use std::marker::PhantomData;

/// The side length of a block.
pub(super) const POOL: usize = 2;

/// Returns whether the functions here implement this pooling.
pub(super) const fn is_known(pool: Pool) -> bool {
    matches!(pool, Pool::Whole | Pool::Max(POOL) | Pool::Average(POOL))
}

/// The data that the backward pass of pooling needs. Memory that a kind of pooling does not use is never touched.
#[derive(Clone, Copy, Zeroable)]
#[repr(C, align(64))]
pub struct Trace<const M: usize, const CH: usize, const CW: usize, const PH: usize, const PW: usize>
{
    /// With max pooling: the position of each window's maximum, 0 to 3 in row order.
    pub(super) winner: [[[[u8; LANES]; PW]; PH]; M],
    /// With mean pooling: the outputs of the activation.
    values: [[[Lanes; CW]; CH]; M],
}

/// Pools the block of map `m` at block row `y` and block column `x`, for part `n` of the lanes. The activation is applied here
/// only with mean pooling.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub(super) fn pool_block<
    L: Layered,
    const TRAIN: bool,
    const N: usize,
    S: Lanewise<N>,
    const M: usize,
    const CH: usize,
    const CW: usize,
    const PH: usize,
    const PW: usize,
>(
    _: PhantomData<L>,
    s: S,
    n: usize,
    block: [[S::V; POOL]; POOL],
    bias: f32,
    [m, y, x]: [usize; 3],
    out: &mut [[[Lanes; PW]; PH]; M],
    trace: &mut Trace<M, CH, CW, PH, PW>,
) {
    match const { L::LAYER.pool } {
        Pool::Max(_) => {
            let winner = part_mut(&mut trace.winner[m][y][x], n);
            pool::<_, _, TRAIN>(s, block, bias, part_mut(&mut out[m][y][x], n), winner);
        }
        Pool::Average(_) => {
            let mut sum = s.splat(0.0);
            for (i, row) in block.into_iter().enumerate() {
                for (j, value) in row.into_iter().enumerate() {
                    let value = s.add(value, s.splat(bias));
                    let value = activate(s, const { L::LAYER.activation }, value);
                    sum = if i + j == 0 { value } else { s.add(sum, value) };
                    if TRAIN {
                        let to = &mut trace.values[m][POOL * y + i][POOL * x + j];
                        s.store(value, part_mut(to, n));
                    }
                }
            }
            let mean = s.mul(sum, s.splat(const { 1.0 / (POOL * POOL) as f32 }));
            s.store(mean, part_mut(&mut out[m][y][x], n));
        }
        Pool::Whole => {
            for (i, values) in block.into_iter().enumerate() {
                for (j, value) in values.into_iter().enumerate() {
                    let row = out[m].get_mut(POOL * y + i);
                    if let Some(out) = row.and_then(|row| row.get_mut(POOL * x + j)) {
                        s.store(s.add(value, s.splat(bias)), part_mut(out, n));
                    }
                }
            }
        }
    }
}

/// The gradient of a layer's output.
#[derive(Clone, Copy)]
pub(super) struct OutputGrad<
    'a,
    L,
    const M: usize,
    const CH: usize,
    const CW: usize,
    const PH: usize,
    const PW: usize,
> {
    pub layer: PhantomData<L>,
    /// The gradient of the pooled output (before the activation, unless pooling is by mean).
    pub grad: &'a [[[Lanes; PW]; PH]; M],
    pub trace: &'a Trace<M, CH, CW, PH, PW>,
}

impl<L: Layered, const M: usize, const CH: usize, const CW: usize, const PH: usize, const PW: usize>
    OutputGrad<'_, L, M, CH, CW, PH, PW>
{
    /// Returns the gradient of the sums of the block of map `m` at block row `y` and block column `x`, for part `n` of the
    /// lanes. It is zero for sums outside the output.
    #[inline(always)]
    pub(super) fn block<const N: usize, S: Lanewise<N>>(
        &self,
        s: S,
        n: usize,
        [m, y, x]: [usize; 3],
    ) -> [[S::V; POOL]; POOL] {
        let mut block = [[s.splat(0.0); POOL]; POOL];
        match const { L::LAYER.pool } {
            Pool::Max(_) if y < PH && x < PW => {
                let winner = part(&self.trace.winner[m][y][x], n);
                return unpool(s, part(&self.grad[m][y][x], n), winner);
            }
            Pool::Average(_) if y < PH && x < PW => {
                let grad = s.load(part(&self.grad[m][y][x], n));
                let share = s.mul(grad, s.splat(const { 1.0 / (POOL * POOL) as f32 }));
                for (i, row) in block.iter_mut().enumerate() {
                    for (j, by_sum) in row.iter_mut().enumerate() {
                        let value = &self.trace.values[m][POOL * y + i][POOL * x + j];
                        let activation = const { L::LAYER.activation };
                        *by_sum = activate_grad(s, activation, s.load(part(value, n)), share);
                    }
                }
            }
            Pool::Whole => {
                for (i, row) in block.iter_mut().enumerate() {
                    for (j, by_sum) in row.iter_mut().enumerate() {
                        let row = self.grad[m].get(POOL * y + i);
                        if let Some(grad) = row.and_then(|row| row.get(POOL * x + j)) {
                            *by_sum = s.load(part(grad, n));
                        }
                    }
                }
            }
            _ => {}
        }
        block
    }
}

/// Computes the maximum of a window, plus the bias. With `WINNER` also its position, 0 to 3 in row order, of equal values the
/// first.
#[inline(always)]
fn pool<const N: usize, S: Lanewise<N>, const WINNER: bool>(
    s: S,
    [[a, b], [c, d]]: [[S::V; POOL]; POOL],
    bias: f32,
    out: &mut [f32; N],
    winner: &mut [u8; N],
) {
    let [upper, lower] = [s.max(b, a), s.max(d, c)];
    s.store(s.add(s.max(lower, upper), s.splat(bias)), out);
    if WINNER {
        let [zero, one] = [s.splat(0.0), s.splat(1.0)];
        let in_upper = s.select_gt(b, a, one, zero);
        let in_lower = s.add(s.splat(2.0), s.select_gt(d, c, one, zero));
        s.store_bytes(s.select_gt(lower, upper, in_lower, in_upper), winner);
    }
}

/// Returns the gradient of a window's four values, which is zero except for the winner's.
#[inline(always)]
fn unpool<const N: usize, S: Lanewise<N>>(
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

/// Converts the gradient of the pooled output to that before the activation, and sums it over each map to the bias gradient.
/// With mean pooling it does nothing.
pub(super) struct GradBias<'a, L, const M: usize, const PH: usize, const PW: usize> {
    pub layer: PhantomData<L>,
    /// The output of the activation.
    pub out: &'a [[[Lanes; PW]; PH]; M],
    pub grad: &'a mut [[[Lanes; PW]; PH]; M],
    /// Overwritten.
    pub sums: &'a mut [Lanes; M],
}

impl<L: Layered, const M: usize, const PH: usize, const PW: usize> Kernel
    for GradBias<'_, L, M, PH, PW>
{
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        /// The number of maps at a time, so that one addition does not wait for another.
        const TILE: usize = 2;

        #[inline(always)]
        fn maps<L: Layered, S: Simd, const T: usize, const PH: usize, const PW: usize>(
            s: S,
            out: &[[[Lanes; PW]; PH]; T],
            grad: &mut [[[Lanes; PW]; PH]; T],
            sums: &mut [Lanes; T],
        ) {
            let outs = out.each_ref().map(|map| map.as_flattened());
            let grads = grad.each_mut().map(|map| map.as_flattened_mut());
            let mut acc = [s.splat(0.0); T];
            for k in 0..PH * PW {
                for t in 0..T {
                    let (out, grad) = (s.load(&outs[t][k]), s.load(&grads[t][k]));
                    let by_sum = activate_grad(s, const { L::LAYER.activation }, out, grad);
                    acc[t] = s.add(acc[t], by_sum);
                    s.store(by_sum, &mut grads[t][k]);
                }
            }
            for t in 0..T {
                s.store(acc[t], &mut sums[t]);
            }
        }

        if let Pool::Average(_) = const { L::LAYER.pool } {
            return;
        }
        let (outs, last_out) = self.out.as_chunks::<TILE>();
        let (grads, last_grad) = self.grad.as_chunks_mut::<TILE>();
        let (sums, last_sum) = self.sums.as_chunks_mut::<TILE>();
        for ((out, grad), sums) in outs.iter().zip(grads).zip(sums) {
            maps::<L, S, TILE, PH, PW>(s, out, grad, sums);
        }
        let (outs, grads) = (
            last_out.as_chunks::<1>().0,
            last_grad.as_chunks_mut::<1>().0,
        );
        let sums = last_sum.as_chunks_mut::<1>().0;
        for ((out, grad), sums) in outs.iter().zip(grads).zip(sums) {
            maps::<L, S, 1, PH, PW>(s, out, grad, sums);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::winograd::K;
    use super::*;

    /// Asserts that one output, after max pooling and the sigmoid, is the largest of its window's four values, computed in f64
    /// by the definition, and that the winner is that value or one as good.
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
