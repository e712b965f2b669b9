//! The forward pass: evaluates the pixels at the points, multiplies them by the kernels, and converts the sums to pooled
//! outputs, four columns at a time.

use super::super::activation::activate;
use super::super::pool::{POOL, Trace, pool_block};
use super::super::simd::{
    Kernel, LANES, Lanes, Lanewise, Simd, by_parts, load_all, part, part_mut,
};
use super::super::winograd::{self, K, OUTPUTS, POINTS, outputs};
use super::{Kernels, can_do};
use bytemuck::Zeroable;
use lenet_core::layer::{Layered, Pool};
use std::marker::PhantomData;

/// The intermediate results of the forward pass. `HP` is the height with the padding.
#[derive(Clone, Copy, Zeroable)]
#[repr(C, align(64))]
pub struct ForwardScratch<const M: usize, const HP: usize> {
    /// The values at each point, for the columns that four outputs read; always zero in the padding.
    values: [[Lanes; HP]; POINTS],
    /// The sums at each point, for the upper and the lower row of two blocks.
    sums: [[[Lanes; M]; POINTS]; POOL],
}

/// The forward pass. With `TRAIN` it writes what the backward pass needs.
///
/// # Numerics
/// The sum at a point adds its terms by row of the kernel, fused.
pub(in crate::cpu) struct Forward<
    'a,
    L,
    const TRAIN: bool,
    const M: usize,
    const H: usize,
    const W: usize,
    const HP: usize,
    const CH: usize,
    const CW: usize,
    const PH: usize,
    const PW: usize,
> {
    pub layer: PhantomData<L>,
    /// The stored pixels.
    pub image: &'a [[[u8; LANES]; W]; H],
    /// Made by [`transform_kernels`](super::transform_kernels).
    pub kernels: &'a Kernels<M>,
    pub bias: &'a [f32; M],
    /// Overwritten.
    pub out: &'a mut [[[Lanes; PW]; PH]; M],
    /// Overwritten with `TRAIN`, else unchanged.
    pub trace: &'a mut Trace<M, CH, CW, PH, PW>,
    /// Overwritten.
    pub scratch: &'a mut ForwardScratch<M, HP>,
}

impl<
    L: Layered,
    const TRAIN: bool,
    const M: usize,
    const H: usize,
    const W: usize,
    const HP: usize,
    const CH: usize,
    const CW: usize,
    const PH: usize,
    const PW: usize,
