//! Gradients of the two convolutions, through the winners of the pools.
//!
//! Of the four positions of a pool's window only the winner passes a gradient on, so that three quarters of the dense
//! products are with zero. Sixteen interleaved images have sixteen different winners; one image has one. So the gradients
//! are taken image by image: a vector is a run of one image's memory, a pool's output (an "entry": a gradient and a
//! winner) is a broadcast factor:
//!
//! * by conv2's weight: `sum[i] += grad · input[y+i][x..x+K]`, a row of the kernel being a run of `(K, C1)` values,
//!   copied out for each `(y, x)` so that it is aligned;
//! * by conv2's input: `window += grad · table[c_out][winner]`, the kernel laid into the 6x6 inputs that a window of
//!   four positions reads, so that the sum over channels stays in registers; then windows are added where they lie;
//! * by conv1's weight: `sum[i] += grad · pixels[y+i][x..x+8]`, of whose eight columns the kernel has five.

use super::linear::Panel;
use super::pixels::{WHITE, transpose_bytes};
use super::sigmoid::sigmoid_grad;
use super::simd::{HALF, HalfLanes, Kernel, LANES, Lanes, Simd};
use lenet_core::arch::{C1, C2, FLAT, K, POOL1_SIDE, POOL2_SIDE, Pixels, SIDE};

/// Windows of the second pool.
pub(super) const WINDOWS: usize = POOL2_SIDE * POOL2_SIDE;

/// Elements of pool1.
pub(super) const POOL1: usize = C1 * POOL1_SIDE * POOL1_SIDE;

/// One image's pool1, or its gradient: `(POOL1_SIDE, POOL1_SIDE, C1)`, followed by a vector of zeros.
pub(super) type Rows = [Lanes; POOL1 / LANES + 1];

/// Elements of a row of pool1.
const ROW1: usize = POOL1_SIDE * C1;

/// Turns pool1 and its winners from sixteen images interleaved to one after the other.
pub(super) struct Turn<'a> {
    /// `(POOL1_SIDE, POOL1_SIDE, C1, LANES)`
    pub pool1: &'a [Lanes; POOL1],
    /// As `pool1`.
    pub winner: &'a [[u8; LANES]; POOL1],
    /// Overwritten but for the padding.
    pub pool1_images: &'a mut [Rows; LANES],
    /// Overwritten.
    pub winner_images: &'a mut [[u8; POOL1]; LANES],
}

impl Kernel for Turn<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let winners = self.winner.as_chunks::<LANES>().0;
        for (k, block) in self.pool1.as_chunks::<LANES>().0.iter().enumerate() {
            s.transpose(
                block.each_ref(),
                self.pool1_images.each_mut().map(|image| &mut image[k]),
            );
            transpose_bytes(
                winners[k].each_ref(),
                self.winner_images
                    .each_mut()
                    .map(|image| &mut image.as_chunks_mut().0[k]),
            );
        }
    }
}

/// Vectors that hold a row of conv2's kernel, `(K, C1)`.
const ROW: usize = (K * C1).div_ceil(LANES);
/// Places of a kernel's corner in pool1, a side.
const CORNERS: usize = POOL1_SIDE - K + 1;

/// For each place of a kernel's corner the kernel's row of inputs from there: `(y, x, (K, C1))`.
pub(super) type KernelRows = [[[Lanes; ROW]; CORNERS]; POOL1_SIDE];

/// Vectors after which the channels of pool1 come round again.
const BIASES: usize = 3;
const _: () = assert!((BIASES * LANES).is_multiple_of(C1));

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
    /// By channel, `C1` after `C1`.
    pub conv1_bias: [Lanes; BIASES],
}

impl Sums {
    pub(super) fn conv1_weight(&self, c_out: usize, i: usize, j: usize) -> f32 {
        self.conv1_weight[c_out][i][j] / f32::from(WHITE)
    }

