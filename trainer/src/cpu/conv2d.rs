//! Gradients of the two convolutions, through the winners of the pools.
//!
//! Of the four positions of a pool's window only the winner passes a gradient on, so that three quarters of the dense
//! products are with zero. Sixteen interleaved images have sixteen different winners; one image has one. So the gradients
//! by the weights are taken image by image: a vector is a run of one image's memory, the gradient by a pool's output is a
//! broadcast factor:
//!
//! * by conv2's weight: `sum[i] += grad · input[y+i][x..x+K]`, a row of the kernel being a run of `(K, C1)` values,
//!   copied out for each `(x, y)` so that it is aligned;
//! * by conv1's weight: `sum[i] += grad · pixels[y+i][x..x+8]`, of whose eight columns the kernel has five.
//!
//! The gradient by conv2's input is taken of sixteen images at once: [`winograd`]'s algorithm leaves of the dense products
//! about as many as the winners would, and they need no order of their own.

use super::linear::Panel;
use super::pixels::{WHITE, transpose_bytes};
use super::sigmoid::sigmoid_grad;
use super::simd::{
    HALF, HalfLanes, Kernel, LANES, Lanes, Lanewise, Simd, by_parts, part, part_mut,
};
use super::winograd::{self, Kernels, OUTPUTS, POINTS};
use lenet_core::arch::{C1, C2, CONV2_SIDE, FLAT, K, POOL, POOL1_SIDE, POOL2_SIDE, Pixels, SIDE};

/// Windows of the second pool.
pub(super) const WINDOWS: usize = POOL2_SIDE * POOL2_SIDE;

/// Elements of pool1.
pub(super) const POOL1: usize = C1 * POOL1_SIDE * POOL1_SIDE;

/// One image's pool1, or its gradient: `(POOL1_SIDE, POOL1_SIDE, C1)`, followed by a vector of zeros.
pub(super) type Rows = [Lanes; POOL1 / LANES + 1];

/// Elements of a row of pool1.
const ROW1: usize = POOL1_SIDE * C1;

/// Turns values of pool1 from sixteen images interleaved to one after the other.
pub(super) struct Turn<'a> {
    /// `(POOL1_SIDE, POOL1_SIDE, C1, LANES)`
    pub lanes: &'a [Lanes; POOL1],
    /// Overwritten but for the padding.
    pub images: &'a mut [Rows; LANES],
}

impl Kernel for Turn<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (k, block) in self.lanes.as_chunks::<LANES>().0.iter().enumerate() {
            let images = self.images.each_mut();
            s.transpose(block.each_ref(), images.map(|image| &mut image[k]));
        }
    }
}

/// Turns the winners of pool1 likewise.
pub(super) struct TurnWinners<'a> {
    /// `(POOL1_SIDE, POOL1_SIDE, C1, LANES)`
    pub lanes: &'a [[u8; LANES]; POOL1],
    /// Overwritten.
    pub images: &'a mut [[u8; POOL1]; LANES],
}

impl Kernel for TurnWinners<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for (k, block) in self.lanes.as_chunks::<LANES>().0.iter().enumerate() {
            let images = self.images.each_mut();
            transpose_bytes(
                block.each_ref(),
                images.map(|image| &mut image.as_chunks_mut().0[k]),
            );
        }
    }
}

/// Vectors that hold a row of conv2's kernel, `(K, C1)`.
const ROW: usize = (K * C1).div_ceil(LANES);
/// Places of a kernel's corner in pool1, a side.
const CORNERS: usize = POOL1_SIDE - K + 1;

/// For each place of a kernel's corner the kernel's row of inputs from there: `(x, y, (K, C1))`, so that a kernel's rows lie
/// one after the other.
pub(super) type KernelRows = [[[Lanes; ROW]; POOL1_SIDE]; CORNERS];

/// The gradients by the parameters of the convolutions over one group of images, in the layouts of their sums.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub(super) struct Sums {
    /// `(C2, ROW, K, LANES)`
    pub conv2_weight: [[[Lanes; K]; ROW]; C2],
    /// `(C2, LANES)`
    pub conv2_bias: [Lanes; C2],
    /// `(C1, K, HALF)`, of which a row has `K`; by stored pixels.
    pub conv1_weight: [[HalfLanes; K]; C1],
    /// `(C1, LANES)`
    pub conv1_bias: [Lanes; C1],
}

