//! conv2, its pool and its sigmoid, of sixteen images, and the way back: by [`winograd`]'s algorithm along both sides.
//!
//! A tile is four by four outputs, and the eight by eight inputs that they read; four tiles make the layer. Along one side
//! and then the other its inputs become values at eight by eight points, of which each product is at one point only:
//!
//! ```text
//! values     d(y, x): input (8, 8, C1)   -> columns at the points of y -> rows at the points of x
//! products   m(y, x) = Σ d(y, x) · g(y, x) over the input's channels, at each of 64 points
//! outputs    m(y, x): products (8, 8, C2) -> rows (8, 4)               -> columns (4, 4)
//! ```
//!
//! That is 64 products where the definition has 400, and the sums are over six channels only: each row of points goes back
//! to outputs at once, while it is in the fastest cache.
//!
//! The way back takes the same steps transposed, from last to first. The gradient by a kernel at a point is the product of
//! the values and of the products' gradient there; it goes back to the 25 taps once a step. Of a window of the pool the
//! winner alone passes a gradient on, so that the definition's 400 are 100 that are not zero. These 64 need no order of the
//! images' own.

use super::conv1::Pool1;
use super::pool::{pool, unpool};
use super::sigmoid::Sigmoid;
use super::simd::{
    HALF, HalfLanes, Kernel, LANES, Lanes, Lanewise, Simd, part, part_mut, store_all, sum_lanes,
};
use super::winograd::{
    OUTPUTS, POINTS, at_points, at_points_grad, evaluate, evaluate_grad, interpolate,
    interpolate_grad, products_grad,
};
use crate::lenet::{C1, C2, CONV2_SIDE, FLAT, K, POOL, POOL1_SIDE, POOL2_SIDE};
use bytemuck::{Pod, Zeroable};

/// Tiles a side.
const TILES: usize = CONV2_SIDE / OUTPUTS;
/// The pool's windows a side of a tile.
const WINDOWS: usize = OUTPUTS / POOL;

/// The kernels at each point: `(POINTS, POINTS, C2, C1)`.
pub(super) type Kernels = [[[[f32; C1]; C2]; POINTS]; POINTS];

/// Inputs of all columns of a row of tiles, at the points of y: `(POINTS, POOL1_SIDE, C1, N)`.
type Columns<const N: usize> = [[[[f32; N]; C1]; POOL1_SIDE]; POINTS];

/// Inputs of a tile at one point of y: `(POINTS, C1, N)`.
type Values<const N: usize> = [[[f32; N]; C1]; POINTS];

/// Sums of a tile at one point of y: `(POINTS, C2, N)`.
type Products<const N: usize> = [[[f32; N]; C2]; POINTS];

/// Rows of outputs of a tile, at the points of y: `(POINTS, C2, OUTPUTS, N)`. (A channel too many, so that what is written
/// together does not share a few places of the cache.)
type Rows<const N: usize> = [[[[f32; N]; OUTPUTS]; C2 + 1]; POINTS];

/// The kernels at each point, in f64, rounded once.
pub(super) fn set_kernels(weight: &[[[[f32; K]; K]; C1]; C2], kernels: &mut Kernels) {
    for (o, weight) in weight.iter().enumerate() {
        // (K, (K, C1))
        let mut rows = [[0.0; K * C1]; K];
        for (c, kernel) in weight.iter().enumerate() {
            for (row, taps) in rows.iter_mut().zip(kernel) {
                for (j, &tap) in taps.iter().enumerate() {
                    row[j * C1 + c] = f64::from(tap);
                }
            }
        }
        for (row, kernels) in at_points(&rows).iter().zip(&mut *kernels) {
            let row: &[[f64; C1]; K] = bytemuck::must_cast_ref(row);
            for (values, kernels) in at_points(row).iter().zip(kernels) {
                kernels[o] = values.map(|value| value as f32);
            }
        }
    }
}

/// Channels of the output and of the input whose kernels' gradient is summed at a time: eight pairs.
const OUT: usize = 4;
const IN: usize = 2;

/// The gradient by the kernels at each point: `(POINTS, POINTS, C2 / OUT, C1 / IN, (OUT, IN))`.
type KernelSums = [[[[HalfLanes; C1 / IN]; C2 / OUT]; POINTS]; POINTS];