    pub(super) fn conv1_bias(&self, c_out: usize) -> f32 {
        let sums = self.conv1_bias.as_flattened().as_chunks::<C1>().0;
        sums.iter().map(|sums| sums[c_out]).sum()
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

/// Adds one image's gradient by conv2's weight.
pub(super) struct Conv2GradWeight<'a> {
    pub pool1: &'a Rows,
    /// By conv2's pooled output before the sigmoid, `(C2, LANES, (POOL2_SIDE, POOL2_SIDE))`.
    pub grad: &'a [Panel; C2],
    /// `(C2, LANES, (POOL2_SIDE, POOL2_SIDE))`
    pub winner: &'a [[[u8; WINDOWS]; LANES]; C2],
    /// The image's lane in `grad` and `winner`.
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
        let Self {
            pool1,
            grad,
            winner,
            image,
            rows,
            sums,
        } = self;
        assert!(image < LANES);
        let pool1 = pool1.as_flattened();
        for (y, rows) in rows.iter_mut().enumerate() {
            for (x, row) in rows.iter_mut().enumerate() {
                let from: &[f32; ROW * LANES] = pool1[y * ROW1 + x * C1..]
                    .first_chunk()
                    .expect("pool1 is padded");
                for (from, to) in from.as_chunks::<LANES>().0.iter().zip(row) {
                    s.store(s.load(from), to);
                }
            }
        }
        let rows = rows.as_flattened();
        let channels = grad.iter().zip(winner);
        for ((grad, winner), sums) in channels.zip(&mut sums.conv2_weight) {
            // Found before they are needed: addresses that depend on a load just made hold up the multiply-adds.
            let mut corners = [0; WINDOWS];
            for (window, (corner, winner)) in corners.iter_mut().zip(winner[image]).enumerate() {
                let first = 2 * (window / POOL2_SIDE * CORNERS + window % POOL2_SIDE);
                *corner = first as u8 + (winner >> 1) * CORNERS as u8 + (winner & 1);
            }
            match S::WIDE {
                true => add_kernels::<S, ROW>(s, rows, &grad[image], &corners, sums),
                false => add_kernels::<S, 1>(s, rows, &grad[image], &corners, sums),
            }
        }
    }
}

