//! The backward pass: the steps of the forward pass transposed, from the gradient of the pooled outputs to those of the
//! parameters and of the input.

use super::super::pool::{GradBias, OutputGrad, POOL, Trace};
use super::super::simd::{
    HalfLanes, Isa, Kernel, LANES, Lanes, Lanewise, Simd, load_all, part_mut, store_all,
};
use super::super::winograd::{
    OUTPUTS, POINTS, evaluate_grad, input_grad, interpolate_grad, products_grad,
};
use super::forward::{evaluate_columns, evaluate_rows};
use super::{
    Buffers, Columns, IN, Kernels, OUT, Products, Rows, Scratch, Sums, Values, by_tiles, exact,
};
use lenet_core::layer::{Layered, Pool};
use std::marker::PhantomData;

/// Computes the gradients of the parameters and of the input, of one group, from the gradient of the pooled output, which it
/// overwrites.
#[allow(clippy::too_many_arguments)]
pub(in crate::cpu) fn backward<
    L: Layered,
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
    const MB: usize,
    const CB: usize,
>(
    isa: Isa,
    layer: PhantomData<L>,
    input: &[[[Lanes; W]; H]; C],
    kernels: &Kernels<M, C>,
    out: &[[[Lanes; PW]; PH]; M],
    trace: &Trace<M, CH, CW, PH, PW>,
    grad: &mut [[[Lanes; PW]; PH]; M],
    sums: &mut Sums<M, MB, CB>,
    grad_input: Option<&mut [[[Lanes; W]; H]; C]>,
    scratch: &mut Scratch<M, C, TH, TW, WT>,
) {
    for part in sums.parts_mut() {
        part.fill(0.0);
    }
    isa.run(GradBias {
        layer,
        out,
        grad,
        sums: &mut sums.bias,
    });
    isa.run(Backward {
        input,
        kernels,
        grad: OutputGrad { layer, grad, trace },
        sums,
        grad_input,
        scratch,
    });
}

/// Computes the weight and input gradients, and with mean pooling the bias gradient, of one group.
///
/// # Numerics
/// At each point, the kernels' sums add their terms by tile, and those of the input by output map, fused. With mean pooling,
/// the bias gradient is the sum of the gradient of the products at the point (1, 1), by tile.
struct Backward<
    'a,
    L,
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
    const MB: usize,
    const CB: usize,
> {
    input: &'a [[[Lanes; W]; H]; C],
    /// Made by [`transform_kernels`](super::transform_kernels).
    kernels: &'a Kernels<M, C>,
    grad: OutputGrad<'a, L, M, CH, CW, PH, PW>,
    /// The sums to which the gradient is added.
    sums: &'a mut Sums<M, MB, CB>,
    /// The gradient of `input`; overwritten.
    grad_input: Option<&'a mut [[[Lanes; W]; H]; C]>,
    /// Overwritten.
    scratch: &'a mut Scratch<M, C, TH, TW, WT>,
}

impl<
    L: Layered,
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
    const MB: usize,
    const CB: usize,
> Kernel for Backward<'_, L, M, C, H, W, CH, CW, PH, PW, TH, TW, WT, MB, CB>
{
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        const { assert!(MB == M.div_ceil(OUT) && CB == C.div_ceil(IN)) }
        let Self {
            input,
            kernels,
            grad,
            sums,
            mut grad_input,
            scratch: Scratch { whole, half },
        } = self;
        if S::WIDE {
            unpool_columns(s, 0, grad, &mut whole.rows);
            let grad_input = grad_input.as_deref_mut();
            backward_part(s, 0, grad.layer, input, kernels, whole, sums, grad_input);
        } else {
            let s = s.half();
            for n in 0..2 {
                unpool_columns(s, n, grad, &mut half.rows);
                let grad_input = grad_input.as_deref_mut();
                backward_part(s, n, grad.layer, input, kernels, half, sums, grad_input);
            }
        }
    }
}

