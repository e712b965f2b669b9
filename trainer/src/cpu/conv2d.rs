//! Gradients of the two convolutions, one image at a time, through the winners of the pools.
//!
//! Of the four positions of a pool's window only the winner passes a gradient on, so that three quarters of the dense
//! products are with zero. Sixteen interleaved images have sixteen different winners; one image's have one. So here a
//! vector is a run of one image's memory, a pool's output (an "entry": a gradient and a winner) is a broadcast factor:
//!
//! * by conv2's weight: `sum[i] += grad · input[y+i][x..x+K]`, a row of the kernel being a run of `(K, C1)` values,
//!   copied out for each `(y, x)` so that it is aligned;
//! * by conv2's input: `window += grad · table[c_out][winner]`, the kernel laid into the 6x6 inputs that a window of
//!   four positions reads, so that the sum over channels stays in registers; then windows are added where they lie;
//! * by conv1's weight: as conv2's, with rows of eight pixels of which five count, two channels in a vector.

use super::pixels::PaddedRows;
use super::simd::{Kernel, LANES, Lanes, Simd};
use lenet_core::arch::{C1, C2, FLAT, K, POOL1_SIDE, POOL2_SIDE};

/// Windows of the second pool.
const WINDOWS: usize = POOL2_SIDE * POOL2_SIDE;

/// Elements of pool1.
pub(super) const POOL1: usize = C1 * POOL1_SIDE * POOL1_SIDE;

/// One image's pool1, or its gradient: `(POOL1_SIDE, POOL1_SIDE, C1)`, each row followed by a vector of zeros.
pub(super) type Rows = [[f32; POOL1_SIDE * C1 + LANES]; POOL1_SIDE];

/// Vectors that hold a row of conv2's kernel, `(K, C1)`.
const ROW: usize = (K * C1).div_ceil(LANES);
/// Places of a kernel's corner in pool1, a side.
const CORNERS: usize = POOL1_SIDE - K + 1;

/// For each place of a kernel's corner the kernel's row of inputs from there: `(y, x, (K, C1))`.
pub(super) type KernelRows = [[[Lanes; ROW]; CORNERS]; POOL1_SIDE];

/// The gradients by the parameters of the convolutions over one group of images, in the layouts of their sums.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub(super) struct Sums {
    /// `(C1 / 2, K, two channels, eight columns)`
    pub conv1_weight: [[Lanes; K]; C1 / 2],
    /// Eight positions' channels.
    pub conv1_bias: [Lanes; 3],
    /// `(C2, ROW, K, LANES)`
    pub conv2_weight: [[[Lanes; K]; ROW]; C2],
    /// `(C2, LANES)`
    pub conv2_bias: [Lanes; C2],
}

impl Sums {
    pub(super) fn conv1_weight(&self, c_out: usize, i: usize, j: usize) -> f32 {
        self.conv1_weight[c_out / 2][i][c_out % 2 * 8 + j]
    }

    pub(super) fn conv1_bias(&self, c_out: usize) -> f32 {
        self.conv1_bias
            .as_flattened()
            .iter()
            .skip(c_out)
            .step_by(C1)
            .sum()
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

/// A winner's place in its window.
#[inline(always)]
fn offset(winner: u8) -> (usize, usize) {
    (usize::from(winner >> 1 & 1), usize::from(winner & 1))
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
    /// By conv2's pooled output before the sigmoid, `(C2, POOL2_SIDE, POOL2_SIDE, LANES)`.
    pub grad: &'a [Lanes; FLAT],
    /// Laid out as `grad`.
    pub winner: &'a [[u8; LANES]; FLAT],
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
        for (pool1, rows) in pool1.iter().zip(rows.iter_mut()) {
            for (x, row) in rows.iter_mut().enumerate() {
                let from: &[f32; ROW * LANES] = pool1[x * C1..].first_chunk().expect("padded");
                for (from, to) in from.as_chunks::<LANES>().0.iter().zip(row) {
                    s.store(s.load(from), to);
                }
            }
        }
        let channels = grad
            .as_chunks::<WINDOWS>()
            .0
            .iter()
            .zip(winner.as_chunks::<WINDOWS>().0);
        for ((grad, winner), sums) in channels.zip(&mut sums.conv2_weight) {
            for (part, sums) in sums.iter_mut().enumerate() {
                let mut acc: [S::V; K] = std::array::from_fn(|i| s.load(&sums[i]));
                for window in 0..WINDOWS {
                    let factor = s.splat(grad[window][image]);
                    let (dy, dx) = offset(winner[window][image]);
                    let (y, x) = (
                        2 * (window / POOL2_SIDE) + dy,
                        2 * (window % POOL2_SIDE) + dx,
                    );
                    for (i, acc) in acc.iter_mut().enumerate() {
                        *acc = s.mul_add(factor, s.load(&rows[y + i][x][part]), *acc);
                    }
                }
                for (acc, sum) in acc.into_iter().zip(sums) {
                    s.store(acc, sum);
                }
            }
        }
    }
}

/// Side of what a pool's window reads.
const FOOTPRINT: usize = K + 1;
/// Vectors that hold a footprint, `(FOOTPRINT, FOOTPRINT, C1)`.
const FOOTPRINT_VECTORS: usize = (FOOTPRINT * FOOTPRINT * C1).div_ceil(LANES);
/// Vectors of a footprint that are summed at once.
const PASS: usize = 5;
const PASSES: usize = FOOTPRINT_VECTORS.div_ceil(PASS);

/// Conv2's kernels laid into the footprint of a window, for each winner: `(pass, C2, winner, vectors)`.
pub(super) type Table = [[[[Lanes; PASS]; 4]; C2]; PASSES];

/// Writes the table; what no kernel covers must be zero already.
pub(super) fn write_table(weight: &[[[[f32; K]; K]; C1]; C2], table: &mut Table) {
    for (c_out, weight) in weight.iter().enumerate() {
        for winner in 0..4 {
            let (dy, dx) = offset(winner);
            for (c_in, weight) in weight.iter().enumerate() {
                for (i, weight) in weight.iter().enumerate() {
                    for (j, &weight) in weight.iter().enumerate() {
                        let at = ((dy + i) * FOOTPRINT + dx + j) * C1 + c_in;
                        let (vector, lane) = (at / LANES, at % LANES);
                        table[vector / PASS][c_out][usize::from(winner)][vector % PASS][lane] =
                            weight;
                    }
                }
            }
        }
    }
}

/// One image's gradient by conv2's input.
pub(super) struct Conv2GradInput<'a> {
    pub table: &'a Table,
    /// As for [`Conv2GradWeight`].
    pub grad: &'a [Lanes; FLAT],
    /// As for [`Conv2GradWeight`].
    pub winner: &'a [[u8; LANES]; FLAT],
    /// The image's lane in `grad` and `winner`.
    pub image: usize,
    /// By pool1; overwritten, the padding with zeros.
    pub grad_input: &'a mut Rows,
}