/// Adds the inputs of a kernel at each of `corners`, times its factor, to one channel's sums: `P` vectors of each row at
/// a time, as many as there are registers for.
#[inline(always)]
fn add_kernels<S: Simd, const P: usize>(
    s: S,
    rows: &[[Lanes; ROW]],
    factors: &[f32; WINDOWS],
    corners: &[u8; WINDOWS],
    sums: &mut [[Lanes; K]; ROW],
) {
    for (part, sums) in sums.as_chunks_mut::<P>().0.iter_mut().enumerate() {
        let mut acc = [[s.splat(0.0); K]; P];
        for p in 0..P {
            for i in 0..K {
                acc[p][i] = s.load(&sums[p][i]);
            }
        }
        for (&factor, &corner) in factors.iter().zip(corners) {
            let factor = s.splat(factor);
            let rows: &[[Lanes; ROW]; (K - 1) * CORNERS + 1] = rows[usize::from(corner)..]
                .first_chunk()
                .expect("the kernel fits");
            for i in 0..K {
                let row = &rows[i * CORNERS].as_chunks::<P>().0[part];
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

/// Side of what a pool's window reads.
const FOOTPRINT: usize = K + 1;
/// Half vectors that hold a row of a footprint, `(FOOTPRINT, C1)`.
const HALVES: usize = (FOOTPRINT * C1).div_ceil(HALF);
/// Floats of them.
const FOOTPRINT_ROW: usize = HALVES * HALF;
/// Rows of a footprint that every winner's kernel covers, all but the first and the last: by two, which whole vectors
/// hold.
const MIDDLES: usize = (FOOTPRINT - 2) / 2;

/// Conv2's kernels laid into the footprint of a window, for each channel and winner.
#[derive(Clone, Copy, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub(super) struct Table {
    /// Rows 1 and 2, 3 and 4.
    middles: [[[Lanes; HALVES]; 4 * C2]; MIDDLES],
    /// The first row if the winner is in the upper row of the window, the last row if it is in the lower one.
    edge: [[HalfLanes; HALVES]; 4 * C2],
}

const _: () = {
    assert!(2 * MIDDLES == FOOTPRINT - 2);
    // What a row has too much falls into the next one, and the last one's into the padding.
    assert!(FOOTPRINT_ROW - FOOTPRINT * C1 <= LANES);
    // Corners, and places in the table, are kept in eight bits.
    assert!(POOL1_SIDE * CORNERS <= u8::MAX as usize);
    assert!(4 * C2 <= u8::MAX as usize);
};

/// Writes the table; what no kernel covers must be zero already.
pub(super) fn write_table(weight: &[[[[f32; K]; K]; C1]; C2], table: &mut Table) {
    for (c_out, weight) in weight.iter().enumerate() {
        for winner in 0..4 {
            let (dy, dx, kernel) = (winner / 2, winner % 2, 4 * c_out + winner);
            for (c_in, weight) in weight.iter().enumerate() {
                for (i, weight) in weight.iter().enumerate() {
                    let row = match dy + i {
                        0 | K => table.edge[kernel].as_flattened_mut(),
                        y => {
                            let rows = table.middles[(y - 1) / 2][kernel].as_flattened_mut();
                            &mut rows[(y - 1) % 2 * FOOTPRINT_ROW..]
                        }
                    };
                    for (j, &weight) in weight.iter().enumerate() {
                        row[(dx + j) * C1 + c_in] = weight;
                    }
                }
            }
        }
    }
}

/// What passes back through the windows of the second pool of one image: `(POOL2_SIDE, POOL2_SIDE, C2)`.
#[derive(Clone, Copy, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub(super) struct Entries {
    /// The gradient by conv2's pooled output before the sigmoid.
    grad: [[f32; C2]; WINDOWS],
    /// The same where the winner is in the upper row of the window, zero elsewhere.
    upper: [[f32; C2]; WINDOWS],
    /// The same for the lower row.
    lower: [[f32; C2]; WINDOWS],
    /// The winner's kernel in the table.
    kernel: [[u8; C2]; WINDOWS],
}

/// Sorts what passes back through the second pool by images.
pub(super) struct Sort<'a> {
    /// By conv2's pooled output before the sigmoid, `(C2, POOL2_SIDE, POOL2_SIDE, LANES)`.
    pub grad: &'a [Lanes; FLAT],
    /// As `grad`.
    pub winner: &'a [[u8; LANES]; FLAT],
    /// Overwritten.
    pub entries: &'a mut [Entries; LANES],
    /// `grad` as `(C2, LANES, (POOL2_SIDE, POOL2_SIDE))`; overwritten.
    pub grad_images: &'a mut [Panel; C2],
    /// `winner` likewise; overwritten.
    pub winner_images: &'a mut [[[u8; WINDOWS]; LANES]; C2],
}

impl Kernel for Sort<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self {
            grad,
            winner,
            entries,
            grad_images,
            winner_images,
        } = self;
        let (grads, winners) = (
            grad.as_chunks::<WINDOWS>().0,
            winner.as_chunks::<WINDOWS>().0,
        );
        for channel in 0..C2 {
            s.transpose(grads[channel].each_ref(), grad_images[channel].each_mut());
            transpose_bytes(
                winners[channel].each_ref(),
                winner_images[channel].each_mut(),
            );
        }
        let (mut upper, mut lower) = ([[0.0; LANES]; C2], [[0.0; LANES]; C2]);
        for window in 0..WINDOWS {
            let grads: [&Lanes; C2] = std::array::from_fn(|channel| &grads[channel][window]);
            let winners: [&[u8; LANES]; C2] =
                std::array::from_fn(|channel| &winners[channel][window]);
            for channel in 0..C2 {
                let (zero, one) = (s.splat(0.0), s.splat(1.0));
                let winner = s.load_bytes(winners[channel]);
                let grad = s.load(grads[channel]);
                s.store(s.select_gt(winner, one, zero, grad), &mut upper[channel]);
                s.store(s.select_gt(winner, one, grad, zero), &mut lower[channel]);
            }
            s.transpose(
                grads,
                entries.each_mut().map(|image| &mut image.grad[window]),
            );
            s.transpose(
                upper.each_ref(),
                entries.each_mut().map(|image| &mut image.upper[window]),
            );
            s.transpose(
                lower.each_ref(),
                entries.each_mut().map(|image| &mut image.lower[window]),
            );
            transpose_bytes(
                winners,
                entries.each_mut().map(|image| &mut image.kernel[window]),
            );
            for image in entries.iter_mut() {
                for (channel, kernel) in image.kernel[window].iter_mut().enumerate() {
                    *kernel += 4 * channel as u8;
                }
            }
        }
    }
}