/// The gradients by conv2's parameters over one group of images.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(super) struct Sums {
    kernels: KernelSums,
    /// `(C2, LANES)`
    bias: [Lanes; C2],
}

impl Sums {
    /// The gradient by the weight, from that by its values at the points, in f64, rounded once.
    pub(super) fn weight(&self) -> [[[[f32; K]; K]; C1]; C2] {
        let mut weight = [[[[0.0; K]; K]; C1]; C2];
        for (o, weight) in weight.iter_mut().enumerate() {
            // (POINTS, (K, C1))
            let mut rows = [[0.0; K * C1]; POINTS];
            for (row, kernels) in rows.iter_mut().zip(&self.kernels) {
                let mut values = [[0.0; C1]; POINTS];
                for (values, kernels) in values.iter_mut().zip(kernels) {
                    for (c, value) in values.iter_mut().enumerate() {
                        let sums = &kernels[o / OUT][c / IN];
                        *value = f64::from(sums[o % OUT * IN + c % IN]);
                    }
                }
                *row = bytemuck::must_cast(at_points_grad(&values));
            }
            for (i, row) in at_points_grad(&rows).iter().enumerate() {
                for (k, &tap) in row.iter().enumerate() {
                    weight[k % C1][i][k / C1] = tap as f32;
                }
            }
        }
        weight
    }

    /// The gradient by the bias.
    pub(super) fn bias(&self) -> [f32; C2] {
        self.bias.map(sum_lanes)
    }
}

/// What the passes keep on their way, `N` lanes of it.
#[derive(Clone, Copy, Zeroable)]
#[repr(C, align(64))]
struct Buffers<const N: usize> {
    /// Of each row of tiles.
    columns: [Columns<N>; TILES],
    /// Of each tile.
    values: [[Values<N>; TILES]; TILES],
    /// Of each tile; on the way back their gradient.
    products: [[Products<N>; TILES]; TILES],
    /// Of each tile; on the way back their gradient.
    rows: [[Rows<N>; TILES]; TILES],
    /// One channel's outputs of a tile.
    outputs: [[[f32; N]; OUTPUTS]; OUTPUTS],
    /// The gradient by the values of each tile.
    values_grad: [[Values<N>; TILES]; TILES],
    /// The gradient by the columns of each row of tiles.
    columns_grad: [Columns<N>; TILES],
}

/// What the passes keep on their way. They take all lanes at once where the registers suffice, else one half and then the
/// other, so that less is in use at a time.
#[derive(Clone, Copy, Zeroable)]
#[repr(C, align(64))]
pub(super) struct Scratch {
    whole: Buffers<LANES>,
    half: Buffers<HALF>,
}

/// The forward pass. With `WINNER` it tells who won each window, as the way back needs.
///
/// # Numerics
/// At each point a sum takes its terms by channel, fused. Of equal values in a window the first in row order wins.
pub(super) struct Forward<'a, const WINNER: bool> {
    pub input: &'a Pool1<Lanes>,
    /// Made by [`set_kernels`].
    pub kernels: &'a Kernels,
    pub bias: &'a [f32; C2],
    /// `(C2, POOL2_SIDE, POOL2_SIDE, LANES)`; overwritten.
    pub out: &'a mut [Lanes; FLAT],
    /// Which position of its window won, 0 to 3 in row order; laid out as `out`; overwritten with `WINNER`, else left.
    pub winner: &'a mut [[u8; LANES]; FLAT],
    /// Overwritten.
    pub scratch: &'a mut Scratch,
}

impl<const WINNER: bool> Kernel for Forward<'_, WINNER> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self {
            input,
            kernels,
            bias,
            out,
            winner,
            scratch: Scratch { whole, half },
        } = self;
        if S::WIDE {
            forward::<_, _, WINNER>(s, 0, input, kernels, bias, whole, (out, winner));
        } else {
            for n in 0..2 {
                forward::<_, _, WINNER>(s.half(), n, input, kernels, bias, half, (out, winner));
            }
        }
        Sigmoid(out).run(s);
    }
}

