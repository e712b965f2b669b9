//! The forward pass: evaluates the inputs of each tile at the points, multiplies them by the kernels, and converts the sums to
//! pooled outputs.

use super::super::activation::Activate;
use super::super::pool::{POOL, Trace, pool_block};
use super::super::simd::{HALF, Kernel, LANES, Lanes, Lanewise, Simd, load_all, part};
use super::super::winograd::{K, OUTPUTS, POINTS, evaluate, interpolate, outputs};
use super::{Buffers, Columns, Kernels, Products, Scratch, Values, by_tiles, can_do, exact};
use lenet_core::layer::{Layered, Pool};
use std::marker::PhantomData;

/// The forward pass. With `TRAIN` it writes what the backward pass needs.
///
/// # Numerics
/// The sum at a point adds its terms by channel, fused.
pub(in crate::cpu) struct Forward<
    'a,
    L,
    const TRAIN: bool,
    const M: usize,
    const C: usize,
    const H: usize,
    const W: usize,
    const CH: usize,
    const CW: usize,
    const PH: usize,
    const PW: usize,
    const TH: usize,
    const TW: usize,
    const WT: usize,
> {
    pub layer: PhantomData<L>,
    pub input: &'a [[[Lanes; W]; H]; C],
    /// Made by [`transform_kernels`](super::transform_kernels).
    pub kernels: &'a Kernels<M, C>,
    pub bias: &'a [f32; M],
    /// Overwritten.
    pub out: &'a mut [[[Lanes; PW]; PH]; M],
    /// Overwritten with `TRAIN`, else unchanged.
    pub trace: &'a mut Trace<M, CH, CW, PH, PW>,
    /// Overwritten.
    pub scratch: &'a mut Scratch<M, C, TH, TW, WT>,
}

impl<
    L: Layered,
    const TRAIN: bool,
    const M: usize,
    const C: usize,
    const H: usize,
    const W: usize,
    const CH: usize,
    const CW: usize,
    const PH: usize,
    const PW: usize,
    const TH: usize,
    const TW: usize,
    const WT: usize,
> Kernel for Forward<'_, L, TRAIN, M, C, H, W, CH, CW, PH, PW, TH, TW, WT>
{
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        const {
            assert!(can_do(&L::LAYER));
            let [m, ch, cw] = L::LAYER.convolved();
            assert!(m == M && ch == CH && cw == CW && CH + K == H + 2 * L::LAYER.padding + 1);
            assert!(TH == CH.div_ceil(OUTPUTS) && TW == CW.div_ceil(OUTPUTS));
            assert!(WT == TW * OUTPUTS + K - 1);
        }
        if S::WIDE {
            let whole = &mut self.scratch.whole;
            forward::<LANES, S, L, TRAIN, M, C, H, W, CH, CW, PH, PW, TH, TW, WT>(
                s,
                0,
                self.layer,
                self.input,
                self.kernels,
                self.bias,
                whole,
                self.out,
                self.trace,
            );
        } else {
            for n in 0..2 {
                let half = &mut self.scratch.half;
                forward::<HALF, S::Half, L, TRAIN, M, C, H, W, CH, CW, PH, PW, TH, TW, WT>(
                    s.half(),
                    n,
                    self.layer,
                    self.input,
                    self.kernels,
                    self.bias,
                    half,
                    self.out,
                    self.trace,
                );
            }
        }
        match const { L::LAYER.pool } {
            Pool::Average(_) => {}
            _ => Activate {
                activation: const { L::LAYER.activation },
                values: self.out.as_flattened_mut().as_flattened_mut(),
            }
            .run(s),
        }
    }
}

/// Computes the pooled outputs, for part `n` of the lanes.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn forward<
    const N: usize,
    S: Lanewise<N>,
    L: Layered,
    const TRAIN: bool,
    const M: usize,
    const C: usize,
    const H: usize,
    const W: usize,
    const CH: usize,
    const CW: usize,
    const PH: usize,
    const PW: usize,
    const TH: usize,
    const TW: usize,
    const WT: usize,
>(
    s: S,
    n: usize,
    layer: PhantomData<L>,
    input: &[[[Lanes; W]; H]; C],
    kernels: &Kernels<M, C>,
    bias: &[f32; M],
    buffers: &mut Buffers<N, M, C, TH, TW, WT>,
    out: &mut [[[Lanes; PW]; PH]; M],
    trace: &mut Trace<M, CH, CW, PH, PW>,
) {
    let Buffers {
        columns,
        values,
        products,
        rows,
        ..
    } = buffers;
    let (columns, values) = (&mut columns[0], &mut values[0]);
    let (products, rows) = (&mut products[0], &mut rows[0]);
    for top in 0..TH {
        evaluate_columns(s, n, layer, input, top, columns);
        for (y, (columns, kernels)) in columns.iter().zip(kernels).enumerate() {
            for (left, values) in values.iter_mut().enumerate() {
                evaluate_rows(s, columns, left, values);
            }
            for (x, kernels) in kernels.iter().enumerate() {
                multiply(s, kernels, x, values, products);
            }
            for (products, rows) in products.iter().zip(&mut *rows) {
                for (m, row) in rows[y].maps.iter_mut().enumerate() {
                    let products = products.each_ref().map(|products| &products[m]);
                    interpolate(s, products, row.each_mut());
                }
            }
        }
        for (left, rows) in rows.iter().enumerate() {
            for (m, &bias) in bias.iter().enumerate() {
                let mut columns = [[s.splat(0.0); OUTPUTS]; OUTPUTS];
                for (x, to) in columns.iter_mut().enumerate() {
                    let column = rows.each_ref().map(|row| &row.maps[m][x]);
                    *to = outputs(s, load_all(s, column));
                }
                for k in 0..OUTPUTS / POOL {
                    for l in 0..OUTPUTS / POOL {
                        let (y, x) = (top * (OUTPUTS / POOL) + k, left * (OUTPUTS / POOL) + l);
                        if is_inside::<L>(y, x) {
                            let (left, right) = (columns[POOL * l], columns[POOL * l + 1]);
                            let block = [
                                [left[POOL * k], right[POOL * k]],
                                [left[POOL * k + 1], right[POOL * k + 1]],
                            ];
                            pool_block::<L, TRAIN, N, S, M, CH, CW, PH, PW>(
                                layer,
                                s,
                                n,
                                block,
                                bias,
                                [m, y, x],
                                out,
                                trace,
                            );
                        }
                    }
                }
            }
        }
    }
}

