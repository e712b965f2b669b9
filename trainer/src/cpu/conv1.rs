//! conv1, its pool and its sigmoid, of sixteen images, and the gradient by its parameters.
//!
//! The way there is by [`winograd`]'s algorithm along rows. Four outputs side by side are the upper or the lower halves of
//! two of the pool's windows. Four columns are done from top to bottom before the next, and of them two rows of outputs at
//! a time, so that what is stored on the way stays in the fastest cache.
//!
//! Of the four positions of a pool's window only the winner passes a gradient on, so that three quarters of the dense
//! products are with zero. Sixteen interleaved images have sixteen different winners; one image has one. So the gradient
//! by the weight is taken image by image: a vector is a run of one image's memory, the gradient by a pool's output is a
//! broadcast factor: `sum[i] += grad · pixels[y+i][x..x+8]`, of whose eight columns the kernel has five.

use super::pixels::{WHITE, transpose_bytes};
use super::pool::pool;
use super::sigmoid::{sigmoid, sigmoid_grad};
use super::simd::{
    HALF, HalfLanes, Kernel, LANES, Lanes, Lanewise, Simd, by_parts, part, part_mut, sum_lanes,
};
use super::winograd::{self, OUTPUTS, POINTS, at_points, interpolate};
use crate::lenet::{C1, CONV1_SIDE, K, POOL, POOL1_SIDE, SIDE};
use bytemuck::{Pod, Zeroable};
use lenet_core::network::Pixels;

/// Elements of pool1.
pub(super) const POOL1: usize = C1 * POOL1_SIDE * POOL1_SIDE;

/// Of each of conv1's windows: `(POOL1_SIDE, POOL1_SIDE, C1)`.
pub(super) type Pool1<T> = [[[T; C1]; POOL1_SIDE]; POOL1_SIDE];

/// Of one image, the gradient by pool1, `(POOL1_SIDE, POOL1_SIDE, C1)`.
pub(super) type Pool1Image = [Lanes; POOL1 / LANES];

/// The kernels at each point, for stored pixels: `(POINTS, C1, K)`.
pub(super) type Kernels = [[[f32; K]; C1]; POINTS];

/// The kernels at each point, in f64, rounded once.
pub(super) fn set_kernels(weight: &[[[[f32; K]; K]; 1]; C1], kernels: &mut Kernels) {
    for (c, [rows]) in weight.iter().enumerate() {
        for (i, row) in rows.iter().enumerate() {
            let taps = row.map(|tap| [f64::from(tap) / f64::from(WHITE)]);
            for (kernels, [value]) in kernels.iter_mut().zip(at_points(&taps)) {
                kernels[c][i] = value as f32;
            }
        }
    }
}

/// What the forward pass keeps on its way.
#[derive(Clone, Copy, Zeroable)]
#[repr(C, align(64))]
pub(super) struct ForwardScratch {
    /// Of the columns that four outputs read, the values at each point.
    values: [[Lanes; SIDE]; POINTS],
    /// Of the upper and the lower row of two windows, the sums at each point.
    sums: [[[Lanes; C1]; POINTS]; POOL],
    /// The outputs.
    outputs: [[[Lanes; OUTPUTS]; C1]; POOL],
}

/// The forward pass. With `WINNER` it tells who won each window, as the way back needs.
///
/// # Numerics
/// At each point a sum takes its terms by row of the kernel, fused. Of equal values in a window the first in row order
/// wins.
pub(super) struct Forward<'a, const WINNER: bool> {
    /// As stored.
    pub image: &'a [[[u8; LANES]; SIDE]; SIDE],
    /// Made by [`set_kernels`].
    pub kernels: &'a Kernels,
    pub bias: &'a [f32; C1],
    /// Overwritten.
    pub out: &'a mut Pool1<Lanes>,
    /// Which position of its window won, 0 to 3 in row order; overwritten with `WINNER`, else left.
    pub winner: &'a mut Pool1<[u8; LANES]>,
    /// Overwritten.
    pub scratch: &'a mut ForwardScratch,
}