impl Sums {
    pub(super) fn conv1_weight(&self, c_out: usize, i: usize, j: usize) -> f32 {
        self.conv1_weight[c_out][i][j] / f32::from(WHITE)
    }

    pub(super) fn conv1_bias(&self, c_out: usize) -> f32 {
        super::linear::sum_lanes(self.conv1_bias[c_out])
    }

    pub(super) fn conv2_weight(&self, c_out: usize, c_in: usize, i: usize, j: usize) -> f32 {
        let k = j * C1 + c_in;
        self.conv2_weight[c_out][k / LANES][i][k % LANES]
    }

    pub(super) fn conv2_bias(&self, c_out: usize) -> f32 {
        super::linear::sum_lanes(self.conv2_bias[c_out])
    }
}

/// Adds another group's sums.
pub(super) struct AddSums<'a> {
    pub other: &'a Sums,
    pub out: &'a mut Sums,
}

impl Kernel for AddSums<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (other, out): (&[Lanes], &mut [Lanes]) = (
            bytemuck::must_cast_slice(std::slice::from_ref(self.other)),
            bytemuck::must_cast_slice_mut(std::slice::from_mut(self.out)),
        );
        for (other, out) in other.iter().zip(out) {
            s.store(s.add(s.load(out), s.load(other)), out);
        }
    }
}

/// A group's gradient by conv2's bias: a sum over windows.
pub(super) struct Conv2GradBias<'a> {
    /// By conv2's pooled output before the sigmoid, `(C2, POOL2_SIDE, POOL2_SIDE, LANES)`.
    pub grad: &'a [Lanes; FLAT],
    /// Overwritten.
    pub sums: &'a mut [Lanes; C2],
}

impl Kernel for Conv2GradBias<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (grad, sum) in self.grad.as_chunks::<WINDOWS>().0.iter().zip(self.sums) {
            let mut acc = s.splat(0.0);
            for grad in grad {
                acc = s.add(acc, s.load(grad));
            }
            s.store(acc, sum);
        }
    }
}

/// One image's gradient by conv2's weight.
pub(super) struct Conv2GradWeight<'a> {
    pub pool1: &'a Rows,
    /// By conv2's pooled output before the sigmoid, `(C2, LANES, (POOL2_SIDE, POOL2_SIDE))`.
    pub grad: &'a [Panel; C2],
    /// Where the kernel lay that won, as `grad`.
    pub corners: &'a [[[u8; WINDOWS]; LANES]; C2],
    /// Which image of the group it is.
    pub image: usize,
    /// Scratch; overwritten.
    pub rows: &'a mut KernelRows,
    /// Added to.
    pub sums: &'a mut Sums,
}

impl Kernel for Conv2GradWeight<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        copy_rows(s, self.pool1, self.rows);
        let channels = self.grad.iter().zip(self.corners);
        for ((grad, corners), sums) in channels.zip(&mut self.sums.conv2_weight) {
            let (grad, corners) = (&grad[self.image], &corners[self.image]);
            match S::WIDE {
                true => add_kernels::<S, ROW>(s, self.rows, grad, corners, sums),
                false => add_kernels::<S, 1>(s, self.rows, grad, corners, sums),
            }
        }
    }
}

/// Copies out the kernel's rows of inputs.
#[inline(always)]
fn copy_rows<S: Simd>(s: S, pool1: &Rows, rows: &mut KernelRows) {
    let pool1 = pool1.as_flattened();
    for (x, rows) in rows.iter_mut().enumerate() {
        // One for each row: pool1 is padded.
        let inputs = pool1[x * C1..].windows(ROW * LANES).step_by(ROW1);
        for (inputs, row) in inputs.zip(rows) {
            for (from, to) in inputs.as_chunks::<LANES>().0.iter().zip(row) {
                s.store(s.load(from), to);
            }
        }
    }
}