/// Up to the windows before the sigmoid, and who won them: part `n` of the lanes.
#[inline(always)]
fn forward<const N: usize, S: Lanewise<N>, const WINNER: bool>(
    s: S,
    n: usize,
    input: &Pool1<Lanes>,
    kernels: &Kernels,
    bias: &[f32; C2],
    buffers: &mut Buffers<N>,
    (out, winner): (&mut [Lanes; FLAT], &mut [[u8; LANES]; FLAT]),
) {
    let Buffers {
        columns: [columns, ..],
        values: [values, ..],
        products: [products, ..],
        rows: [rows, ..],
        outputs,
        ..
    } = buffers;
    for top in 0..TILES {
        evaluate_columns(s, n, input, top, columns);
        for (y, (columns, kernels)) in columns.iter().zip(kernels).enumerate() {
            for (left, values) in values.iter_mut().enumerate() {
                evaluate_rows(s, columns, left, values);
            }
            for (x, kernels) in kernels.iter().enumerate() {
                let values = values.each_ref().map(|values| &values[x]);
                let products = products.each_mut().map(|products| &mut products[x]);
                multiply(s, kernels, values, products);
            }
            for (products, rows) in products.iter().zip(&mut *rows) {
                for (o, row) in rows[y][..C2].iter_mut().enumerate() {
                    let products = products.each_ref().map(|products| &products[o]);
                    interpolate(s, products, row.each_mut());
                }
            }
        }
        for (left, rows) in rows.iter().enumerate() {
            for o in 0..C2 {
                for x in 0..OUTPUTS {
                    let column = rows.each_ref().map(|row| &row[o][x]);
                    interpolate(s, column, outputs.each_mut().map(|row| &mut row[x]));
                }
                for (at, window) in windows(o, top, left).into_iter().zip(split(outputs)) {
                    let (out, winner) = (part_mut(&mut out[at], n), part_mut(&mut winner[at], n));
                    pool::<_, _, WINNER>(s, window, bias[o], out, winner);
                }
            }
        }
    }
}

/// Where [`FLAT`] has a tile's windows of a channel, in row order.
#[inline(always)]
fn windows(o: usize, top: usize, left: usize) -> [usize; WINDOWS * WINDOWS] {
    let first = (o * POOL2_SIDE + top * WINDOWS) * POOL2_SIDE + left * WINDOWS;
    [first, first + 1, first + POOL2_SIDE, first + POOL2_SIDE + 1]
}

/// A tile's outputs by windows, in row order.
#[inline(always)]
fn split<const N: usize>(
    [a, b, c, d]: &[[[f32; N]; OUTPUTS]; OUTPUTS],
) -> [[&[[f32; N]; POOL]; POOL]; WINDOWS * WINDOWS] {
    let [a, b, c, d] = [a, b, c, d].map(|row| row.as_chunks().0);
    [
        [&a[0], &b[0]],
        [&a[1], &b[1]],
        [&c[0], &d[0]],
        [&c[1], &d[1]],
    ]
}

/// All columns of a row of tiles at the points of y: part `n` of the lanes.
#[inline(always)]
fn evaluate_columns<const N: usize, S: Lanewise<N>>(
    s: S,
    n: usize,
    input: &Pool1<Lanes>,
    top: usize,
    columns: &mut Columns<N>,
) {
    let rows: &[_; POINTS] = input[top * OUTPUTS..].first_chunk().expect("inside");
    for x in 0..POOL1_SIDE {
        for c in 0..C1 {
            let inputs = rows.each_ref().map(|row| part(&row[x][c], n));
            evaluate(s, inputs, columns.each_mut().map(|row| &mut row[x][c]));
        }
    }
}

/// Columns of a tile at a point of y at the points of x.
#[inline(always)]
fn evaluate_rows<const N: usize, S: Lanewise<N>>(
    s: S,
    columns: &[[[f32; N]; C1]; POOL1_SIDE],
    left: usize,
    values: &mut Values<N>,
) {
    let columns: &[_; POINTS] = columns[left * OUTPUTS..].first_chunk().expect("inside");
    for c in 0..C1 {
        let inputs = columns.each_ref().map(|column: &[_; C1]| &column[c]);
        evaluate(s, inputs, values.each_mut().map(|values| &mut values[c]));
    }
}