/// A group's gradient by conv2's input.
pub(super) struct Conv2GradInput<'a> {
    pub table: &'a Table,
    /// As many as there are images.
    pub entries: &'a [Entries],
    /// By pool1, as many; overwritten.
    pub grad_input: &'a mut [Rows],
}

impl Kernel for Conv2GradInput<'_> {
    type Output = ();

    /// Two rows of the footprint for all images, then the next two, so that a small part of the table at a time stays in
    /// the fastest cache. A row of pool1 gets the windows of one `y` each time.
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self {
            table,
            entries,
            grad_input,
        } = self;
        grad_input.fill(bytemuck::Zeroable::zeroed());
        for (m, table) in table.middles.iter().enumerate() {
            for (entries, rows) in entries.iter().zip(&mut *grad_input) {
                if S::WIDE {
                    middle::<S, 2>(s, table, entries, 1 + 2 * m, rows);
                } else {
                    middle::<S, 1>(s, table, entries, 1 + 2 * m, rows);
                }
            }
        }
        for (entries, rows) in entries.iter().zip(grad_input) {
            edges(s, &table.edge, entries, rows);
        }
    }
}

/// Adds the rows `y` and `y + 1` of the footprints, summed over the channels: of `W` windows at a time, far enough apart
/// not to share a row.
#[inline(always)]
fn middle<S: Simd, const W: usize>(
    s: S,
    table: &[[Lanes; HALVES]; 4 * C2],
    entries: &Entries,
    y: usize,
    rows: &mut Rows,
) {
    for window in 0..WINDOWS / W {
        let windows: [usize; W] = std::array::from_fn(|w| w * (WINDOWS / W) + window);
        let mut acc = [[s.splat(0.0); HALVES]; W];
        for channel in 0..C2 {
            for w in 0..W {
                let grad = s.splat(entries.grad[windows[w]][channel]);
                let kernel = &table[usize::from(entries.kernel[windows[w]][channel])];
                for v in 0..HALVES {
                    acc[w][v] = s.mul_add(grad, s.load(&kernel[v]), acc[w][v]);
                }
            }
        }
        for w in 0..W {
            let mut halves = [s.splat_half(0.0); 2 * HALVES];
            for v in 0..HALVES {
                [halves[2 * v], halves[2 * v + 1]] = s.halves(acc[w][v]);
            }
            let (first, second) = halves.split_at(HALVES);
            add_row(s, rows, windows[w], y, first);
            add_row(s, rows, windows[w], y + 1, second);
        }
    }
}

/// Adds the first and the last row of the footprints, summed over the channels.
#[inline(always)]
fn edges<S: Simd>(s: S, table: &[[HalfLanes; HALVES]; 4 * C2], entries: &Entries, rows: &mut Rows) {
    for window in 0..WINDOWS {
        let mut first = [s.splat_half(0.0); HALVES];
        let mut last = [s.splat_half(0.0); HALVES];
        for channel in 0..C2 {
            let kernel = &table[usize::from(entries.kernel[window][channel])];
            let upper = s.splat_half(entries.upper[window][channel]);
            let lower = s.splat_half(entries.lower[window][channel]);
            for v in 0..HALVES {
                let kernel = s.load_half(&kernel[v]);
                first[v] = s.mul_add_half(upper, kernel, first[v]);
                last[v] = s.mul_add_half(lower, kernel, last[v]);
            }
        }
        add_row(s, rows, window, 0, &first);
        add_row(s, rows, window, FOOTPRINT - 1, &last);
    }
}