/// Adds the inputs of a kernel at each of `corners`, times its factor, to one channel's sums: `P` vectors of each row at a
/// time, as many as there are registers for.
#[inline(always)]
fn add_kernels<S: Simd, const P: usize>(
    s: S,
    rows: &KernelRows,
    factors: &[f32; WINDOWS],
    corners: &[u8; WINDOWS],
    sums: &mut [[Lanes; K]; ROW],
) {
    let rows = rows.as_flattened();
    for (part, sums) in sums.as_chunks_mut::<P>().0.iter_mut().enumerate() {
        let mut acc = [[s.splat(0.0); K]; P];
        for p in 0..P {
            for i in 0..K {
                acc[p][i] = s.load(&sums[p][i]);
            }
        }
        // One load for all corners, as loads are what limits this loop.
        let mut corners = u128::from_le_bytes(*corners);
        for &factor in factors {
            let factor = s.splat(factor);
            let rows: &[[Lanes; ROW]; K] = rows[usize::from(corners as u8)..]
                .first_chunk()
                .expect("the kernel fits");
            corners >>= 8;
            for i in 0..K {
                let row = &rows[i].as_chunks::<P>().0[part];
                for p in 0..P {
                    acc[p][i] = s.mul_add(factor, s.load(&row[p]), acc[p][i]);
                }
            }
        }
        for (acc, sums) in acc.into_iter().zip(sums) {
            for (acc, sum) in acc.into_iter().zip(sums) {
                s.store(acc, sum);
            }
        }
    }
}

/// Where conv2's [`KernelRows`] have the corner of each of the second pool's windows.
const WINDOW_ROWS: [[u8; LANES]; WINDOWS] = {
    let mut corners = [[0; LANES]; WINDOWS];
    let mut window = 0;
    while window < WINDOWS {
        let (y, x) = (window / POOL2_SIDE, window % POOL2_SIDE);
        corners[window] = [(POOL * (x * POOL1_SIDE + y)) as u8; LANES];
        window += 1;
    }
    corners
};

/// Sorts what passes back through the second pool by images, for conv2's weight.
pub(super) struct Sort<'a> {
    /// By conv2's pooled output before the sigmoid, `(C2, POOL2_SIDE, POOL2_SIDE, LANES)`.
    pub grad: &'a [Lanes; FLAT],
    /// As `grad`.
    pub winner: &'a [[u8; LANES]; FLAT],
    /// `grad` as `(C2, LANES, (POOL2_SIDE, POOL2_SIDE))`; overwritten.
    pub grad_images: &'a mut [Panel; C2],
    /// Where in [`KernelRows`] the kernel lay that won, likewise; overwritten.
    pub corners: &'a mut [[[u8; WINDOWS]; LANES]; C2],
}

impl Kernel for Sort<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (grads, winners) = (
            self.grad.as_chunks::<WINDOWS>().0,
            self.winner.as_chunks::<WINDOWS>().0,
        );
        for channel in 0..C2 {
            let images = self.grad_images[channel].each_mut();
            s.transpose(grads[channel].each_ref(), images);
            let mut corners = [[0; LANES]; WINDOWS];
            let winners = winners[channel]
                .as_flattened()
                .iter()
                .zip(WINDOW_ROWS.as_flattened());
            for (corner, (winner, first)) in corners.as_flattened_mut().iter_mut().zip(winners) {
                *corner = first + (winner & 1) * POOL1_SIDE as u8 + (winner >> 1);
            }
            let images = self.corners[channel].each_mut();
            transpose_bytes(corners.each_ref(), images);
        }
    }
}

/// The gradient by the products of four columns of outputs, at each point. (A row too many, so that what is written together
/// does not share a few places of the cache.)
pub(super) type Products = [[[Lanes; C2]; CONV2_SIDE + 1]; POINTS];

/// A group's gradient by conv2's input: its forward pass by [`winograd`]'s algorithm, backward.
///
/// # Numerics
/// At each point a sum takes its terms by row of the kernel and channel of the output, fused.
pub(super) struct Conv2GradInput<'a> {
    pub kernels: &'a Kernels<C1, C2>,
    /// By conv2's pooled output before the sigmoid, `(C2, POOL2_SIDE, POOL2_SIDE, LANES)`.
    pub grad: &'a [Lanes; FLAT],
    /// As `grad`.
    pub winner: &'a [[u8; LANES]; FLAT],
    /// What conv2 read.
    pub pool1: &'a [[[Lanes; C1]; POOL1_SIDE]; POOL1_SIDE],
    /// By pool1 before the sigmoid; overwritten.
    pub grad_pool1: &'a mut [[[Lanes; C1]; POOL1_SIDE]; POOL1_SIDE],
    /// By conv1's bias: the sum over windows; overwritten.
    pub conv1_bias: &'a mut [Lanes; C1],
    /// Scratch; overwritten.
    pub products: &'a mut Products,
    /// Scratch: the gradient by the values of the columns that four outputs read, at each point; overwritten.
    pub values: &'a mut [[[Lanes; C1]; POOL1_SIDE]; POINTS],
}