/// The sums over channels at one point, of the tiles of a row.
#[inline(always)]
fn multiply<const N: usize, S: Lanewise<N>>(
    s: S,
    kernels: &[[f32; C1]; C2],
    values: [&[[f32; N]; C1]; TILES],
    [left, right]: [&mut [[f32; N]; C2]; TILES],
) {
    /// Channels at a time: enough sums for the multiply-adds not to wait for each other.
    const TILE: usize = 4;
    const { assert!(C2.is_multiple_of(TILE)) }
    let products = left.as_chunks_mut::<TILE>().0.iter_mut();
    let products = products.zip(right.as_chunks_mut::<TILE>().0);
    for (kernels, (left, right)) in kernels.as_chunks::<TILE>().0.iter().zip(products) {
        let mut acc = [[s.splat(0.0); TILES]; TILE];
        for c in 0..C1 {
            let values = [s.load(&values[0][c]), s.load(&values[1][c])];
            for t in 0..TILE {
                let kernel = s.splat(kernels[t][c]);
                for tile in 0..TILES {
                    acc[t][tile] = s.mul_add(values[tile], kernel, acc[t][tile]);
                }
            }
        }
        for t in 0..TILE {
            s.store(acc[t][0], &mut left[t]);
            s.store(acc[t][1], &mut right[t]);
        }
    }
}

/// The gradients by conv2's parameters and by its input, of one group.
///
/// # Numerics
/// At each point the kernels' sums take their terms by tile, those of the input by channel of the output, fused.
pub(super) struct Backward<'a> {
    pub input: &'a Pool1<Lanes>,
    /// Made by [`set_kernels`].
    pub kernels: &'a Kernels,
    /// By conv2's pooled output before the sigmoid, `(C2, POOL2_SIDE, POOL2_SIDE, LANES)`.
    pub grad: &'a [Lanes; FLAT],
    /// As `grad`.
    pub winner: &'a [[u8; LANES]; FLAT],
    /// Added to.
    pub sums: &'a mut Sums,
    /// By `input`; overwritten.
    pub grad_input: &'a mut Pool1<Lanes>,
    /// Overwritten.
    pub scratch: &'a mut Scratch,
}

impl Kernel for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let channels = self.grad.as_chunks::<{ POOL2_SIDE * POOL2_SIDE }>().0;
        for (grad, sum) in channels.iter().zip(&mut self.sums.bias) {
            let mut acc = s.load(sum);
            for grad in grad {
                acc = s.add(acc, s.load(grad));
            }
            s.store(acc, sum);
        }
        let Self {
            input,
            kernels,
            grad,
            winner,
            sums,
            grad_input,
            scratch: Scratch { whole, half },
        } = self;
        let sums = &mut sums.kernels;
        if S::WIDE {
            unpool_columns(s, 0, grad, winner, &mut whole.rows);
            backward(s, 0, input, kernels, whole, sums, grad_input);
        } else {
            for n in 0..2 {
                unpool_columns(s.half(), n, grad, winner, &mut half.rows);
                backward(s.half(), n, input, kernels, half, sums, grad_input);
            }
        }
    }
}

/// From the gradient by rows of outputs at the points of y: part `n` of the lanes.
#[inline(always)]
fn backward<const N: usize, S: Lanewise<N>>(
    s: S,
    n: usize,
    input: &Pool1<Lanes>,
    kernels: &Kernels,
    buffers: &mut Buffers<N>,
    sums: &mut KernelSums,
    grad_input: &mut Pool1<Lanes>,
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
        evaluate_columns(s, n, input, top, columns);
    }
    for y in 0..POINTS {
        for top in 0..TILES {
            for left in 0..TILES {
                evaluate_rows(s, &columns[top][y], left, &mut values[top][left]);
                interpolate_rows_grad(s, &rows[top][left][y], &mut products[top][left]);
            }
        }
        for (x, (kernels, sums)) in kernels[y].iter().zip(&mut sums[y]).enumerate() {
            for (products, grad) in products.iter().zip(&mut *values_grad) {
                let products = products.each_ref().map(|products| &products[x]);
                multiply_back(
                    s,
                    kernels,
                    products,
                    grad.each_mut().map(|grad| &mut grad[x]),
                );
            }
            let values = values.as_flattened().iter().map(|values| &values[x]);
            let products = products.as_flattened().iter().map(|products| &products[x]);
            multiply_kernels(s, values.zip(products), sums);
        }
        for (top, grad) in values_grad.iter().enumerate() {
            for (left, grad) in grad.iter().enumerate() {
                evaluate_rows_grad(s, grad, left, &mut columns_grad[top][y]);
            }
        }
    }
    for (top, columns) in columns_grad.iter().enumerate() {
        evaluate_columns_grad(s, n, columns, top, grad_input);
    }
}

