//! The dense weight gradient: the steps of the forward pass transposed, 16 images at a time.

use super::super::pool::{OutputGrad, POOL};
use super::super::simd::{Kernel, LANES, Lanewise, Simd, load_all, part, part_mut, store_all};
use super::super::winograd::{self, K, OUTPUTS, POINTS, products_grad};
use super::{BackwardScratch, Sums};
use bytemuck::Zeroable;
use lenet_core::layer::{Layered, Pool};

/// The intermediate results of the dense weight gradient, for `N` lanes.
#[derive(Clone, Copy, Zeroable)]
#[repr(C, align(64))]
pub(super) struct Dense<const N: usize, const M: usize, const HP: usize> {
    /// The values at each point, for the columns that four outputs read; always zero in the padding.
    values: [[[f32; N]; HP]; POINTS],
    /// The gradient of the products at each point, for some maps; always zero below the last row of outputs.
    products: [[[[f32; N]; HP]; POINTS]; MAPS],
    /// The gradient of the kernels at each point.
    sums: [[[[f32; N]; K]; POINTS]; M],
    bias: [[f32; N]; M],
}

/// The largest number of maps whose dense gradient is computed together.
const MAPS: usize = 2;

/// Computes the weight gradient, and with mean pooling the bias gradient, of 16 images.
///
/// # Numerics
/// The sums at a point add their terms by four columns of outputs, and within these by row, fused. Then the lanes of the lower
/// half are added pairwise by halves, and those of the upper half likewise. With mean pooling, the bias gradient is the sum of
/// the gradient of the products at the point 1, in the same order.
pub(super) struct GradDense<
    'a,
    L,
    const M: usize,
    const H: usize,
    const W: usize,
    const HP: usize,
    const CH: usize,
    const CW: usize,
    const PH: usize,
    const PW: usize,
> {
    pub image: &'a [[[u8; LANES]; W]; H],
    pub grad: OutputGrad<'a, L, M, CH, CW, PH, PW>,
    /// Overwritten.
    pub sums: &'a mut Sums<M>,
    /// Overwritten.
    pub scratch: &'a mut BackwardScratch<M, H, HP, PH, PW>,
}

impl<
    L: Layered,
    const M: usize,
    const H: usize,
    const W: usize,
    const HP: usize,
    const CH: usize,
    const CW: usize,
    const PH: usize,
    const PW: usize,
> Kernel for GradDense<'_, L, M, H, W, HP, CH, CW, PH, PW>
{
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self {
            image,
            grad,
            sums,
            scratch,
        } = self;
        if S::WIDE {
            dense::<_, S, MAPS, _, M, H, W, HP, CH, CW, PH, PW>(
                s,
                0,
                image,
                grad,
                sums,
                &mut scratch.whole,
            );
        } else {
            for n in 0..2 {
                let scratch = &mut scratch.half;
                dense::<_, S::Half, 1, _, M, H, W, HP, CH, CW, PH, PW>(
                    s.half(),
                    n,
                    image,
                    grad,
                    sums,
                    scratch,
                );
            }
        }
    }
}

/// Computes part `n` of the lanes, `T` maps at a time.
#[inline(always)]
fn dense<
    const N: usize,
    S: Lanewise<N>,
    const T: usize,
    L: Layered,
    const M: usize,
    const H: usize,
    const W: usize,
    const HP: usize,
    const CH: usize,
    const CW: usize,
    const PH: usize,
    const PW: usize,
