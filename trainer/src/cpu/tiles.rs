//! A convolution of 16 images, with its pooling and activation, and its gradients, by [`winograd`](super::winograd)'s algorithm
//! along both sides.
//!
//! A tile is four by four outputs, and the eight by eight inputs that they read. Its inputs are evaluated along one side, then
//! along the other, at eight by eight points. Each product needs the values at one point only:
//!
//! ```text
//! values     d(y, x): input (8, 8, C)    -> columns at the points of y -> rows at the points of x
//! products   m(y, x) = Σ d(y, x) · g(y, x) over the input's channels, at each of 64 points
//! outputs    m(y, x): products (8, 8, M) -> rows (8, 4)                -> columns (4, 4)
//! ```
//!
//! This takes 64 products where the definition takes 400. The sums are over channels only: each row of points is converted back
//! to outputs at once, while it is in the L1 cache. If the outputs are no multiple of a tile, the last tile of a row or column
//! computes some that are not outputs, and reads zeros, as do tiles at the border of an input with padding.
//!
//! The backward pass takes the same steps transposed, from last to first. The gradient of a kernel at a point is the product of
//! the values and the gradient of the products there. It is converted to the 25 taps once per step. With max pooling, only a
//! window's winner has a gradient, so 100 of the definition's 400 products are not zero. The 64 products here need no separate
//! pass over each image.

use super::activation::Activate;
use super::pool::{GradBias, OutputGrad, POOL, Trace, is_known, pool_block};
use super::simd::{
    HALF, HalfLanes, Isa, Kernel, LANES, Lanes, Lanewise, Simd, load_all, part, part_mut,
    store_all, sum_lanes,
};
use super::winograd::{
    K, OUTPUTS, POINTS, at_points, at_points_grad, evaluate, evaluate_grad, input_grad,
    interpolate, interpolate_grad, outputs, products_grad,
};
use bytemuck::Zeroable;
use lenet_core::layer::{Layered, Pool};
use lenet_core::plan::{Kind, Layer};
use std::marker::PhantomData;

/// Returns whether this algorithm can compute a layer.
pub(super) const fn can_do(layer: &Layer) -> bool {
    matches!(layer.kind, Kind::Conv2d) && layer.kernel == K && is_known(layer.pool)
}

/// The kernels at each point: `(POINTS, POINTS, M, C)`.
pub(super) type Kernels<const M: usize, const C: usize> = [[[[f32; C]; M]; POINTS]; POINTS];

/// The inputs of all columns of a row of tiles, at the points of y: `(POINTS, WT, C, N)`. `WT` is the width that the tiles
/// read.
type Columns<const N: usize, const C: usize, const WT: usize> = [[[[f32; N]; C]; WT]; POINTS];

/// The inputs of a tile at one point of y: `(POINTS, C, N)`.
type Values<const N: usize, const C: usize> = [[[f32; N]; C]; POINTS];

/// The sums of a tile at one point of y: `(POINTS, M, N)`.
type Products<const N: usize, const M: usize> = [[[f32; N]; M]; POINTS];

/// The rows of outputs of a tile at one point of y: `(M, OUTPUTS, N)`.
#[derive(Clone, Copy, Zeroable)]
#[repr(C)]
struct Rows<const N: usize, const M: usize> {
    maps: [[[f32; N]; OUTPUTS]; M],
    /// Padding, so that values written together do not compete for a few sets of the cache.
    gap: [[f32; N]; OUTPUTS],
}

/// Computes the kernels at each point, in f64 with one rounding at the end.
pub(super) fn transform_kernels<const M: usize, const C: usize>(
    weight: &[[[[f32; K]; K]; C]; M],
    kernels: &mut Kernels<M, C>,
) {
    for (m, weight) in weight.iter().enumerate() {
        // At the points of y, for each column of the kernel.
        let mut columns = [[[0.0; C]; K]; POINTS];
        for j in 0..K {
            let mut taps = [[0.0; C]; K];
            for (i, taps) in taps.iter_mut().enumerate() {
                for (tap, kernel) in taps.iter_mut().zip(weight) {
                    *tap = f64::from(kernel[i][j]);
                }
            }
            for (column, values) in columns.iter_mut().zip(at_points(&taps)) {
                column[j] = values;
            }
        }
        for (row, kernels) in columns.iter().zip(&mut *kernels) {
            for (values, kernels) in at_points(row).iter().zip(kernels) {
                kernels[m] = values.map(|value| value as f32);
            }
        }
    }
}

/// The number of output maps whose kernel gradient is summed together. With `IN` input channels, these are eight pairs.
pub(super) const OUT: usize = 4;
pub(super) const IN: usize = 2;

/// The gradient of the kernels at each point: `(POINTS, POINTS, M / OUT, C / IN, (OUT, IN))`, with both quotients rounded up.
type KernelSums<const MB: usize, const CB: usize> = [[[[HalfLanes; CB]; MB]; POINTS]; POINTS];