/// Adds row `y` of a window's footprint to the rows of pool1.
#[inline(always)]
fn add_row<S: Simd>(s: S, rows: &mut Rows, window: usize, y: usize, sums: &[S::Half]) {
    let (y, x) = (
        2 * (window / POOL2_SIDE) + y,
        2 * (window % POOL2_SIDE) * C1,
    );
    let row: &mut [f32; FOOTPRINT_ROW] = rows.as_flattened_mut()[y * ROW1 + x..]
        .first_chunk_mut()
        .expect("the footprint fits");
    for (to, &sum) in row.as_chunks_mut().0.iter_mut().zip(sums) {
        s.store_half(s.add_half(s.load_half(to), sum), to);
    }
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

/// What the gradient by conv1's parameters keeps of one image on its way.
#[derive(Clone, Copy, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub(super) struct Conv1Scratch {
    /// The image.
    rows: [[f32; PITCH]; SIDE],
    /// Of each element of pool1, where the kernel lay that won.
    corners: [u16; POOL1],
}

/// Adds one image's gradient by conv1's parameters.
///
/// # Numerics
/// Each image's sum is taken over the windows in row order, fused, and added to the sum over images.
pub(super) struct Conv1GradParams<'a> {
    pub pixels: &'a Pixels,
    pub pool1: &'a Rows,
    /// `(POOL1_SIDE, POOL1_SIDE, C1)`: which position of its window won.
    pub winner: &'a [u8; POOL1],
    /// By pool1; left is the gradient by conv1's pooled output before the sigmoid.
    pub grad: &'a mut Rows,
    /// Overwritten.
    pub scratch: &'a mut Conv1Scratch,
    /// Added to.
    pub sums: &'a mut Sums,
}

impl Kernel for Conv1GradParams<'_> {
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
            *corner = first + u16::from(winner >> 1) * PITCH as u16 + u16::from(winner & 1);
        }

        let mut bias = [s.splat(0.0); BIASES];
        let pool1 = self.pool1.as_chunks::<BIASES>().0;
        for (grad, pool1) in self.grad.as_chunks_mut::<BIASES>().0.iter_mut().zip(pool1) {
            for n in 0..BIASES {
                let by_input = sigmoid_grad(s, s.load(&pool1[n]), s.load(&grad[n]));
                s.store(by_input, &mut grad[n]);
                bias[n] = s.add(bias[n], by_input);
            }
        }
        for (bias, sum) in bias.into_iter().zip(&mut self.sums.conv1_bias) {
            s.store(s.add(s.load(sum), bias), sum);
        }

        /// Channels at a time: enough sums for the multiply-adds not to wait for each other.
        const TILE: usize = 2;
        let grads = self.grad.as_flattened().as_chunks::<TILE>().0;
        let corners = corners.as_chunks::<TILE>().0;
        let tiles = self.sums.conv1_weight.as_chunks_mut::<TILE>().0;
        for (tile, sums) in tiles.iter_mut().enumerate() {
            let mut acc = [[s.splat_half(0.0); K]; TILE];
            for window in 0..POOL1 / C1 {
                let at = window * (C1 / TILE) + tile;
                for t in 0..TILE {
                    let grad = s.splat_half(grads[at][t]);
                    let kernel: &[f32; KERNEL] = rows.as_flattened()[usize::from(corners[at][t])..]
                        .first_chunk()
                        .expect("the kernel fits");
                    for i in 0..K {
                        let row = kernel[i * PITCH..].first_chunk().expect("within KERNEL");
                        acc[t][i] = s.mul_add_half(grad, s.load_half(row), acc[t][i]);
                    }
                }
            }
            for t in 0..TILE {
                for i in 0..K {
                    let sum = s.load_half(&sums[t][i]);
                    s.store_half(s.add_half(sum, acc[t][i]), &mut sums[t][i]);
                }
            }
        }
    }
}