impl<const WINNER: bool> Kernel for Forward<'_, WINNER> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let ForwardScratch {
            values,
            sums,
            outputs,
        } = self.scratch;
        for first in (0..CONV1_SIDE).step_by(OUTPUTS) {
            for (y, row) in self.image.iter().enumerate() {
                let pixels = row[first..].first_chunk().expect("inside");
                let mut values = values.each_mut().map(|values| &mut values[y]);
                by_parts!(s, evaluate(pixels, &mut values));
            }
            for y in 0..POOL1_SIDE {
                for (p, (kernels, values)) in self.kernels.iter().zip(&*values).enumerate() {
                    let rows = values[POOL * y..].first_chunk().expect("inside");
                    let sums = sums.each_mut().map(|sums| &mut sums[p]);
                    if S::WIDE {
                        multiply::<S, C1>(s, kernels, rows, sums);
                    } else {
                        multiply::<S, 2>(s, kernels, rows, sums);
                    }
                }
                for (sums, outputs) in sums.iter().zip(&mut *outputs) {
                    for (c, outputs) in outputs.iter_mut().enumerate() {
                        let sums = sums.each_ref().map(|sums| &sums[c]);
                        by_parts!(s, interpolate_part(sums, outputs));
                    }
                }
                let [upper, lower] = &*outputs;
                for c in 0..C1 {
                    for x in 0..OUTPUTS / POOL {
                        let window = [upper, lower].map(|row| &row[c].as_chunks().0[x]);
                        let at = first / POOL + x;
                        let (out, winner) = (&mut self.out[y][at][c], &mut self.winner[y][at][c]);
                        pool::<LANES, S, WINNER>(s, window, self.bias[c], out, winner);
                    }
                }
            }
            // Apart, as each is a long chain of operations, of which as many as possible must run side by side.
            for row in &mut *self.out {
                let outs = &mut row[first / POOL..][..OUTPUTS / POOL];
                for out in outs.as_flattened_mut() {
                    s.store(sigmoid(s, s.load(out)), out);
                }
            }
        }
    }
}

/// The values at each point of pixels in a row: part `n` of their lanes.
#[inline(always)]
fn evaluate<const N: usize, S: Lanewise<N>>(
    s: S,
    n: usize,
    pixels: &[[u8; LANES]; POINTS],
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

/// The outputs in a row from their sums at the points: part `n` of their lanes.
#[inline(always)]
fn interpolate_part<const N: usize, S: Lanewise<N>>(
    s: S,
    n: usize,
    sums: [&Lanes; POINTS],
    outputs: &mut [Lanes; OUTPUTS],
) {
    let sums = sums.map(|sums| part(sums, n));
    interpolate(
        s,
        sums,
        outputs.each_mut().map(|output| part_mut(output, n)),
    );
}

/// The sums over rows at one point, of two rows of outputs, in tiles of `T` channels.
#[inline(always)]
fn multiply<S: Simd, const T: usize>(
    s: S,
    kernels: &[[f32; K]; C1],
    rows: &[Lanes; K + POOL - 1],
    [upper, lower]: [&mut [Lanes; C1]; POOL],
) {
    const { assert!(C1.is_multiple_of(T)) }
    let sums = upper.as_chunks_mut::<T>().0.iter_mut();
    let sums = sums.zip(lower.as_chunks_mut::<T>().0);
    for (kernels, (upper, lower)) in kernels.as_chunks::<T>().0.iter().zip(sums) {
        let mut acc = [[s.splat(0.0); POOL]; T];
        // What the lower row reads, the upper row reads next.
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
}

/// Elements of a row of pool1.
const ROW1: usize = POOL1_SIDE * C1;

/// The gradients by conv1's parameters over one group of images.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(super) struct Sums {
    /// `(C1, K, HALF)`, of which a row has `K`; by stored pixels.
    weight: [[HalfLanes; K]; C1],
    /// `(C1, LANES)`
    pub(super) bias: [Lanes; C1],
}

impl Sums {
    /// The gradient by the weight.
    pub(super) fn weight(&self) -> [[[[f32; K]; K]; 1]; C1] {
        self.weight
            .map(|rows| [rows.map(|row| std::array::from_fn(|j| row[j] / f32::from(WHITE)))])
    }

    /// The gradient by the bias.
    pub(super) fn bias(&self) -> [f32; C1] {
        self.bias.map(sum_lanes)
    }
}

/// Turns the gradient by pool1 from sixteen images interleaved to one after the other.
pub(super) struct Turn<'a> {
    /// `(POOL1_SIDE, POOL1_SIDE, C1, LANES)`
    pub lanes: &'a [Lanes; POOL1],
    /// `(LANES, (POOL1_SIDE, POOL1_SIDE, C1))`; overwritten.
    pub images: &'a mut [Pool1Image; LANES],
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

/// Turns the gradient by pool1 into that before its sigmoid, whose sum over windows is the gradient by conv1's bias.
pub(super) struct GradBias<'a> {
    /// What the sigmoid gave.
    pub out: &'a Pool1<Lanes>,
    pub grad: &'a mut Pool1<Lanes>,
    /// Overwritten.
    pub sums: &'a mut [Lanes; C1],
}