/// The gradients of the parameters, summed over one group of images.
#[derive(Clone, Copy, Zeroable)]
#[repr(C, align(64))]
pub struct Sums<const M: usize, const MB: usize, const CB: usize> {
    kernels: KernelSums<MB, CB>,
    /// `(M, LANES)`
    bias: [Lanes; M],
}

impl<const M: usize, const MB: usize, const CB: usize> Sums<M, MB, CB> {
    /// Returns the sums as slices, to which those of another group are added.
    pub(super) fn parts(&self) -> [&[f32]; 2] {
        let kernels = self.kernels.as_flattened().as_flattened().as_flattened();
        [kernels.as_flattened(), self.bias.as_flattened()]
    }

    /// Returns the same as [`parts`](Self::parts), mutably.
    pub(super) fn parts_mut(&mut self) -> [&mut [f32]; 2] {
        let kernels = self.kernels.as_flattened_mut().as_flattened_mut();
        let kernels = kernels.as_flattened_mut().as_flattened_mut();
        [kernels, self.bias.as_flattened_mut()]
    }

    /// Computes the weight gradient from that of its values at the points, in f64 with one rounding at the end.
    pub(super) fn weight<const C: usize>(&self, weight: &mut [[[[f32; K]; K]; C]; M]) {
        for (m, weight) in weight.iter_mut().enumerate() {
            // For each column of the kernel, at the points of y.
            let mut columns = [[[0.0; C]; POINTS]; K];
            for (y, kernels) in self.kernels.iter().enumerate() {
                let mut values = [[0.0; C]; POINTS];
                for (values, kernels) in values.iter_mut().zip(kernels) {
                    for (c, value) in values.iter_mut().enumerate() {
                        let sums = &kernels[m / OUT][c / IN];
                        *value = f64::from(sums[m % OUT * IN + c % IN]);
                    }
                }
                for (column, taps) in columns.iter_mut().zip(at_points_grad(&values)) {
                    column[y] = taps;
                }
            }
            for (j, column) in columns.iter().enumerate() {
                for (i, taps) in at_points_grad(column).iter().enumerate() {
                    for (kernel, &tap) in weight.iter_mut().zip(taps) {
                        kernel[i][j] = tap as f32;
                    }
                }
            }
        }
    }

    /// Returns the bias gradient.
    pub(super) fn bias(&self) -> [f32; M] {
        self.bias.map(sum_lanes)
    }
}

/// The intermediate results of the passes, for `N` lanes.
#[derive(Clone, Copy, Zeroable)]
#[repr(C, align(64))]
struct Buffers<
    const N: usize,
    const M: usize,
    const C: usize,
    const TH: usize,
    const TW: usize,
    const WT: usize,
> {
    /// For each row of tiles.
    columns: [Columns<N, C, WT>; TH],
    /// For each tile.
    values: [[Values<N, C>; TW]; TH],
    /// For each tile; in the backward pass their gradient.
    products: [[Products<N, M>; TW]; TH],
    /// For each tile, at the points of y; in the backward pass their gradient.
    rows: [[[Rows<N, M>; POINTS]; TW]; TH],
    /// The gradient of each tile's values.
    values_grad: [[Values<N, C>; TW]; TH],
    /// The gradient of the columns of each row of tiles.
    columns_grad: [Columns<N, C, WT>; TH],
}

/// The intermediate results of the passes. If there are enough registers, the passes compute all lanes at once, else one half
/// and then the other, which uses less memory at a time.
#[derive(Clone, Copy, Zeroable)]
#[repr(C, align(64))]
pub struct Scratch<
    const M: usize,
    const C: usize,
    const TH: usize,
    const TW: usize,
    const WT: usize,
> {
    whole: Buffers<LANES, M, C, TH, TW, WT>,
    half: Buffers<HALF, M, C, TH, TW, WT>,
}

/// Returns whether every tile is whole and inside the input.
const fn exact(layer: &Layer) -> bool {
    let [_, height, width] = layer.convolved();
    layer.padding == 0 && height.is_multiple_of(OUTPUTS) && width.is_multiple_of(OUTPUTS)
}

/// Returns whether a block of rows or columns belongs to the outputs.
#[inline(always)]
fn is_inside<L: Layered>(y: usize, x: usize) -> bool {
    let [_, height, width] = const { L::LAYER.convolved() };
    let exact = const { exact(&L::LAYER) };
    exact || (POOL * y < height && POOL * x < width)
}

/// The forward pass. With `TRAIN` it writes what the backward pass needs.
///
/// # Numerics
/// The sum at a point adds its terms by channel, fused.
pub(super) struct Forward<
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
    /// Made by [`transform_kernels`].
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

