//! The weight gradient with max pooling, computed from the winner of each window, one image at a time.

use super::super::pixels::transpose_bytes;
use super::super::pool::POOL;
use super::super::simd::{HALF, HalfLanes, Kernel, LANES, Lanes, Lanewise, Simd};
use super::super::winograd::K;
use super::{Sums, sparse};
use lenet_core::layer::Layered;
use std::marker::PhantomData;

/// Transposes the gradient of the pooled output from 16 interleaved images to one image after the other.
pub(super) struct Deinterleave<'a> {
    pub lanes: &'a [Lanes],
    /// Each as long as `lanes`; overwritten.
    pub images: [&'a mut [f32]; LANES],
}

impl Kernel for Deinterleave<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let (blocks, last) = self.lanes.as_chunks::<LANES>();
        for (k, block) in blocks.iter().enumerate() {
            let images = self.images.each_mut();
            s.transpose(
                block.each_ref(),
                images.map(|image| &mut image.as_chunks_mut().0[k]),
            );
        }
        for (k, lanes) in last.iter().enumerate() {
            for (value, image) in lanes.iter().zip(&mut self.images) {
                image[blocks.len() * LANES + k] = *value;
            }
        }
    }
}

/// Transposes the winners in the same way.
pub(super) struct DeinterleaveWinners<'a> {
    pub lanes: &'a [[u8; LANES]],
    /// Each as long as `lanes`; overwritten.
    pub images: [&'a mut [u8]; LANES],
}

impl Kernel for DeinterleaveWinners<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, _: S) {
        let (blocks, last) = self.lanes.as_chunks::<LANES>();
        for (k, block) in blocks.iter().enumerate() {
            let images = self.images.each_mut();
            transpose_bytes(
                block.each_ref(),
                images.map(|image| &mut image.as_chunks_mut().0[k]),
            );
        }
        for (k, lanes) in last.iter().enumerate() {
            for (value, image) in lanes.iter().zip(&mut self.images) {
                image[blocks.len() * LANES + k] = *value;
            }
        }
    }
}

/// The distance from one row of an image to the next, in floats. The row's columns fill two cache lines. A third line repeats
/// those at which a half vector would cross from the first line into the second.
pub(super) const ROW_STRIDE: usize = 3 * LANES;
/// The first of the repeated columns.
const REPEATED: usize = LANES - HALF;
/// The distance from a repeated column to its copy.
const TO_COPY: usize = 2 * LANES - REPEATED;
/// The number of floats that a kernel reads from its corner on.
const KERNEL: usize = (K - 1) * ROW_STRIDE + HALF;

/// Returns the position in the image of each window's corner.
const fn window_corners<const PH: usize, const PW: usize>() -> [[u16; PW]; PH] {
    let mut corners = [[0; PW]; PH];
    let mut y = 0;
    while y < PH {
        let mut x = 0;
        while x < PW {
            let column = POOL * x;
            let column = if column >= REPEATED && column < LANES {
                column + TO_COPY
            } else {
                column
            };
            corners[y][x] = (POOL * y * ROW_STRIDE + column) as u16;
            x += 1;
        }
        y += 1;
    }
    corners
}

/// Adds one image's weight gradient, computed from the winners.
///
/// # Numerics
/// The sum of each image runs over the windows in row order, fused; it is then added to the sum over images.
pub(super) struct GradSparse<
    'a,
    L,
    const M: usize,
    const H: usize,
    const W: usize,
    const PH: usize,
    const PW: usize,
> {
    pub layer: PhantomData<L>,
    pub pixels: &'a [[u8; W]; H],
    /// The position of each window's winner.
    pub winner: &'a [[[u8; PW]; PH]; M],
    /// The gradient of the pooled output before the activation.
    pub grad: &'a [[[f32; PW]; PH]; M],
    /// Overwritten.
    pub image: &'a mut [[f32; ROW_STRIDE]; H],
    /// Overwritten.
    pub corners: &'a mut [[[u16; PW]; PH]; M],
    /// The sums to which the gradient is added.
    pub sums: &'a mut Sums<M>,
}

