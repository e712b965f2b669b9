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

use super::linear::Panel;
use super::pixels::PaddedRows;
use super::simd::{Kernel, LANES, Lanes, Simd};
use lenet_core::arch::{C1, C2, FLAT, K, POOL1_SIDE, POOL2_SIDE, SIDE};

/// Windows of the second pool.
const WINDOWS: usize = POOL2_SIDE * POOL2_SIDE;

/// Elements of pool1.
pub(super) const POOL1: usize = C1 * POOL1_SIDE * POOL1_SIDE;

/// One image's pool1, or its gradient: `(POOL1_SIDE, POOL1_SIDE, C1)`, followed by a vector of zeros.
pub(super) type Rows = [Lanes; POOL1 / LANES + 1];

/// Elements of a row of pool1.
const ROW1: usize = POOL1_SIDE * C1;

/// Turns pool1 from sixteen images interleaved to one after the other.
pub(super) struct Turn<'a> {
    /// `(POOL1_SIDE, POOL1_SIDE, C1, LANES)`
    pub pool1: &'a [Lanes; POOL1],
    /// Overwritten but for the padding.
    pub out: &'a mut [Rows; LANES],
}

impl Kernel for Turn<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (k, block) in self.pool1.as_chunks::<LANES>().0.iter().enumerate() {
            s.transpose(
                block.each_ref(),
                self.out.each_mut().map(|image| &mut image[k]),
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

/// The place in its window of a winner from 0 to 3.
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
    /// By conv2's pooled output before the sigmoid, `(C2, LANES, (POOL2_SIDE, POOL2_SIDE))`.
    pub grad: &'a [Panel; C2],
    /// `(C2, POOL2_SIDE, POOL2_SIDE, LANES)`
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
        let channels = grad.iter().zip(winner.as_chunks::<WINDOWS>().0);
        for ((grad, winner), sums) in channels.zip(&mut sums.conv2_weight) {
            // Found before they are needed: addresses that depend on a load just made hold up the multiply-adds.
            let corners: [u8; WINDOWS] = std::array::from_fn(|window| {
                let (dy, dx) = offset(winner[window][image]);
                let (y, x) = (
                    2 * (window / POOL2_SIDE) + dy,
                    2 * (window % POOL2_SIDE) + dx,
                );
                (y * CORNERS + x) as u8
            });
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
        let mut acc: [[S::V; K]; P] =
            std::array::from_fn(|p| std::array::from_fn(|i| s.load(&sums[p][i])));
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
/// Elements of a row of a footprint, `(FOOTPRINT, C1)`, with zeros up to whole half vectors.
const FOOTPRINT_ROW: usize = (FOOTPRINT * C1).next_multiple_of(LANES / 2);
/// Vectors of two rows, which are summed at once.
const PAIR: usize = 2 * FOOTPRINT_ROW / LANES;
const PAIRS: usize = FOOTPRINT / 2;

/// Conv2's kernels laid into the footprint of a window, for each winner: `(two rows, C2, winner, vectors)`.
pub(super) type Table = [[[[Lanes; PAIR]; 4]; C2]; PAIRS];

// What the kernels keep of winners: corners and the marks of the first pool in eight bits, offsets into the table in 16.
const _: () = {
    assert!(POOL1_SIDE * CORNERS <= u8::MAX as usize);
    assert!(size_of::<Table>() / PAIRS / size_of::<f32>() <= u16::MAX as usize);
    assert!(ROW0 < u8::MAX as usize);
};

/// Writes the table; what no kernel covers must be zero already.
pub(super) fn write_table(weight: &[[[[f32; K]; K]; C1]; C2], table: &mut Table) {
    for (c_out, weight) in weight.iter().enumerate() {
        for winner in 0..4 {
            let (dy, dx) = offset(winner);
            for (c_in, weight) in weight.iter().enumerate() {
                for (i, weight) in weight.iter().enumerate() {
                    let rows = &mut table[(dy + i) / 2][c_out][usize::from(winner)];
                    let row = &mut rows.as_flattened_mut()[(dy + i) % 2 * FOOTPRINT_ROW..];
                    for (j, &weight) in weight.iter().enumerate() {
                        row[(dx + j) * C1 + c_in] = weight;
                    }
                }
            }
        }
    }
}

/// A group's gradient by conv2's input.
pub(super) struct Conv2GradInput<'a> {
    pub table: &'a Table,
    /// As for [`Conv2GradWeight`].
    pub grad: &'a [Panel; C2],
    /// As for [`Conv2GradWeight`].
    pub winner: &'a [[u8; LANES]; FLAT],
    /// By pool1, for as many images as there are; overwritten.
    pub grad_input: &'a mut [Rows],
}

impl Kernel for Conv2GradInput<'_> {
    type Output = ();

    /// Two rows of the table stay in the fastest cache while all images use them; the lowest come first, so that what a
    /// row gets from the windows above it is added in their order.
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self {
            table,
            grad,
            winner,
            grad_input,
        } = self;
        assert!(grad_input.len() <= LANES);
        // Where in two rows of the table each kernel starts, found before it is needed: (image, window, C2).
        let mut starts = [[[0u16; C2]; WINDOWS]; LANES];
        for (at, winner) in winner.iter().enumerate() {
            let (c_out, window) = (at / WINDOWS, at % WINDOWS);
            for (starts, winner) in starts.iter_mut().zip(winner) {
                let kernel = 4 * c_out + usize::from(winner & 3);
                starts[window][c_out] = (kernel * PAIR * LANES) as u16;
            }
        }
        grad_input.fill(bytemuck::Zeroable::zeroed());
        for (pair, table) in table.iter().enumerate().rev() {
            let table = table.as_flattened().as_flattened().as_flattened();
            for (image, grad_input) in grad_input.iter_mut().enumerate() {
                for (window, starts) in starts[image].iter().enumerate() {
                    let mut acc = [s.splat(0.0); PAIR];
                    for (grad, &start) in grad.iter().zip(starts) {
                        let factor = s.splat(grad[image][window]);
                        let kernel: &[f32; PAIR * LANES] = table[usize::from(start)..]
                            .first_chunk()
                            .expect("a kernel of the table");
                        for (acc, kernel) in acc.iter_mut().zip(kernel.as_chunks().0) {
                            *acc = s.mul_add(factor, s.load(kernel), *acc);
                        }
                    }
                    let (y, x) = (2 * (window / POOL2_SIDE + pair), 2 * (window % POOL2_SIDE));
                    let rows = &mut grad_input.as_flattened_mut()[y * ROW1 + x * C1..];
                    add_pair(s, acc, rows);
                }
            }
        }
    }
}