/// Runs the backward pass from the gradient of rows of outputs at the points of y, for part `n` of the lanes.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn backward_part<
    const N: usize,
    S: Lanewise<N>,
    L: Layered,
    const M: usize,
    const C: usize,
    const H: usize,
    const W: usize,
    const TH: usize,
    const TW: usize,
    const WT: usize,
    const MB: usize,
    const CB: usize,
>(
    s: S,
    n: usize,
    layer: PhantomData<L>,
    input: &[[[Lanes; W]; H]; C],
    kernels: &Kernels<M, C>,
    buffers: &mut Buffers<N, M, C, TH, TW, WT>,
    sums: &mut Sums<M, MB, CB>,
    grad_input: Option<&mut [[[Lanes; W]; H]; C]>,
) {
    let Buffers {
        columns,
        values,
        products,
        rows,
        values_grad,
        columns_grad,
        ..
    } = buffers;
    for (top, columns) in columns.iter_mut().enumerate() {
        evaluate_columns(s, n, layer, input, top, columns);
    }
    for y in 0..POINTS {
        for top in 0..TH {
            for left in 0..TW {
                evaluate_rows(s, &columns[top][y], left, &mut values[top][left]);
                interpolate_rows_grad(s, &rows[top][left][y], &mut products[top][left]);
            }
        }
        if let (1, Pool::Average(_)) = (y, const { L::LAYER.pool }) {
            for (m, sum) in sums.bias.iter_mut().enumerate() {
                let sum: &mut [f32; N] = part_mut(sum, n);
                let mut acc = s.load(sum);
                for products in products.as_flattened() {
                    acc = s.add(acc, s.load(&products[1][m]));
                }
                s.store(acc, sum);
            }
        }
        for (x, (kernels, sums)) in kernels[y].iter().zip(&mut sums.kernels[y]).enumerate() {
            if grad_input.is_some() {
                for (products, grad) in products.iter().zip(&mut *values_grad) {
                    multiply_back(s, kernels, x, products, grad);
                }
            }
            let values = values.as_flattened().iter().map(|values| &values[x]);
            let products = products.as_flattened().iter().map(|products| &products[x]);
            multiply_kernels(s, values.zip(products), sums);
        }
        if grad_input.is_some() {
            for (top, grad) in values_grad.iter().enumerate() {
                for (left, grad) in grad.iter().enumerate() {
                    evaluate_rows_grad(s, grad, left, &mut columns_grad[top][y]);
                }
            }
        }
    }
    if let Some(grad_input) = grad_input {
        for (top, columns) in columns_grad.iter().enumerate() {
            evaluate_columns_grad(s, n, layer, columns, top, grad_input);
        }
    }
}

/// Converts the gradient of the pooled outputs to that of rows of outputs at the points of y, for part `n` of the lanes.
#[inline(always)]
fn unpool_columns<
    const N: usize,
    S: Lanewise<N>,
    L: Layered,
    const M: usize,
    const CH: usize,
    const CW: usize,
    const PH: usize,
    const PW: usize,
    const TH: usize,
    const TW: usize,
>(
    s: S,
    n: usize,
    grad: OutputGrad<'_, L, M, CH, CW, PH, PW>,
    rows: &mut [[[Rows<N, M>; POINTS]; TW]; TH],
) {
    const BLOCKS: usize = OUTPUTS / POOL;
    for (tile, rows) in rows.as_flattened_mut().iter_mut().enumerate() {
        let (top, left) = (tile / TW * BLOCKS, tile % TW * BLOCKS);
        for m in 0..M {
            for l in 0..BLOCKS {
                let upper: [[_; POOL]; POOL] = grad.block(s, n, [m, top, left + l]);
                let lower: [[_; POOL]; POOL] = grad.block(s, n, [m, top + 1, left + l]);
                for i in 0..POOL {
                    let column = [upper[0][i], upper[1][i], lower[0][i], lower[1][i]];
                    let rows = rows.each_mut().map(|row| &mut row.maps[m][POOL * l + i]);
                    store_all(s, products_grad(s, column), rows);
                }
            }
        }
    }
}