>(
    s: S,
    n: usize,
    image: &[[[u8; LANES]; W]; H],
    grad: OutputGrad<'_, L, M, CH, CW, PH, PW>,
    sums: &mut Sums<M>,
    scratch: &mut Dense<N, M, HP>,
) {
    const BLACK: &[u8; LANES] = &[0; LANES];
    let padding = const { L::LAYER.padding };
    for sum in scratch.sums.as_flattened_mut().as_flattened_mut() {
        s.store(s.splat(0.0), sum);
    }
    for sum in &mut scratch.bias {
        s.store(s.splat(0.0), sum);
    }
    for first in (0..CW).step_by(OUTPUTS) {
        for (y, row) in image.iter().enumerate() {
            let mut inputs = [s.splat(0.0); POINTS];
            for (x, input) in inputs.iter_mut().enumerate() {
                let pixel = row.get((first + x).wrapping_sub(padding)).unwrap_or(BLACK);
                *input = s.load_bytes(part(pixel, n));
            }
            let to = scratch
                .values
                .each_mut()
                .map(|values| &mut values[y + padding]);
            store_all(s, winograd::values(s, inputs), to);
        }
        for m in (0..M / T * T).step_by(T) {
            dense_maps::<N, S, T, L, M, HP, CH, CW, PH, PW>(s, n, first, m, grad, scratch);
        }
        for m in M / T * T..M {
            dense_maps::<N, S, 1, L, M, HP, CH, CW, PH, PW>(s, n, first, m, grad, scratch);
        }
    }
    for (sums, all) in scratch.sums.iter().zip(&mut sums.weight) {
        for (i, all) in all.iter_mut().enumerate() {
            let points = sums.each_ref().map(|sums| &sums[i]);
            s.add_sums(load_all(s, points), all);
        }
    }
    if let Pool::Average(_) = const { L::LAYER.pool } {
        for (sum, to) in scratch.bias.iter().zip(&mut sums.bias) {
            *part_mut(to, n) = *sum;
        }
    }
}

/// Adds the terms of `T` maps at four columns of outputs.
#[inline(always)]
fn dense_maps<
    const N: usize,
    S: Lanewise<N>,
    const T: usize,
    L: Layered,
    const M: usize,
    const HP: usize,
    const CH: usize,
    const CW: usize,
    const PH: usize,
    const PW: usize,
>(
    s: S,
    n: usize,
    first: usize,
    m: usize,
    grad: OutputGrad<'_, L, M, CH, CW, PH, PW>,
    scratch: &mut Dense<N, M, HP>,
) {
    let Dense {
        values,
        products,
        sums,
        bias,
    } = scratch;
    let products: &mut [_; T] = products.first_chunk_mut().expect("at most MAPS");
    for (t, products) in products.iter_mut().enumerate() {
        for y in 0..CH / POOL {
            let left: [[_; POOL]; POOL] = grad.block(s, n, [m + t, y, first / POOL]);
            let right: [[_; POOL]; POOL] = grad.block(s, n, [m + t, y, first / POOL + 1]);
            for i in 0..POOL {
                let row = [left[i][0], left[i][1], right[i][0], right[i][1]];
                let to = products.each_mut().map(|row| &mut row[POOL * y + i]);
                store_all(s, products_grad(s, row), to);
            }
        }
        if let Pool::Average(_) = const { L::LAYER.pool } {
            let mut sum = s.load(&bias[m + t]);
            for product in &products[1][..CH] {
                sum = s.add(sum, s.load(product));
            }
            s.store(sum, &mut bias[m + t]);
        }
    }
    for p in 0..POINTS {
        let mut acc = [[s.splat(0.0); K]; T];
        // The gradient at this row of inputs, and at the rows above it.
        let mut above = [[s.splat(0.0); K]; T];
        for t in 0..T {
            acc[t] = load_all(s, sums[m + t][p].each_ref());
        }
        for y in 0..HP {
            let value = s.load(&values[p][y]);
            for t in 0..T {
                let [g0, g1, g2, g3, _] = above[t];
                above[t] = [s.load(&products[t][p][y]), g0, g1, g2, g3];
                for i in 0..K {
                    acc[t][i] = s.mul_add(above[t][i], value, acc[t][i]);
                }
            }
        }
        for t in 0..T {
            store_all(s, acc[t], sums[m + t][p].each_mut());
        }
    }
}