/// Adds two rows of a footprint to the rows at the start of `rows`; the zeros behind them change nothing there.
#[inline(always)]
fn add_pair<S: Simd>(s: S, pair: [S::V; PAIR], rows: &mut [f32]) {
    const { assert!(FOOTPRINT_ROW == 2 * LANES + LANES / 2 && PAIR == 5) }
    let (first, second) = rows.split_at_mut(ROW1);
    let (first, middle) = first[..FOOTPRINT_ROW].split_at_mut(2 * LANES);
    let (middle2, second) = second[..FOOTPRINT_ROW].split_at_mut(LANES / 2);
    let ([first0, first1], [second0, second1]): (&mut [Lanes], &mut [Lanes]) =
        (first.as_chunks_mut().0, second.as_chunks_mut().0)
    else {
        unreachable!("two vectors each")
    };
    let halves = (
        middle.first_chunk_mut().expect("half a vector"),
        middle2.first_chunk_mut().expect("half a vector"),
    );
    s.store(s.add(s.load(first0), pair[0]), first0);
    s.store(s.add(s.load(first1), pair[1]), first1);
    let sum = s.add(s.load_halves(halves.0, halves.1), pair[2]);
    s.store_halves(sum, halves.0, halves.1);
    s.store(s.add(s.load(second0), pair[3]), second0);
    s.store(s.add(s.load(second1), pair[4]), second1);
}

/// Adds one image's gradient by conv1's parameters.
pub(super) struct Conv1GradParams<'a> {
    pub image: &'a PaddedRows,
    /// By conv1's pooled output before the sigmoid.
    pub grad: &'a Rows,
    /// `(POOL1_SIDE, POOL1_SIDE, C1, LANES)`, by [`CONV1_MARKS`].
    pub winner: &'a [[u8; LANES]; POOL1],
    /// The image's lane in `winner`.
    pub lane: usize,
    /// Added to.
    pub sums: &'a mut Sums,
}

/// Elements of a row of the image.
const ROW0: usize = size_of::<PaddedRows>() / size_of::<f32>() / SIDE;
/// The winners of the first pool are marked by how far into the image their position is from the window's first.
pub(super) const CONV1_MARKS: [u8; 4] = [0, 1, ROW0 as u8, ROW0 as u8 + 1];

/// From the first pixel that conv1's kernel reads to the last, and three more.
type Window = [f32; (K - 1) * ROW0 + 8];

/// At the winner's position in the window `y`, `x` of the first pool.
#[inline(always)]
fn window(image: &PaddedRows, y: usize, x: usize, winner: u8) -> &Window {
    image.as_flattened()[2 * (y * ROW0 + x) + usize::from(winner)..]
        .first_chunk()
        .expect("the kernel fits")
}

/// The kernel's row `i`, and three more pixels.
#[inline(always)]
fn eight(window: &Window, i: usize) -> &[f32; 8] {
    window[i * ROW0..].first_chunk().expect("eight pixels")
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
        let grad = grad.as_flattened();
        let (grads, winners) = (grad.as_chunks::<C1>().0, winner.as_chunks::<C1>().0);
        for (pair, sums) in sums.conv1_weight.iter_mut().enumerate() {
            let mut acc: [S::V; K] = std::array::from_fn(|i| s.load(&sums[i]));
            for y in 0..POOL1_SIDE {
                for x in 0..POOL1_SIDE {
                    let at = y * POOL1_SIDE + x;
                    let (grad, winner) = (&grads[at], &winners[at]);
                    let factors = s.splat_halves(grad[2 * pair], grad[2 * pair + 1]);
                    let low = window(image, y, x, winner[2 * pair][lane]);
                    let high = window(image, y, x, winner[2 * pair + 1][lane]);
                    for (i, acc) in acc.iter_mut().enumerate() {
                        let pixels = s.load_halves(eight(low, i), eight(high, i));
                        *acc = s.mul_add(factors, pixels, *acc);
                    }
                }
            }
            for (acc, sum) in acc.into_iter().zip(sums) {
                s.store(acc, sum);
            }
        }
        // Six channels and sixteen lanes meet again after three vectors: eight positions. A row has four and a half.
        let mut acc: [S::V; 3] = std::array::from_fn(|v| s.load(&sums.conv1_bias[v]));
        for row in grad.as_chunks::<ROW1>().0 {
            let (whole, half) = row.as_chunks::<LANES>();
            for (v, lanes) in whole.iter().enumerate() {
                acc[v % 3] = s.add(acc[v % 3], s.load(lanes));
            }
            let half = half.first_chunk().expect("half a vector");
            acc[1] = s.add(acc[1], s.load_halves(half, &[0.0; LANES / 2]));
        }
        for (acc, sum) in acc.into_iter().zip(&mut sums.conv1_bias) {
            s.store(acc, sum);
        }
    }
}