impl Kernel for Conv2GradInput<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self {
            table,
            grad,
            winner,
            image,
            grad_input,
        } = self;
        assert!(image < LANES);
        let mut footprints = [[[0.0; LANES]; PASSES * PASS]; WINDOWS];
        for (pass, table) in table.iter().enumerate() {
            for (window, footprint) in footprints.iter_mut().enumerate() {
                let mut acc = [s.splat(0.0); PASS];
                for (c_out, table) in table.iter().enumerate() {
                    let at = c_out * WINDOWS + window;
                    let factor = s.splat(grad[at][image]);
                    let kernel = &table[usize::from(winner[at][image] & 3)];
                    for (acc, kernel) in acc.iter_mut().zip(kernel) {
                        *acc = s.mul_add(factor, s.load(kernel), *acc);
                    }
                }
                for (v, acc) in acc.into_iter().enumerate() {
                    s.store(acc, &mut footprint[pass * PASS + v]);
                }
            }
        }
        *grad_input = [[0.0; POOL1_SIDE * C1 + LANES]; POOL1_SIDE];
        for (window, footprint) in footprints.iter().enumerate() {
            let (y, x) = (2 * (window / POOL2_SIDE), 2 * (window % POOL2_SIDE));
            let rows = footprint.as_flattened().as_chunks::<{ FOOTPRINT * C1 }>().0;
            for (row, to) in rows.iter().zip(&mut grad_input[y..y + FOOTPRINT]) {
                for (value, to) in row.iter().zip(&mut to[x * C1..][..FOOTPRINT * C1]) {
                    *to += value;
                }
            }
        }
    }
}

/// Adds one image's gradient by conv1's parameters.
pub(super) struct Conv1GradParams<'a> {
    pub image: &'a PaddedRows,
    /// By conv1's pooled output before the sigmoid, `(POOL1_SIDE, POOL1_SIDE, C1)`.
    pub grad: &'a Rows,
    /// `(POOL1_SIDE, POOL1_SIDE, C1, LANES)`
    pub winner: &'a [[u8; LANES]; POOL1],
    /// The image's lane in `winner`.
    pub lane: usize,
    /// Added to.
    pub sums: &'a mut Sums,
}

/// The kernel's row of pixels from one pixel on, and three more.
#[inline(always)]
fn pixels(image: &PaddedRows, y: usize, x: usize) -> &[f32; 8] {
    image[y][x..].first_chunk().expect("rows are padded")
}

impl Kernel for Conv1GradParams<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self {
            image,
            grad,
            winner,
            lane,
            sums,
        } = self;
        assert!(lane < LANES);
        let winner = winner.as_chunks::<C1>().0.as_chunks::<POOL1_SIDE>().0;
        for (pair, sums) in sums.conv1_weight.iter_mut().enumerate() {
            let mut acc: [S::V; K] = std::array::from_fn(|i| s.load(&sums[i]));
            for y in 0..POOL1_SIDE {
                let grad = grad[y].as_chunks::<C1>().0;
                for x in 0..POOL1_SIDE {
                    let winner = &winner[y][x];
                    let factors = s.splat_halves(grad[x][2 * pair], grad[x][2 * pair + 1]);
                    let (dy0, dx0) = offset(winner[2 * pair][lane]);
                    let (dy1, dx1) = offset(winner[2 * pair + 1][lane]);
                    for (i, acc) in acc.iter_mut().enumerate() {
                        let rows = s.load_halves(
                            pixels(image, 2 * y + dy0 + i, 2 * x + dx0),
                            pixels(image, 2 * y + dy1 + i, 2 * x + dx1),
                        );
                        *acc = s.mul_add(factors, rows, *acc);
                    }
                }
            }
            for (acc, sum) in acc.into_iter().zip(sums) {
                s.store(acc, sum);
            }
        }
        // Six channels and sixteen lanes meet again after three vectors: eight positions.
        let mut acc: [S::V; 3] = std::array::from_fn(|v| s.load(&sums.conv1_bias[v]));
        for row in grad {
            // The last half vector is padding.
            for (v, lanes) in row.as_chunks::<LANES>().0.iter().enumerate() {
                acc[v % 3] = s.add(acc[v % 3], s.load(lanes));
            }
        }
        for (acc, sum) in acc.into_iter().zip(&mut sums.conv1_bias) {
            s.store(acc, sum);
        }
    }
}