/// From the gradient by windows to that by rows of outputs at the points of y: part `n` of the lanes.
#[inline(always)]
fn unpool_columns<const N: usize, S: Lanewise<N>>(
    s: S,
    n: usize,
    grad: &[Lanes; FLAT],
    winner: &[[u8; LANES]; FLAT],
    rows: &mut [[Rows<N>; TILES]; TILES],
) {
    for (tile, rows) in rows.as_flattened_mut().iter_mut().enumerate() {
        for o in 0..C2 {
            let [a, b, c, d] = windows(o, tile / TILES, tile % TILES);
            for (x, [upper, lower]) in [[a, c], [b, d]].into_iter().enumerate() {
                let [[a0, a1], [b0, b1]] =
                    unpool(s, part(&grad[upper], n), part(&winner[upper], n));
                let [[c0, c1], [d0, d1]] =
                    unpool(s, part(&grad[lower], n), part(&winner[lower], n));
                for (i, column) in [[a0, b0, c0, d0], [a1, b1, c1, d1]].into_iter().enumerate() {
                    let x = POOL * x + i;
                    let rows = rows.each_mut().map(|row| &mut row[o][x]);
                    store_all(s, products_grad(s, column), rows);
                }
            }
        }
    }
}

/// The gradient by a tile's products at a point of y from that by rows of outputs.
#[inline(always)]
fn interpolate_rows_grad<const N: usize, S: Lanewise<N>>(
    s: S,
    rows: &[[[f32; N]; OUTPUTS]; C2 + 1],
    products: &mut Products<N>,
) {
    for (o, row) in rows[..C2].iter().enumerate() {
        let products = products.each_mut().map(|products| &mut products[o]);
        interpolate_grad(s, row.each_ref(), products);
    }
}

/// The gradient by columns at a point of y from that by a tile's values.
#[inline(always)]
fn evaluate_rows_grad<const N: usize, S: Lanewise<N>>(
    s: S,
    values: &Values<N>,
    left: usize,
    columns: &mut [[[f32; N]; C1]; POOL1_SIDE],
) {
    let columns: &mut [_; POINTS] = columns[left * OUTPUTS..].first_chunk_mut().expect("inside");
    for c in 0..C1 {
        let values = values.each_ref().map(|values| &values[c]);
        let columns = columns
            .each_mut()
            .map(|column: &mut [_; C1]| &mut column[c]);
        evaluate_grad(s, values, shared(left), columns);
    }
}

/// The gradient by the input from that by the columns of a row of tiles: part `n` of the lanes.
#[inline(always)]
fn evaluate_columns_grad<const N: usize, S: Lanewise<N>>(
    s: S,
    n: usize,
    columns: &Columns<N>,
    top: usize,
    input: &mut Pool1<Lanes>,
) {
    let rows: &mut [[[_; C1]; POOL1_SIDE]; POINTS] =
        input[top * OUTPUTS..].first_chunk_mut().expect("inside");
    for x in 0..POOL1_SIDE {
        for c in 0..C1 {
            let columns = columns.each_ref().map(|row| &row[x][c]);
            let rows = rows.each_mut().map(|row| part_mut(&mut row[x][c], n));
            evaluate_grad(s, columns, shared(top), rows);
        }
    }
}

/// How many of a tile's rows or columns of inputs the tile before it has, too.
fn shared(tile: usize) -> usize {
    if tile > 0 { POINTS - OUTPUTS } else { 0 }
}