impl Kernel for Conv2GradInput<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (products, values) = (self.products, self.values);
        let mut bias = [s.splat(0.0); C1];
        for first in (0..CONV2_SIDE).step_by(OUTPUTS) {
            for y in 0..POOL2_SIDE {
                for o in 0..C2 {
                    let at = (o * POOL2_SIDE + y) * POOL2_SIDE + first / POOL;
                    let windows = [at, at + 1].map(|at| (&self.grad[at], &self.winner[at]));
                    let mut products = products.each_mut().map(|rows| {
                        let rows: &mut [_; POOL] =
                            rows[POOL * y..].first_chunk_mut().expect("inside");
                        rows.each_mut().map(|row| &mut row[o])
                    });
                    by_parts!(s, products_grad(windows, &mut products));
                }
            }
            for ((products, kernels), values) in products.iter().zip(self.kernels).zip(&mut *values)
            {
                for (y, values) in values.iter_mut().enumerate() {
                    let mut acc = [s.splat(0.0); C1];
                    for i in 0..K {
                        let outputs = &products[..CONV2_SIDE];
                        let Some(row) = y.checked_sub(i).and_then(|row| outputs.get(row)) else {
                            continue;
                        };
                        for (product, kernels) in row.iter().zip(kernels) {
                            let product = s.load(product);
                            for c in 0..C1 {
                                acc[c] = s.mul_add(product, s.splat(kernels[c][i]), acc[c]);
                            }
                        }
                    }
                    for c in 0..C1 {
                        s.store(acc[c], &mut values[c]);
                    }
                }
            }
            for (y, row) in self.grad_pool1.iter_mut().enumerate() {
                for c in 0..C1 {
                    let values = values.each_ref().map(|values| &values[y][c]);
                    let columns: &mut [[Lanes; C1]; POINTS] =
                        row[first..].first_chunk_mut().expect("inside");
                    let mut inputs = columns.each_mut().map(|column| &mut column[c]);
                    // Columns that the four outputs before read, too.
                    let shared = if first > 0 { POINTS - OUTPUTS } else { 0 };
                    by_parts!(s, add_inputs_grad(values, shared, &mut inputs));
                }
            }
        }
        let outs = self.pool1.as_flattened().iter();
        for (out, grad) in outs.zip(self.grad_pool1.as_flattened_mut()) {
            for c in 0..C1 {
                let by_sum = sigmoid_grad(s, s.load(&out[c]), s.load(&grad[c]));
                bias[c] = s.add(bias[c], by_sum);
                s.store(by_sum, &mut grad[c]);
            }
        }
        for (bias, sum) in bias.into_iter().zip(self.conv1_bias) {
            s.store(bias, sum);
        }
    }
}

/// The gradient by the products of two windows' rows at each point: part `n` of their lanes.
#[inline(always)]
fn products_grad<const N: usize, S: Lanewise<N>>(
    s: S,
    n: usize,
    windows: [(&Lanes, &[u8; LANES]); 2],
    products: &mut [[&mut Lanes; POOL]; POINTS],
) {
    let [left, right] = windows;
    let left = unpool(s, part(left.0, n), part(left.1, n));
    let right = unpool(s, part(right.0, n), part(right.1, n));
    for (y, ([a, b], [c, d])) in left.into_iter().zip(right).enumerate() {
        let grads = winograd::products_grad(s, [a, b, c, d]);
        for (grad, products) in grads.into_iter().zip(&mut *products) {
            s.store(grad, part_mut(products[y], n));
        }
    }
}

/// The gradient by inputs in a row, added to that of the first `shared` of them: part `n` of their lanes.
#[inline(always)]
fn add_inputs_grad<const N: usize, S: Lanewise<N>>(
    s: S,
    n: usize,
    values: [&Lanes; POINTS],
    shared: usize,
    inputs: &mut [&mut Lanes; POINTS],
) {
    let mut grads = [s.splat(0.0); POINTS];
    for (grad, values) in grads.iter_mut().zip(values) {
        *grad = s.load(part(values, n));
    }
    for (j, grad) in winograd::input_grad(s, grads).into_iter().enumerate() {
        let to = part_mut(inputs[j], n);
        let sum = if j < shared {
            s.add(s.load(to), grad)
        } else {
            grad
        };
        s.store(sum, to);
    }
}