/// Computes the gradient of a tile's products at a point of y from that of rows of outputs.
#[inline(always)]
fn interpolate_rows_grad<const N: usize, S: Lanewise<N>, const M: usize>(
    s: S,
    rows: &Rows<N, M>,
    products: &mut Products<N, M>,
) {
    for (m, row) in rows.maps.iter().enumerate() {
        let products = products.each_mut().map(|products| &mut products[m]);
        interpolate_grad(s, row.each_ref(), products);
    }
}

/// Computes the gradient of columns at a point of y from that of a tile's values.
#[inline(always)]
fn evaluate_rows_grad<const N: usize, S: Lanewise<N>, const C: usize, const WT: usize>(
    s: S,
    values: &Values<N, C>,
    left: usize,
    columns: &mut [[[f32; N]; C]; WT],
) {
    let columns: &mut [_; POINTS] = columns[left * OUTPUTS..].first_chunk_mut().expect("inside");
    for c in 0..C {
        let values = values.each_ref().map(|values| &values[c]);
        let columns = columns.each_mut().map(|column: &mut [_; C]| &mut column[c]);
        evaluate_grad(s, values, shared(left), columns);
    }
}

/// Computes the input gradient from that of the columns of a row of tiles, for part `n` of the lanes.
#[inline(always)]
fn evaluate_columns_grad<
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
    columns: &Columns<N, C, WT>,
    top: usize,
    input: &mut [[[Lanes; W]; H]; C],
) {
    let padding = const { L::LAYER.padding };
    for (c, input) in input.iter_mut().enumerate() {
        for x in 0..WT {
            let columns = columns.each_ref().map(|row| &row[x][c]);
            if const { exact(&L::LAYER) } {
                let rows: &mut [[Lanes; W]; POINTS] =
                    input[top * OUTPUTS..].first_chunk_mut().expect("inside");
                let rows = rows.each_mut().map(|row| part_mut(&mut row[x], n));
                evaluate_grad(s, columns, shared(top), rows);
                continue;
            }
            let grad = input_grad(s, load_all(s, columns));
            for (y, grad) in grad.into_iter().enumerate() {
                let row = input.get_mut((top * OUTPUTS + y).wrapping_sub(padding));
                if let Some(to) = row.and_then(|row| row.get_mut(x.wrapping_sub(padding))) {
                    let to: &mut [f32; N] = part_mut(to, n);
                    let before = s.load(to);
                    let is_shared = y < shared(top);
                    s.store(if is_shared { s.add(before, grad) } else { grad }, to);
                }
            }
        }
    }
}

/// Returns how many of a tile's rows or columns of inputs belong to the previous tile, too.
fn shared(tile: usize) -> usize {
    if tile > 0 { POINTS - OUTPUTS } else { 0 }
}

/// Computes the gradient of the values at the point `x`, for the tiles of a row: sums over the output maps.
#[inline(always)]
fn multiply_back<
    const N: usize,
    S: Lanewise<N>,
    const M: usize,
    const C: usize,
    const TW: usize,
>(
    s: S,
    kernels: &[[f32; C]; M],
    x: usize,
    products: &[Products<N, M>; TW],
    grad: &mut [Values<N, C>; TW],
) {
    by_tiles!(left, TW => T: {
        let products: &[_; T] = products[left..].first_chunk().expect("inside");
        let products = products.each_ref().map(|products| &products[x]);
        let grad: &mut [_; T] = grad[left..].first_chunk_mut().expect("inside");
        let mut grad = grad.each_mut().map(|grad| &mut grad[x]);
        // The number of channels at a time: as many sums as fit the registers.
        if T == 3 && N < LANES {
            multiply_back_blocks::<N, S, 3, T, M, C>(s, kernels, products, &mut grad);
        } else {
            multiply_back_blocks::<N, S, 6, T, M, C>(s, kernels, products, &mut grad);
        }
    });
}

/// Computes the gradient of the values at one point, for all channels, `B` at a time, and `T` tiles.
#[inline(always)]
fn multiply_back_blocks<
    const N: usize,
    S: Lanewise<N>,
    const B: usize,
    const T: usize,
    const M: usize,
    const C: usize,