/// The gradient by the values at one point, of the tiles of a row: sums over the channels of the output.
#[inline(always)]
fn multiply_back<const N: usize, S: Lanewise<N>>(
    s: S,
    kernels: &[[f32; C1]; C2],
    [left, right]: [&[[f32; N]; C2]; TILES],
    grad: [&mut [[f32; N]; C1]; TILES],
) {
    let mut acc = [[s.splat(0.0); C1]; TILES];
    for ((left, right), kernels) in left.iter().zip(right).zip(kernels) {
        let products = [s.load(left), s.load(right)];
        for c in 0..C1 {
            let kernel = s.splat(kernels[c]);
            for tile in 0..TILES {
                acc[tile][c] = s.mul_add(products[tile], kernel, acc[tile][c]);
            }
        }
    }
    for (acc, grad) in acc.into_iter().zip(grad) {
        for (acc, grad) in acc.into_iter().zip(grad) {
            s.store(acc, grad);
        }
    }
}

/// Adds the gradient by the kernels at one point: sums over tiles, and then over lanes.
#[inline(always)]
fn multiply_kernels<'a, const N: usize, S: Lanewise<N>>(
    s: S,
    tiles: impl Iterator<Item = (&'a [[f32; N]; C1], &'a [[f32; N]; C2])> + Clone,
    sums: &mut [[HalfLanes; C1 / IN]; C2 / OUT],
) {
    for (o, sums) in sums.iter_mut().enumerate() {
        for (c, sums) in sums.iter_mut().enumerate() {
            let mut acc = [s.splat(0.0); OUT * IN];
            for (values, products) in tiles.clone() {
                let values = &values.as_chunks::<IN>().0[c];
                let products = &products.as_chunks::<OUT>().0[o];
                let mut product = [s.splat(0.0); OUT];
                for i in 0..OUT {
                    product[i] = s.load(&products[i]);
                }
                for j in 0..IN {
                    let value = s.load(&values[j]);
                    for i in 0..OUT {
                        acc[i * IN + j] = s.mul_add(product[i], value, acc[i * IN + j]);
                    }
                }
            }
            s.add_sums(acc, sums);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::pool::tests::assert_window;
    use super::super::simd::Isa;
    use super::*;
    use crate::dataset::generator;
    use crate::init::initial_params;
    use bytemuck::zeroed_box;
    use rand_chacha::rand_core::Rng;

    /// With the initial weights: outputs and winners.
    fn run(isa: Isa, input: &Pool1<Lanes>) -> (Box<[Lanes; FLAT]>, Box<[[u8; LANES]; FLAT]>) {
        let params = initial_params(0);
        let (mut kernels, mut scratch) = (zeroed_box(), zeroed_box());
        set_kernels(&params.conv2.weight, &mut kernels);
        let (mut out, mut winner) = (zeroed_box(), zeroed_box());
        isa.run(Forward::<true> {
            input,
            kernels: &kernels,
            bias: &params.conv2.bias,
            out: &mut out,
            winner: &mut winner,
            scratch: &mut scratch,
        });
        (out, winner)
    }

    /// From 0 to 1.
    fn random_input() -> Box<Pool1<Lanes>> {
        let mut rng = generator(0, 0);
        let mut input: Box<Pool1<Lanes>> = zeroed_box();
        for lanes in input.as_flattened_mut().as_flattened_mut() {
            *lanes = std::array::from_fn(|_| rng.next_u32() as f32 / u32::MAX as f32);
        }
        input
    }

    #[test]
    fn forward_is_its_definition() {
        let (params, input) = (initial_params(0), random_input());
        for isa in Isa::every() {
            let (out, winner) = run(isa, &input);
            for (at, (out, winner)) in out.iter().zip(winner.iter()).enumerate() {
                let lane = at % LANES;
                let value = |c: usize, y: usize, x: usize| f64::from(input[y][x][c][lane]);
                let (o, y, x) = (
                    at / (POOL2_SIDE * POOL2_SIDE),
                    at / POOL2_SIDE % POOL2_SIDE,
                    at % POOL2_SIDE,
                );
                let (weight, bias) = (&params.conv2.weight[o], params.conv2.bias[o]);
                let found = (out[lane], winner[lane]);
                assert_window(weight, bias, value, [y, x], found);
            }
        }
    }

    /// On flat pictures, and those that change along one side only, the first of equal values wins.
    #[test]
    fn ties_stay_ties() {
        let pictures: [fn(usize, usize) -> f32; 3] = [
            |_, _| 0.377,
            |y, _| (y as f32 * 0.7).sin().abs(),
            |_, x| (x as f32 * 0.7).sin().abs(),
        ];
        let may_win: [&[u8]; 3] = [&[0], &[0, 2], &[0, 1]];
        for (picture, may_win) in pictures.into_iter().zip(may_win) {
            let input: Pool1<Lanes> =
                std::array::from_fn(|y| std::array::from_fn(|x| [[picture(y, x); LANES]; C1]));
            for isa in Isa::every() {
                let (_, winner) = run(isa, &input);
                let mut winners = winner.as_flattened().iter();
                assert!(winners.all(|winner| may_win.contains(winner)), "{isa:?}");
            }
        }
    }

    /// Of all three gradients, in f64, on every version.
    #[test]
    fn backward_is_its_definition() {
        let (params, input) = (initial_params(0), random_input());
        let mut rng = generator(1, 0);
        let mut grad: Box<[Lanes; FLAT]> = zeroed_box();
        let mut winner: Box<[[u8; LANES]; FLAT]> = zeroed_box();
        for (grad, winner) in grad.iter_mut().zip(winner.iter_mut()) {
            *grad = std::array::from_fn(|_| rng.next_u32() as f32 / u32::MAX as f32 - 0.5);
            *winner = std::array::from_fn(|_| rng.next_u32() as u8 % 4);
        }
        let mut by_weight = [[[[0.0; K]; K]; C1]; C2];
        let mut by_bias = [0.0; C2];
        let mut by_input = vec![[[[0.0; LANES]; C1]; POOL1_SIDE]; POOL1_SIDE];
        for (at, (grad, winner)) in grad.iter().zip(winner.iter()).enumerate() {
            let o = at / (POOL2_SIDE * POOL2_SIDE);
            for (lane, (&grad, &winner)) in grad.iter().zip(winner).enumerate() {
                let grad = f64::from(grad);
                let top = POOL * (at / POOL2_SIDE % POOL2_SIDE) + usize::from(winner / 2);
                let left = POOL * (at % POOL2_SIDE) + usize::from(winner % 2);
                by_bias[o] += grad;
                for (c, kernel) in by_weight[o].iter_mut().enumerate() {
                    for (i, row) in kernel.iter_mut().enumerate() {
                        for (j, tap) in row.iter_mut().enumerate() {
                            let (y, x) = (top + i, left + j);
                            *tap += grad * f64::from(input[y][x][c][lane]);
                            by_input[y][x][c][lane] +=
                                grad * f64::from(params.conv2.weight[o][c][i][j]);
                        }
                    }
                }
            }
        }
        for isa in Isa::every() {
            let (mut kernels, mut scratch) = (zeroed_box(), zeroed_box());
            set_kernels(&params.conv2.weight, &mut kernels);
            let (mut sums, mut grad_input): (Box<Sums>, Box<Pool1<Lanes>>) =
                (zeroed_box(), zeroed_box());
            isa.run(Backward {
                input: &input,
                kernels: &kernels,
                grad: &grad,
                winner: &winner,
                sums: &mut sums,
                grad_input: &mut grad_input,
                scratch: &mut scratch,
            });
            let close = |name, found: &[f32], expected: &[f64]| {
                let largest = expected.iter().fold(0.0, |max: f64, x| max.max(x.abs()));
                for (&found, expected) in found.iter().zip(expected) {
                    let error = (f64::from(found) - expected).abs() / largest;
                    assert!(error < 2e-6, "{isa:?}, {name}: {found} for {expected}");
                }
            };
            let weight = sums.weight();
            close(
                "weight",
                weight.as_flattened().as_flattened().as_flattened(),
                by_weight.as_flattened().as_flattened().as_flattened(),
            );
            close("bias", &sums.bias(), &by_bias);
            close(
                "input",
                grad_input.as_flattened().as_flattened().as_flattened(),
                by_input.as_flattened().as_flattened().as_flattened(),
            );
        }
    }
}