/// The gradient by a window's four values, of which the winner's is not zero.
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

/// Floats from one row of an image to the next: its columns in two cache lines, and in a third those once more from which
/// a half vector would cross from the first line into the second.
const PITCH: usize = 3 * LANES;
/// The first of the columns that are there twice.
const TWICE: usize = LANES - HALF;
/// How far their second place is from the first.
const AGAIN: usize = 2 * LANES - TWICE;
/// What a kernel reads from its corner on.
const KERNEL: usize = (K - 1) * PITCH + HALF;

/// Where the image has the corner of each of pool1's windows.
const WINDOW_CORNERS: [u16; POOL1] = {
    let mut corners = [0; POOL1];
    let mut k = 0;
    while k < POOL1 {
        let (y, x) = (2 * (k / ROW1), 2 * (k % ROW1 / C1));
        let column = if x >= TWICE && x < LANES {
            x + AGAIN
        } else {
            x
        };
        corners[k] = (y * PITCH + column) as u16;
        k += 1;
    }
    corners
};

/// What the gradient by conv1's weight keeps of one image on its way.
#[derive(Clone, Copy, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub(super) struct Conv1Scratch {
    /// The image.
    rows: [[f32; PITCH]; SIDE],
    /// Of each element of pool1, where the kernel lay that won; little-endian.
    corners: [u16; POOL1],
}

/// Adds one image's gradient by conv1's weight.
///
/// # Numerics
/// Each image's sum is taken over the windows in row order, fused, and added to the sum over images.
pub(super) struct Conv1GradWeight<'a> {
    pub pixels: &'a Pixels,
    /// `(POOL1_SIDE, POOL1_SIDE, C1)`: which position of its window won.
    pub winner: &'a [u8; POOL1],
    /// By conv1's pooled output before the sigmoid.
    pub grad: &'a Rows,
    /// Overwritten.
    pub scratch: &'a mut Conv1Scratch,
    /// Added to.
    pub sums: &'a mut Sums,
}

impl Kernel for Conv1GradWeight<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Conv1Scratch { rows, corners } = self.scratch;
        for (pixels, row) in self.pixels.iter().zip(&mut *rows) {
            for (from, to) in [(0, 0), (SIDE - LANES, SIDE - LANES), (TWICE, TWICE + AGAIN)] {
                let pixels = pixels[from..].first_chunk().expect("within a row");
                let row = row[to..].first_chunk_mut().expect("within a row");
                s.store(s.load_bytes(pixels), row);
            }
        }
        let windows = WINDOW_CORNERS.iter().zip(self.winner);
        for (corner, (first, winner)) in corners.iter_mut().zip(windows) {
            let corner_of_winner =
                first + u16::from(winner >> 1) * PITCH as u16 + u16::from(winner & 1);
            *corner = corner_of_winner.to_le();
        }

        let half = s.half();
        /// Channels at a time: enough sums for the multiply-adds not to wait for each other.
        const TILE: usize = 2;
        let grads = self.grad.as_flattened().as_chunks::<TILE>().0;
        let corners = corners.as_chunks::<TILE>().0;
        let tiles = self.sums.conv1_weight.as_chunks_mut::<TILE>().0;
        for (tile, sums) in tiles.iter_mut().enumerate() {
            let mut acc = [[half.splat(0.0); K]; TILE];
            for window in 0..POOL1 / C1 {
                let at = window * (C1 / TILE) + tile;
                // One load for both, as loads are what limits this loop.
                let mut corners = u32::from_le(bytemuck::must_cast(corners[at]));
                for t in 0..TILE {
                    let grad = half.splat(grads[at][t]);
                    let corner = usize::from(corners as u16);
                    corners >>= 16;
                    let kernel: &[f32; KERNEL] = rows.as_flattened()[corner..]
                        .first_chunk()
                        .expect("the kernel fits");
                    for i in 0..K {
                        let row = kernel[i * PITCH..].first_chunk().expect("within KERNEL");
                        acc[t][i] = half.mul_add(grad, half.load(row), acc[t][i]);
                    }
                }
            }
            for t in 0..TILE {
                for i in 0..K {
                    let sum = half.load(&sums[t][i]);
                    half.store(half.add(sum, acc[t][i]), &mut sums[t][i]);
                }
            }
        }
    }
}