> Kernel for Forward<'_, L, TRAIN, M, H, W, HP, CH, CW, PH, PW>
{
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        const {
            assert!(can_do(&L::LAYER));
            assert!(HP == H + 2 * L::LAYER.padding && CH + K == HP + 1);
            assert!(CW + K == W + 2 * L::LAYER.padding + 1);
        }
        let ForwardScratch { values, sums } = self.scratch;
        for first in (0..CW).step_by(OUTPUTS) {
            evaluate_columns::<L, S, H, W, HP>(s, self.image, first, values);
            for y in 0..CH / POOL {
                for (p, (kernels, values)) in self.kernels.iter().zip(&*values).enumerate() {
                    let rows = values[POOL * y..].first_chunk().expect("inside");
                    let sums = sums.each_mut().map(|sums| &mut sums[p]);
                    if S::WIDE {
                        multiply::<S, M, 6>(s, kernels, rows, sums);
                    } else {
                        multiply::<S, M, 2>(s, kernels, rows, sums);
                    }
                }
                let (out, trace) = (&mut *self.out, &mut *self.trace);
                let (layer, bias) = (self.layer, self.bias);
                pool_row::<LANES, _, _, TRAIN, M, CH, CW, PH, PW>(
                    s, 0, layer, sums, bias, y, first, out, trace,
                );
            }
            // This runs separately: each window is a long chain of operations, so as many as possible must run side by side.
            let window = const { L::LAYER.pool.window() };
            let columns = first / window..PW.min((first + OUTPUTS) / window);
            match const { L::LAYER.pool } {
                Pool::Average(_) => {}
                _ => {
                    for map in &mut *self.out {
                        for row in map {
                            for out in &mut row[columns.clone()] {
                                let value = activate(s, const { L::LAYER.activation }, s.load(out));
                                s.store(value, out);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Computes the values at each point, for the columns that the outputs from `first` on read.
#[inline(always)]
fn evaluate_columns<L: Layered, S: Simd, const H: usize, const W: usize, const HP: usize>(
    s: S,
    image: &[[[u8; LANES]; W]; H],
    first: usize,
    values: &mut [[Lanes; HP]; POINTS],
) {
    const BLACK: &[u8; LANES] = &[0; LANES];
    let padding = const { L::LAYER.padding };
    for (y, row) in image.iter().enumerate() {
        let pixels: [&[u8; LANES]; POINTS] = if padding == 0 && W.is_multiple_of(OUTPUTS) {
            let pixels: &[_; POINTS] = row[first..].first_chunk().expect("inside");
            pixels.each_ref()
        } else {
            std::array::from_fn(|x| row.get((first + x).wrapping_sub(padding)).unwrap_or(BLACK))
        };
        let mut values = values.each_mut().map(|values| &mut values[y + padding]);
        by_parts!(s, evaluate(pixels, &mut values));
    }
}

/// Computes the values at each point, for pixels in a row and part `n` of the lanes.
#[inline(always)]
fn evaluate<const N: usize, S: Lanewise<N>>(
    s: S,
    n: usize,
    pixels: [&[u8; LANES]; POINTS],
    values: &mut [&mut Lanes; POINTS],
) {
    let mut inputs = [s.splat(0.0); POINTS];
    for (input, pixel) in inputs.iter_mut().zip(pixels) {
        *input = s.load_bytes(part(pixel, n));
    }
    for (value, to) in winograd::values(s, inputs).into_iter().zip(values) {
        s.store(value, part_mut(to, n));
    }
}

/// Computes the pooled outputs of two rows of four outputs from their sums at the points, for part `n` of the lanes.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn pool_row<
    const N: usize,
    S: Lanewise<N>,
    L: Layered,
    const TRAIN: bool,
    const M: usize,
    const CH: usize,
    const CW: usize,
    const PH: usize,
    const PW: usize,
>(
    s: S,
    n: usize,
    layer: PhantomData<L>,
    [upper, lower]: &[[[Lanes; M]; POINTS]; POOL],
    bias: &[f32; M],
    y: usize,
    first: usize,
    out: &mut [[[Lanes; PW]; PH]; M],
    trace: &mut Trace<M, CH, CW, PH, PW>,
) {
    for m in 0..M {
        let sums = upper.each_ref().map(|sums| part(&sums[m], n));
        let [a0, a1, a2, a3] = outputs(s, load_all(s, sums));
        let sums = lower.each_ref().map(|sums| part(&sums[m], n));
        let [b0, b1, b2, b3] = outputs(s, load_all(s, sums));
        for (l, block) in [[[a0, a1], [b0, b1]], [[a2, a3], [b2, b3]]]
            .into_iter()
            .enumerate()
        {
            let x = first / POOL + l;
            if CW.is_multiple_of(OUTPUTS) || POOL * x < CW {
                let at = [m, y, x];
                pool_block::<L, TRAIN, N, S, M, CH, CW, PH, PW>(
                    layer, s, n, block, bias[m], at, out, trace,
                );
            }
        }
    }
}

/// Computes the sums over the kernel's rows at one point, for two rows of outputs, in tiles of `T` maps.
#[inline(always)]
fn multiply<S: Simd, const M: usize, const T: usize>(
    s: S,
    kernels: &[[f32; K]; M],
    rows: &[Lanes; K + POOL - 1],
    [upper, lower]: [&mut [Lanes; M]; POOL],
) {
    let (kernels, last_kernels) = kernels.as_chunks::<T>();
    let (upper, last_upper) = upper.as_chunks_mut::<T>();
    let (lower, last_lower) = lower.as_chunks_mut::<T>();
    for (kernels, sums) in kernels.iter().zip(upper.iter_mut().zip(lower)) {
        multiply_tile(s, kernels, rows, sums);
    }
    let last = last_upper.as_chunks_mut::<1>().0.iter_mut();
    let last = last.zip(last_lower.as_chunks_mut::<1>().0);
    for (kernels, sums) in last_kernels.as_chunks::<1>().0.iter().zip(last) {
        multiply_tile(s, kernels, rows, sums);
    }
}

/// Computes the sums over the kernel's rows at one point, for two rows of outputs and `T` maps.
#[inline(always)]
fn multiply_tile<S: Simd, const T: usize>(
    s: S,
    kernels: &[[f32; K]; T],
    rows: &[Lanes; K + POOL - 1],
    (upper, lower): (&mut [Lanes; T], &mut [Lanes; T]),
) {
    let mut acc = [[s.splat(0.0); POOL]; T];
    // The upper row reads next what the lower row reads now.
    let mut value = s.load(&rows[0]);
    for i in 0..K {
        let next = s.load(&rows[i + 1]);
        for t in 0..T {
            let kernel = s.splat(kernels[t][i]);
            acc[t][0] = s.mul_add(value, kernel, acc[t][0]);
            acc[t][1] = s.mul_add(next, kernel, acc[t][1]);
        }
        value = next;
    }
    for t in 0..T {
        s.store(acc[t][0], &mut upper[t]);
        s.store(acc[t][1], &mut lower[t]);
    }
}