/// Returns whether a block of rows or columns belongs to the outputs.
#[inline(always)]
fn is_inside<L: Layered>(y: usize, x: usize) -> bool {
    let [_, height, width] = const { L::LAYER.convolved() };
    let exact = const { exact(&L::LAYER) };
    exact || (POOL * y < height && POOL * x < width)
}

/// Evaluates all columns of a row of tiles at the points of y, for part `n` of the lanes.
#[inline(always)]
pub(super) fn evaluate_columns<
    const N: usize,
    S: Lanewise<N>,
    L: Layered,
    const C: usize,
    const H: usize,
    const W: usize,
    const WT: usize,
>(
    s: S,
    n: usize,
    _: PhantomData<L>,
    input: &[[[Lanes; W]; H]; C],
    top: usize,
    columns: &mut Columns<N, C, WT>,
) {
    const ZERO: &Lanes = &[0.0; LANES];
    let padding = const { L::LAYER.padding };
    for (c, input) in input.iter().enumerate() {
        for x in 0..WT {
            let inputs: [_; POINTS] = if const { exact(&L::LAYER) } {
                let rows: &[[Lanes; W]; POINTS] =
                    input[top * OUTPUTS..].first_chunk().expect("inside");
                rows.each_ref().map(|row| part(&row[x], n))
            } else {
                std::array::from_fn(|y| {
                    let row = input.get((top * OUTPUTS + y).wrapping_sub(padding));
                    let value = row.and_then(|row| row.get(x.wrapping_sub(padding)));
                    part(value.unwrap_or(ZERO), n)
                })
            };
            evaluate(s, inputs, columns.each_mut().map(|row| &mut row[x][c]));
        }
    }
}

/// Evaluates a tile's columns, which are at a point of y, at the points of x.
#[inline(always)]
pub(super) fn evaluate_rows<const N: usize, S: Lanewise<N>, const C: usize, const WT: usize>(
    s: S,
    columns: &[[[f32; N]; C]; WT],
    left: usize,
    values: &mut Values<N, C>,
) {
    let columns: &[_; POINTS] = columns[left * OUTPUTS..].first_chunk().expect("inside");
    for c in 0..C {
        let inputs = columns.each_ref().map(|column: &[_; C]| &column[c]);
        evaluate(s, inputs, values.each_mut().map(|values| &mut values[c]));
    }
}

/// Computes the sums over channels at the point `x`, for the tiles of a row.
#[inline(always)]
fn multiply<const N: usize, S: Lanewise<N>, const M: usize, const C: usize, const TW: usize>(
    s: S,
    kernels: &[[f32; C]; M],
    x: usize,
    values: &[Values<N, C>; TW],
    products: &mut [Products<N, M>; TW],
) {
    /// The number of maps at a time: enough sums to hide the latency of the multiply-adds.
    const TILE: usize = 4;
    by_tiles!(left, TW => T: {
        let values: &[_; T] = values[left..].first_chunk().expect("inside");
        let values = values.each_ref().map(|values| &values[x]);
        let products: &mut [_; T] = products[left..].first_chunk_mut().expect("inside");
        let mut products = products.each_mut().map(|products| &mut products[x]);
        for m in (0..M / TILE * TILE).step_by(TILE) {
            multiply_maps::<N, S, TILE, T, M, C>(s, kernels, m, values, &mut products);
        }
        for m in M / TILE * TILE..M {
            multiply_maps::<N, S, 1, T, M, C>(s, kernels, m, values, &mut products);
        }
    });
}

/// Computes the sums over channels at one point, for `B` maps and `T` tiles.
#[inline(always)]
fn multiply_maps<
    const N: usize,
    S: Lanewise<N>,
    const B: usize,
    const T: usize,
    const M: usize,
    const C: usize,
>(
    s: S,
    kernels: &[[f32; C]; M],
    m: usize,
    values: [&[[f32; N]; C]; T],
    products: &mut [&mut [[f32; N]; M]; T],
) {
    let kernels: &[[f32; C]; B] = kernels[m..].first_chunk().expect("inside");
    let mut acc = [[s.splat(0.0); T]; B];
    for c in 0..C {
        let mut value = [s.splat(0.0); T];
        for t in 0..T {
            value[t] = s.load(&values[t][c]);
        }
        for b in 0..B {
            let kernel = s.splat(kernels[b][c]);
            for t in 0..T {
                acc[b][t] = s.mul_add(value[t], kernel, acc[b][t]);
            }
        }
    }
    for t in 0..T {
        let products: &mut [_; B] = products[t][m..].first_chunk_mut().expect("inside");
        for b in 0..B {
            s.store(acc[b][t], &mut products[b]);
        }
    }
}