/// Evaluates all columns of a row of tiles at the points of y, for part `n` of the lanes.
#[inline(always)]
fn evaluate_columns<
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
fn evaluate_rows<const N: usize, S: Lanewise<N>, const C: usize, const WT: usize>(
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

/// Calls a function with a constant number of tiles, for the tiles of a row from `left` on: two, or at the end three or one.
macro_rules! by_tiles {
    ($left:ident, $tiles:ident => $T:ident: $call:expr) => {
        let mut $left = 0;
        while $left < $tiles {
            match $tiles - $left {
                1 => {
                    const $T: usize = 1;
                    $call
                }
                3 => {
                    const $T: usize = 3;
                    $call
                }
                _ => {
                    const $T: usize = 2;
                    $call
                }
            }
            $left += match $tiles - $left {
                tiles @ (1 | 3) => tiles,
                _ => 2,
            };
        }
    };
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

/// Computes the gradients of the parameters and of the input, of one group, from the gradient of the pooled output, which it
/// overwrites.
#[allow(clippy::too_many_arguments)]
pub(super) fn backward<
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
    /// Made by [`transform_kernels`].
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

#[cfg(test)]
mod tests {
    use super::super::pool::tests::assert_window;
    use super::*;
    use crate::dataset::generator;
    use bytemuck::zeroed_box;
    use lenet_core::layer::Activation;
    use lenet_core::layer::conv2d::Spec;
    use rand_chacha::rand_core::Rng;

    #[derive(Clone, Copy)]
    struct This;

    impl Layered for This {
        const LAYER: Layer = Spec {
            maps: 16,
            kernel: K,
            padding: 0,
            pool: Pool::Max(2),
            activation: Activation::Sigmoid,
        }
        .layer("this", [6, 12, 12]);
    }

    type Input = [[[Lanes; 12]; 12]; 6];
    type Output = [[[Lanes; 4]; 4]; 16];
    type TraceOf = Trace<16, 8, 8, 4, 4>;
    type ScratchOf = Scratch<16, 6, 2, 2, 12>;
    type Weight = [[[[f32; K]; K]; 6]; 16];

    /// Returns weights in -0.08..0.08, and biases.
    fn params() -> (Box<Weight>, [f32; 16]) {
        let mut rng = generator(2, 0);
        let mut next = || (rng.next_u32() as f32 / u32::MAX as f32 - 0.5) * 0.16;
        let mut weight: Box<Weight> = zeroed_box();
        let taps = weight
            .as_flattened_mut()
            .as_flattened_mut()
            .as_flattened_mut();
        taps.fill_with(&mut next);
        (weight, std::array::from_fn(|_| next()))
    }

    /// Returns the outputs and the winners.
    fn run(isa: Isa, input: &Input) -> (Box<Output>, Box<TraceOf>) {
        let (weight, bias) = params();
        let (mut kernels, mut scratch) = (zeroed_box(), zeroed_box::<ScratchOf>());
        transform_kernels(&weight, &mut kernels);
        let (mut out, mut trace) = (zeroed_box(), zeroed_box());
        isa.run(Forward::<_, true, _, _, _, _, _, _, _, _, _, _, _> {
            layer: PhantomData::<This>,
            input,
            kernels: &kernels,
            bias: &bias,
            out: &mut out,
            trace: &mut trace,
            scratch: &mut scratch,
        });
        (out, trace)
    }

    /// Returns noise in 0..1.
    fn random_input() -> Box<Input> {
        let mut rng = generator(0, 0);
        let mut input: Box<Input> = zeroed_box();
        for lanes in input.as_flattened_mut().as_flattened_mut() {
            *lanes = std::array::from_fn(|_| rng.next_u32() as f32 / u32::MAX as f32);
        }
        input
    }

    #[test]
    fn forward_is_its_definition() {
        let ((weight, bias), input) = (params(), random_input());
        for isa in Isa::every() {
            let (out, trace) = run(isa, &input);
            for m in 0..16 {
                for (at, (out, winner)) in (out[m].as_flattened().iter())
                    .zip(trace.winner[m].as_flattened())
                    .enumerate()
                {
                    let lane = (at + m) % LANES;
                    let value = |c: usize, y: usize, x: usize| f64::from(input[c][y][x][lane]);
                    let found = (out[lane], winner[lane]);
                    assert_window(&weight[m], bias[m], value, [at / 4, at % 4], found);
                }
            }
        }
    }

    /// On pictures that are flat, or change along one side only, the first of equal values wins.
    #[test]
    fn ties_stay_ties() {
        let pictures: [fn(usize, usize) -> f32; 3] = [
            |_, _| 0.377,
            |y, _| (y as f32 * 0.7).sin().abs(),
            |_, x| (x as f32 * 0.7).sin().abs(),
        ];
        let may_win: [&[u8]; 3] = [&[0], &[0, 2], &[0, 1]];
        for (picture, may_win) in pictures.into_iter().zip(may_win) {
            let mut input: Box<Input> = zeroed_box();
            for map in &mut *input {
                *map = std::array::from_fn(|y| std::array::from_fn(|x| [picture(y, x); LANES]));
            }
            for isa in Isa::every() {
                let (_, trace) = run(isa, &input);
                let winners = trace.winner.as_flattened().as_flattened().as_flattened();
                let mut winners = winners.iter();
                assert!(winners.all(|winner| may_win.contains(winner)), "{isa:?}");
            }
        }
    }
}