impl<L: Layered, const M: usize, const H: usize, const W: usize, const PH: usize, const PW: usize>
    Kernel for GradSparse<'_, L, M, H, W, PH, PW>
{
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        const {
            let fits = W >= LANES && W <= 28 && POOL * PW + K == W + 1 && POOL * PH + K == H + 1;
            assert!(fits || !sparse(&L::LAYER));
        }
        let Self {
            image,
            corners,
            sums,
            ..
        } = self;
        for (pixels, row) in self.pixels.iter().zip(&mut *image) {
            let again = REPEATED.min(W - LANES);
            for (from, to) in [(0, 0), (W - LANES, W - LANES), (again, again + TO_COPY)] {
                let pixels = pixels[from..].first_chunk().expect("within a row");
                let row = row[to..].first_chunk_mut().expect("within a row");
                s.store(s.load_bytes(pixels), row);
            }
        }
        let first = const { window_corners::<PH, PW>() };
        for (corners, winner) in corners.iter_mut().zip(self.winner) {
            let windows = first.as_flattened().iter().zip(winner.as_flattened());
            for (corner, (first, winner)) in corners.as_flattened_mut().iter_mut().zip(windows) {
                let corner_of_winner =
                    first + u16::from(winner >> 1) * ROW_STRIDE as u16 + u16::from(winner & 1);
                *corner = corner_of_winner.to_le();
            }
        }

        /// The number of maps at a time: enough sums to hide the latency of the multiply-adds.
        const TILE: usize = 2;
        let (grads, last_grads) = self.grad.as_chunks::<TILE>();
        let (corners, last_corners) = corners.as_chunks::<TILE>();
        let (sums, last_sums) = sums.weight.as_chunks_mut::<TILE>();
        for ((grads, corners), sums) in grads.iter().zip(corners).zip(sums) {
            add_windows(s.half(), image.as_flattened(), grads, corners, sums);
        }
        let (grads, corners) = (
            last_grads.as_chunks::<1>().0,
            last_corners.as_chunks::<1>().0,
        );
        let sums = last_sums.as_chunks_mut::<1>().0;
        for ((grads, corners), sums) in grads.iter().zip(corners).zip(sums) {
            add_windows(s.half(), image.as_flattened(), grads, corners, sums);
        }
    }
}

/// Adds the weight gradient of `T` maps.
#[inline(always)]
fn add_windows<S: Lanewise<HALF>, const T: usize, const PH: usize, const PW: usize>(
    s: S,
    image: &[f32],
    grads: &[[[f32; PW]; PH]; T],
    corners: &[[[u16; PW]; PH]; T],
    sums: &mut [[HalfLanes; K]; T],
) {
    /// The number of windows whose corners are loaded together, because loads limit this loop.
    const AT_ONCE: usize = 2;
    let grads = grads.each_ref().map(|map| map.as_flattened());
    let corners = corners.each_ref().map(|map| map.as_flattened());
    let mut acc = [[s.splat(0.0); K]; T];
    // A macro, because a closure would keep the sums in memory.
    macro_rules! add {
        ($t:expr, $grad:expr, $corner:expr) => {
            let grad = s.splat($grad);
            let kernel: &[f32; KERNEL] = image[usize::from($corner)..]
                .first_chunk()
                .expect("the kernel fits");
            for i in 0..K {
                let row = kernel[i * ROW_STRIDE..]
                    .first_chunk()
                    .expect("within KERNEL");
                acc[$t][i] = s.mul_add(grad, s.load(row), acc[$t][i]);
            }
        };
    }
    let pairs = PH * PW / AT_ONCE;
    for pair in 0..pairs {
        let mut together = [0u32; T];
        for t in 0..T {
            let corners: &[[u16; AT_ONCE]] = corners[t].as_chunks().0;
            together[t] = u32::from_le(bytemuck::must_cast(corners[pair]));
        }
        for k in 0..AT_ONCE {
            for t in 0..T {
                add!(t, grads[t][AT_ONCE * pair + k], together[t] as u16);
                together[t] >>= 16;
            }
        }
    }
    for window in AT_ONCE * pairs..PH * PW {
        for t in 0..T {
            add!(t, grads[t][window], u16::from_le(corners[t][window]));
        }
    }
    for t in 0..T {
        for i in 0..K {
            let sum = s.load(&sums[t][i]);
            s.store(s.add(sum, acc[t][i]), &mut sums[t][i]);
        }
    }
}