impl Kernel for GradBias<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut acc = [s.splat(0.0); C1];
        let outs = self.out.as_flattened().iter();
        for (out, grad) in outs.zip(self.grad.as_flattened_mut()) {
            for c in 0..C1 {
                let by_sum = sigmoid_grad(s, s.load(&out[c]), s.load(&grad[c]));
                acc[c] = s.add(acc[c], by_sum);
                s.store(by_sum, &mut grad[c]);
            }
        }
        for (acc, sum) in acc.into_iter().zip(self.sums) {
            s.store(acc, sum);
        }
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

/// What the gradient by conv1's weight keeps of one image on its way.
#[derive(Clone, Copy, Zeroable)]
#[repr(C, align(64))]
pub(super) struct GradScratch {
    /// The image.
    rows: [[f32; PITCH]; SIDE],
    /// Of each element of pool1, where the kernel lay that won; little-endian.
    corners: [u16; POOL1],
}

/// Adds one image's gradient by conv1's weight.
///
/// # Numerics
/// Each image's sum is taken over the windows in row order, fused, and added to the sum over images.
pub(super) struct GradWeight<'a> {
    pub pixels: &'a Pixels,
    /// `(POOL1_SIDE, POOL1_SIDE, C1)`: which position of its window won.
    pub winner: &'a [u8; POOL1],
    /// By conv1's pooled output before the sigmoid.
    pub grad: &'a Pool1Image,
    /// Overwritten.
    pub scratch: &'a mut GradScratch,
    /// Added to.
    pub sums: &'a mut Sums,
}

impl Kernel for GradWeight<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let GradScratch { rows, corners } = self.scratch;
        for (pixels, row) in self.pixels[0].iter().zip(&mut *rows) {
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
        let tiles = self.sums.weight.as_chunks_mut::<TILE>().0;
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

#[cfg(test)]
mod tests {
    use super::super::pool::tests::assert_window;
    use super::super::simd::Isa;
    use super::*;
    use crate::dataset::generator;
    use crate::init::initial_params;
    use bytemuck::zeroed_box;
    use rand_chacha::rand_core::Rng;

    type Image = [[[u8; LANES]; SIDE]; SIDE];

    /// With the initial weights: outputs and winners.
    fn run(isa: Isa, image: &Image) -> (Box<Pool1<Lanes>>, Box<Pool1<[u8; LANES]>>) {
        let params = initial_params(0);
        let (mut kernels, mut scratch) = (zeroed_box(), zeroed_box());
        set_kernels(&params.conv1.weight, &mut kernels);
        let (mut out, mut winner) = (zeroed_box(), zeroed_box());
        isa.run(Forward::<true> {
            image,
            kernels: &kernels,
            bias: &params.conv1.bias,
            out: &mut out,
            winner: &mut winner,
            scratch: &mut scratch,
        });
        (out, winner)
    }

    #[test]
    fn forward_is_its_definition() {
        let params = initial_params(0);
        let mut rng = generator(0, 0);
        let mut image: Image = [[[0; LANES]; SIDE]; SIDE];
        for pixel in image.as_flattened_mut().as_flattened_mut() {
            *pixel = rng.next_u32() as u8;
        }
        for isa in Isa::every() {
            let (out, winner) = run(isa, &image);
            for y in 0..POOL1_SIDE {
                for x in 0..POOL1_SIDE {
                    for c in 0..C1 {
                        let lane = (y + x + c) % LANES;
                        let pixel =
                            |_, y: usize, x: usize| f64::from(image[y][x][lane]) / f64::from(WHITE);
                        let found = (out[y][x][c][lane], winner[y][x][c][lane]);
                        let (weight, bias) = (&params.conv1.weight[c], params.conv1.bias[c]);
                        assert_window(weight, bias, pixel, [y, x], found);
                    }
                }
            }
        }
    }

    /// On flat pictures, and those that change along one side only, the first of equal values wins.
    #[test]
    fn ties_stay_ties() {
        let pictures: [fn(usize, usize) -> u8; 3] = [
            |_, _| 96,
            |y, _| ((y as f32 * 0.7).sin().abs() * 255.0) as u8,
            |_, x| ((x as f32 * 0.7).sin().abs() * 255.0) as u8,
        ];
        let may_win: [&[u8]; 3] = [&[0], &[0, 2], &[0, 1]];
        for (picture, may_win) in pictures.into_iter().zip(may_win) {
            let image: Image =
                std::array::from_fn(|y| std::array::from_fn(|x| [picture(y, x); LANES]));
            for isa in Isa::every() {
                let (_, winner) = run(isa, &image);
                let mut winners = winner.as_flattened().as_flattened().as_flattened().iter();
                assert!(winners.all(|winner| may_win.contains(winner)), "{isa:?}");
            }
        }
    }
}