>(
    s: S,
    kernels: &[[f32; C]; M],
    products: [&[[f32; N]; M]; T],
    grad: &mut [&mut [[f32; N]; C]; T],
) {
    for c in (0..C / B * B).step_by(B) {
        multiply_back_channels::<N, S, B, T, M, C>(s, kernels, c, products, grad);
    }
    let c = C / B * B;
    match const { C % B } {
        1 => multiply_back_channels::<N, S, 1, T, M, C>(s, kernels, c, products, grad),
        2 => multiply_back_channels::<N, S, 2, T, M, C>(s, kernels, c, products, grad),
        3 => multiply_back_channels::<N, S, 3, T, M, C>(s, kernels, c, products, grad),
        4 => multiply_back_channels::<N, S, 4, T, M, C>(s, kernels, c, products, grad),
        5 => multiply_back_channels::<N, S, 5, T, M, C>(s, kernels, c, products, grad),
        _ => {}
    }
}

/// Computes the gradient of the values at one point, for `B` channels and `T` tiles: sums over the output maps.
#[inline(always)]
fn multiply_back_channels<
    const N: usize,
    S: Lanewise<N>,
    const B: usize,
    const T: usize,
    const M: usize,
    const C: usize,
>(
    s: S,
    kernels: &[[f32; C]; M],
    c: usize,
    products: [&[[f32; N]; M]; T],
    grad: &mut [&mut [[f32; N]; C]; T],
) {
    let mut acc = [[s.splat(0.0); B]; T];
    for (m, kernels) in kernels.iter().enumerate() {
        let kernels: &[f32; B] = kernels[c..].first_chunk().expect("inside");
        let mut product = [s.splat(0.0); T];
        for t in 0..T {
            product[t] = s.load(&products[t][m]);
        }
        for b in 0..B {
            let kernel = s.splat(kernels[b]);
            for t in 0..T {
                acc[t][b] = s.mul_add(product[t], kernel, acc[t][b]);
            }
        }
    }
    for t in 0..T {
        let grad: &mut [_; B] = grad[t][c..].first_chunk_mut().expect("inside");
        for b in 0..B {
            s.store(acc[t][b], &mut grad[b]);
        }
    }
}

/// Adds the gradient of the kernels at one point: sums over tiles, then over lanes.
#[inline(always)]
fn multiply_kernels<
    'a,
    const N: usize,
    S: Lanewise<N>,
    const M: usize,
    const C: usize,
    const MB: usize,
    const CB: usize,
>(
    s: S,
    tiles: impl Iterator<Item = (&'a [[f32; N]; C], &'a [[f32; N]; M])> + Clone,
    sums: &mut [[HalfLanes; CB]; MB],
) {
    for (o, sums) in sums.iter_mut().enumerate() {
        for (c, sums) in sums.iter_mut().enumerate() {
            let mut acc = [s.splat(0.0); OUT * IN];
            for (values, products) in tiles.clone() {
                let product = block::<N, S, M, OUT>(s, products, o);
                let value = block::<N, S, C, IN>(s, values, c);
                for j in 0..IN {
                    for i in 0..OUT {
                        acc[i * IN + j] = s.mul_add(product[i], value[j], acc[i * IN + j]);
                    }
                }
            }
            s.add_sums(acc, sums);
        }
    }
}

/// Loads block `b` of `B` maps or channels at a point, padded with zeros.
#[inline(always)]
fn block<const N: usize, S: Lanewise<N>, const M: usize, const B: usize>(
    s: S,
    all: &[[f32; N]; M],
    b: usize,
) -> [S::V; B] {
    let (blocks, last) = all.as_chunks::<B>();
    if M.is_multiple_of(B) || b < M / B {
        return load_all(s, blocks[b].each_ref());
    }
    let mut vectors = [s.splat(0.0); B];
    for (vector, from) in vectors.iter_mut().zip(last) {
        *vector = s.load(from);
    }
    vectors
}
