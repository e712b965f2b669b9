//! A first convolution over one channel, of 16 images, with its pooling and activation, and the gradient of its parameters, by
//! [`winograd`]'s algorithm along rows.
//!
//! The outputs are computed four columns at a time, from top to bottom and two rows at a time, so that intermediate values stay
//! in the L1 cache. The inputs are stored pixels, integers from 0 to 255; the kernels are divided by 255 instead.
//!
//! # The weight gradient
//! With max pooling, only the winner of a window's four positions has a gradient, so three quarters of the dense products would
//! be with zero. In 16 interleaved images, the 16 winners differ, so the weight gradient is computed for one image at a time
//! ([`GradSparse`]). A vector is then eight neighbouring pixels of one image, and the gradient of a pooled output is a
//! broadcast factor: `sum[i] += grad · pixels[y+i][x..x+8]`. The kernel has five of these eight columns.
//!
//! Otherwise the gradient is dense ([`GradDense`]), by the steps of the forward pass transposed: the gradient of the outputs in
//! a row becomes that of the products at each point, and the gradient of a kernel at a point is the sum of the products of this
//! gradient and the values.

use super::activation::activate;
use super::pixels::{Stored, WHITE, transpose_bytes};
use super::pool::{GradBias, OutputGrad, POOL, Trace, is_known, pool_block};
use super::simd::{
    HALF, HalfLanes, Kernel, LANES, Lanes, Lanewise, Simd, by_parts, load_all, part, part_mut,
    store_all, sum_lanes,
};
use super::winograd::{
    self, K, OUTPUTS, POINTS, at_points, at_points_grad, outputs, products_grad,
};
use bytemuck::Zeroable;
use lenet_core::layer::{Layered, Pool};
use lenet_core::plan::{Kind, Layer};
use std::marker::PhantomData;

/// Returns whether this algorithm can compute a layer, if it is the first.
pub(super) const fn can_do(layer: &Layer) -> bool {
    let [channels, ..] = layer.input;
    let [_, height, _] = layer.convolved();
    matches!(layer.kind, Kind::Conv2d)
        && layer.kernel == K
        && channels == 1
        && height.is_multiple_of(POOL)
        && is_known(layer.pool)
}

/// Returns whether a layer's weight gradient is computed from the winners.
const fn sparse(layer: &Layer) -> bool {
    let [_, _, width] = layer.input;
    matches!(layer.pool, Pool::Max(_)) && layer.padding == 0 && width >= LANES && width <= 28
}

/// The kernels at each point, for stored pixels: `(POINTS, M, K)`.
pub(super) type Kernels<const M: usize> = [[[f32; K]; M]; POINTS];

/// Computes the kernels at each point, in f64 with one rounding at the end.
pub(super) fn transform_kernels<const M: usize>(
    weight: &[[[[f32; K]; K]; 1]; M],
    kernels: &mut Kernels<M>,
) {
    for (m, [rows]) in weight.iter().enumerate() {
        for (i, row) in rows.iter().enumerate() {
            let taps = row.map(|tap| [f64::from(tap) / f64::from(WHITE)]);
            for (kernels, [value]) in kernels.iter_mut().zip(at_points(&taps)) {
                kernels[m][i] = value as f32;
            }
        }
    }
}

/// The intermediate results of the forward pass. `HP` is the height with the padding.
#[derive(Clone, Copy, Zeroable)]
#[repr(C, align(64))]
pub struct ForwardScratch<const M: usize, const HP: usize> {
    /// The values at each point, for the columns that four outputs read; always zero in the padding.
    values: [[Lanes; HP]; POINTS],
    /// The sums at each point, for the upper and the lower row of two blocks.
    sums: [[[Lanes; M]; POINTS]; POOL],
}

/// The forward pass. With `TRAIN` it writes what the backward pass needs.
///
/// # Numerics
/// The sum at a point adds its terms by row of the kernel, fused.
pub(super) struct Forward<
    'a,
    L,
    const TRAIN: bool,
    const M: usize,
    const H: usize,
    const W: usize,
    const HP: usize,
    const CH: usize,
    const CW: usize,
    const PH: usize,
    const PW: usize,
> {
    pub layer: PhantomData<L>,
    /// The stored pixels.
    pub image: &'a [[[u8; LANES]; W]; H],
    /// Made by [`transform_kernels`].
    pub kernels: &'a Kernels<M>,
    pub bias: &'a [f32; M],
    /// Overwritten.
    pub out: &'a mut [[[Lanes; PW]; PH]; M],
    /// Overwritten with `TRAIN`, else unchanged.
    pub trace: &'a mut Trace<M, CH, CW, PH, PW>,
    /// Overwritten.
    pub scratch: &'a mut ForwardScratch<M, HP>,
}

impl<
    L: Layered,
    const TRAIN: bool,
    const M: usize,
    const H: usize,
    const W: usize,
    const HP: usize,
    const CH: usize,
    const CW: usize,
    const PH: usize,
    const PW: usize,
> Kernel for Forward<'_, L, TRAIN, M, H, W, HP, CH, CW, PH, PW>
{
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        const {
            assert!(can_do(&L::LAYER));
            assert!(HP == H + 2 * L::LAYER.padding && CH + K == HP + 1);
            assert!(CW + K == W + 2 * L::LAYER.padding + 1);
        }
        let ForwardScratch { values, sums } = self.scratch;
        for first in (0..CW).step_by(OUTPUTS) {
            evaluate_columns::<L, S, H, W, HP>(s, self.image, first, values);
            for y in 0..CH / POOL {
                for (p, (kernels, values)) in self.kernels.iter().zip(&*values).enumerate() {
                    let rows = values[POOL * y..].first_chunk().expect("inside");
                    let sums = sums.each_mut().map(|sums| &mut sums[p]);
                    if S::WIDE {
                        multiply::<S, M, 6>(s, kernels, rows, sums);
                    } else {
                        multiply::<S, M, 2>(s, kernels, rows, sums);
                    }
                }
                let (out, trace) = (&mut *self.out, &mut *self.trace);
                let (layer, bias) = (self.layer, self.bias);
                pool_row::<LANES, _, _, TRAIN, M, CH, CW, PH, PW>(
                    s, 0, layer, sums, bias, y, first, out, trace,
                );
            }
            // This runs separately: each window is a long chain of operations, so as many as possible must run side by side.
            let window = const { L::LAYER.pool.window() };
            let columns = first / window..PW.min((first + OUTPUTS) / window);
            match const { L::LAYER.pool } {
                Pool::Average(_) => {}
                _ => {
                    for map in &mut *self.out {
                        for row in map {
                            for out in &mut row[columns.clone()] {
                                let value = activate(s, const { L::LAYER.activation }, s.load(out));
                                s.store(value, out);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Computes the values at each point, for the columns that the outputs from `first` on read.
#[inline(always)]
fn evaluate_columns<L: Layered, S: Simd, const H: usize, const W: usize, const HP: usize>(
    s: S,
    image: &[[[u8; LANES]; W]; H],
    first: usize,
    values: &mut [[Lanes; HP]; POINTS],
) {
    const BLACK: &[u8; LANES] = &[0; LANES];
    let padding = const { L::LAYER.padding };
    for (y, row) in image.iter().enumerate() {
        let pixels: [&[u8; LANES]; POINTS] = if padding == 0 && W.is_multiple_of(OUTPUTS) {
            let pixels: &[_; POINTS] = row[first..].first_chunk().expect("inside");
            pixels.each_ref()
        } else {
            std::array::from_fn(|x| row.get((first + x).wrapping_sub(padding)).unwrap_or(BLACK))
        };
        let mut values = values.each_mut().map(|values| &mut values[y + padding]);
        by_parts!(s, evaluate(pixels, &mut values));
    }
}

/// Computes the values at each point, for pixels in a row and part `n` of the lanes.
#[inline(always)]
fn evaluate<const N: usize, S: Lanewise<N>>(
    s: S,
    n: usize,
    pixels: [&[u8; LANES]; POINTS],
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

/// Computes the pooled outputs of two rows of four outputs from their sums at the points, for part `n` of the lanes.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn pool_row<
    const N: usize,
    S: Lanewise<N>,
    L: Layered,
    const TRAIN: bool,
    const M: usize,
    const CH: usize,
    const CW: usize,
    const PH: usize,
    const PW: usize,
>(
    s: S,
    n: usize,
    layer: PhantomData<L>,
    [upper, lower]: &[[[Lanes; M]; POINTS]; POOL],
    bias: &[f32; M],
    y: usize,
    first: usize,
    out: &mut [[[Lanes; PW]; PH]; M],
    trace: &mut Trace<M, CH, CW, PH, PW>,
) {
    for m in 0..M {
        let sums = upper.each_ref().map(|sums| part(&sums[m], n));
        let [a0, a1, a2, a3] = outputs(s, load_all(s, sums));
        let sums = lower.each_ref().map(|sums| part(&sums[m], n));
        let [b0, b1, b2, b3] = outputs(s, load_all(s, sums));
        for (l, block) in [[[a0, a1], [b0, b1]], [[a2, a3], [b2, b3]]]
            .into_iter()
            .enumerate()
        {
            let x = first / POOL + l;
            if CW.is_multiple_of(OUTPUTS) || POOL * x < CW {
                let at = [m, y, x];
                pool_block::<L, TRAIN, N, S, M, CH, CW, PH, PW>(
                    layer, s, n, block, bias[m], at, out, trace,
                );
            }
        }
    }
}

/// Computes the sums over the kernel's rows at one point, for two rows of outputs, in tiles of `T` maps.
#[inline(always)]
fn multiply<S: Simd, const M: usize, const T: usize>(
    s: S,
    kernels: &[[f32; K]; M],
    rows: &[Lanes; K + POOL - 1],
    [upper, lower]: [&mut [Lanes; M]; POOL],
) {
    let (kernels, last_kernels) = kernels.as_chunks::<T>();
    let (upper, last_upper) = upper.as_chunks_mut::<T>();
    let (lower, last_lower) = lower.as_chunks_mut::<T>();
    for (kernels, sums) in kernels.iter().zip(upper.iter_mut().zip(lower)) {
        multiply_tile(s, kernels, rows, sums);
    }
    let last = last_upper.as_chunks_mut::<1>().0.iter_mut();
    let last = last.zip(last_lower.as_chunks_mut::<1>().0);
    for (kernels, sums) in last_kernels.as_chunks::<1>().0.iter().zip(last) {
        multiply_tile(s, kernels, rows, sums);
    }
}

/// Computes the sums over the kernel's rows at one point, for two rows of outputs and `T` maps.
#[inline(always)]
fn multiply_tile<S: Simd, const T: usize>(
    s: S,
    kernels: &[[f32; K]; T],
    rows: &[Lanes; K + POOL - 1],
    (upper, lower): (&mut [Lanes; T], &mut [Lanes; T]),
) {
    let mut acc = [[s.splat(0.0); POOL]; T];
    // The upper row reads next what the lower row reads now.
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

/// The gradients of the parameters, summed over one group of images.
#[derive(Clone, Copy, Zeroable)]
#[repr(C, align(64))]
pub struct Sums<const M: usize> {
    /// `(M, K, HALF)`, the gradient for stored pixels. A row holds the `K` columns of the kernel if it is computed from the
    /// winners, else the kernel's values at the points.
    weight: [[HalfLanes; K]; M],
    /// `(M, LANES)`
    bias: [Lanes; M],
}

impl<const M: usize> Sums<M> {
    /// Returns the sums as slices, to which those of another group are added.
    pub(super) fn parts(&self) -> [&[f32]; 2] {
        let weight = self.weight.as_flattened().as_flattened();
        [weight, self.bias.as_flattened()]
    }

    /// Returns the same as [`parts`](Self::parts), mutably.
    pub(super) fn parts_mut(&mut self) -> [&mut [f32]; 2] {
        let weight = self.weight.as_flattened_mut().as_flattened_mut();
        [weight, self.bias.as_flattened_mut()]
    }

    /// Computes the weight gradient.
    pub(super) fn weight<L: Layered>(&self, weight: &mut [[[[f32; K]; K]; 1]; M]) {
        for (sums, [kernel]) in self.weight.iter().zip(weight) {
            for (sums, row) in sums.iter().zip(kernel) {
                if const { sparse(&L::LAYER) } {
                    *row = std::array::from_fn(|j| sums[j] / f32::from(WHITE));
                } else {
                    let taps = at_points_grad(&sums.map(|sum| [f64::from(sum)]));
                    *row = taps.map(|[tap]| (tap / f64::from(WHITE)) as f32);
                }
            }
        }
    }

    /// Returns the bias gradient.
    pub(super) fn bias(&self) -> [f32; M] {
        self.bias.map(sum_lanes)
    }
}

/// The intermediate results of the backward pass.
#[derive(Clone, Copy, Zeroable)]
#[repr(C, align(64))]
pub struct BackwardScratch<
    const M: usize,
    const H: usize,
    const HP: usize,
    const PH: usize,
    const PW: usize,
> {
    // For the sparse gradient, one image after the other:
    /// The gradient of the pooled output.
    grads: [[[[f32; PW]; PH]; M]; LANES],
    winners: [[[[u8; PW]; PH]; M]; LANES],
    // For the sparse gradient, one image at a time:
    image: [[f32; PITCH]; H],
    /// The position in `image` of each winning kernel's corner, little-endian.
    corners: [[[u16; PW]; PH]; M],
    // For the dense gradient:
    whole: Dense<LANES, M, HP>,
    half: Dense<HALF, M, HP>,
}

/// Runs the backward pass from the gradient of the pooled output, which it may overwrite.
#[allow(clippy::too_many_arguments)]
pub(super) fn backward<
    L: Layered,
    const M: usize,
    const H: usize,
    const W: usize,
    const HP: usize,
    const CH: usize,
    const CW: usize,
    const PH: usize,
    const PW: usize,
>(
    isa: super::simd::Isa,
    layer: PhantomData<L>,
    input: &Stored<1, H, W>,
    out: &[[[Lanes; PW]; PH]; M],
    trace: &Trace<M, CH, CW, PH, PW>,
    grad: &mut [[[Lanes; PW]; PH]; M],
    sums: &mut Sums<M>,
    scratch: &mut BackwardScratch<M, H, HP, PH, PW>,
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
    if const { !sparse(&L::LAYER) } {
        isa.run(GradDense {
            image: &input.bytes[0],
            grad: OutputGrad { layer, grad, trace },
            sums,
            scratch,
        });
        return;
    }
    isa.run(Deinterleave {
        lanes: grad.as_flattened().as_flattened(),
        images: scratch
            .grads
            .each_mut()
            .map(|image| image.as_flattened_mut().as_flattened_mut()),
    });
    isa.run(DeinterleaveWinners {
        lanes: trace.winner.as_flattened().as_flattened(),
        images: scratch
            .winners
            .each_mut()
            .map(|image| image.as_flattened_mut().as_flattened_mut()),
    });
    for n in 0..input.images {
        isa.run(GradSparse {
            layer,
            pixels: &input.pixels[n][0],
            winner: &scratch.winners[n],
            grad: &scratch.grads[n],
            image: &mut scratch.image,
            corners: &mut scratch.corners,
            sums,
        });
    }
}

/// Transposes the gradient of the pooled output from 16 interleaved images to one image after the other.
struct Deinterleave<'a> {
    lanes: &'a [Lanes],
    /// Each as long as `lanes`; overwritten.
    images: [&'a mut [f32]; LANES],
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
struct DeinterleaveWinners<'a> {
    lanes: &'a [[u8; LANES]],
    /// Each as long as `lanes`; overwritten.
    images: [&'a mut [u8]; LANES],
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
const PITCH: usize = 3 * LANES;
/// The first of the repeated columns.
const REPEATED: usize = LANES - HALF;
/// The distance from a repeated column to its copy.
const TO_COPY: usize = 2 * LANES - REPEATED;
/// The number of floats that a kernel reads from its corner on.
const KERNEL: usize = (K - 1) * PITCH + HALF;

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
            corners[y][x] = (POOL * y * PITCH + column) as u16;
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
struct GradSparse<
    'a,
    L,
    const M: usize,
    const H: usize,
    const W: usize,
    const PH: usize,
    const PW: usize,
> {
    layer: PhantomData<L>,
    pixels: &'a [[u8; W]; H],
    /// The position of each window's winner.
    winner: &'a [[[u8; PW]; PH]; M],
    /// The gradient of the pooled output before the activation.
    grad: &'a [[[f32; PW]; PH]; M],
    /// Overwritten.
    image: &'a mut [[f32; PITCH]; H],
    /// Overwritten.
    corners: &'a mut [[[u16; PW]; PH]; M],
    /// The sums to which the gradient is added.
    sums: &'a mut Sums<M>,
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
                    first + u16::from(winner >> 1) * PITCH as u16 + u16::from(winner & 1);
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
                let row = kernel[i * PITCH..].first_chunk().expect("within KERNEL");
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

/// The intermediate results of the dense weight gradient, for `N` lanes.
#[derive(Clone, Copy, Zeroable)]
#[repr(C, align(64))]
struct Dense<const N: usize, const M: usize, const HP: usize> {
    /// The values at each point, for the columns that four outputs read; always zero in the padding.
    values: [[[f32; N]; HP]; POINTS],
    /// The gradient of the products at each point, for some maps; always zero below the last row of outputs.
    products: [[[[f32; N]; HP]; POINTS]; MAPS],
    /// The gradient of the kernels at each point.
    sums: [[[[f32; N]; K]; POINTS]; M],
    bias: [[f32; N]; M],
}

/// The largest number of maps whose dense gradient is computed together.
const MAPS: usize = 2;

/// Computes the weight gradient, and with mean pooling the bias gradient, of 16 images.
///
/// # Numerics
/// The sums at a point add their terms by four columns of outputs, and within these by row, fused. Then the lanes of the lower
/// half are added pairwise by halves, and those of the upper half likewise. With mean pooling, the bias gradient is the sum of
/// the gradient of the products at the point 1, in the same order.
struct GradDense<
    'a,
    L,
    const M: usize,
    const H: usize,
    const W: usize,
    const HP: usize,
    const CH: usize,
    const CW: usize,
    const PH: usize,
    const PW: usize,
> {
    image: &'a [[[u8; LANES]; W]; H],
    grad: OutputGrad<'a, L, M, CH, CW, PH, PW>,
    /// Overwritten.
    sums: &'a mut Sums<M>,
    /// Overwritten.
    scratch: &'a mut BackwardScratch<M, H, HP, PH, PW>,
}

impl<
    L: Layered,
    const M: usize,
    const H: usize,
    const W: usize,
    const HP: usize,
    const CH: usize,
    const CW: usize,
    const PH: usize,
    const PW: usize,
> Kernel for GradDense<'_, L, M, H, W, HP, CH, CW, PH, PW>
{
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self {
            image,
            grad,
            sums,
            scratch,
        } = self;
        if S::WIDE {
            dense::<_, S, MAPS, _, M, H, W, HP, CH, CW, PH, PW>(
                s,
                0,
                image,
                grad,
                sums,
                &mut scratch.whole,
            );
        } else {
            for n in 0..2 {
                let scratch = &mut scratch.half;
                dense::<_, S::Half, 1, _, M, H, W, HP, CH, CW, PH, PW>(
                    s.half(),
                    n,
                    image,
                    grad,
                    sums,
                    scratch,
                );
            }
        }
    }
}

/// Computes part `n` of the lanes, `T` maps at a time.
#[inline(always)]
fn dense<
    const N: usize,
    S: Lanewise<N>,
    const T: usize,
    L: Layered,
    const M: usize,
    const H: usize,
    const W: usize,
    const HP: usize,
    const CH: usize,
    const CW: usize,
    const PH: usize,
    const PW: usize,
>(
    s: S,
    n: usize,
    image: &[[[u8; LANES]; W]; H],
    grad: OutputGrad<'_, L, M, CH, CW, PH, PW>,
    sums: &mut Sums<M>,
    scratch: &mut Dense<N, M, HP>,
) {
    const BLACK: &[u8; LANES] = &[0; LANES];
    let padding = const { L::LAYER.padding };
    for sum in scratch.sums.as_flattened_mut().as_flattened_mut() {
        s.store(s.splat(0.0), sum);
    }
    for sum in &mut scratch.bias {
        s.store(s.splat(0.0), sum);
    }
    for first in (0..CW).step_by(OUTPUTS) {
        for (y, row) in image.iter().enumerate() {
            let mut inputs = [s.splat(0.0); POINTS];
            for (x, input) in inputs.iter_mut().enumerate() {
                let pixel = row.get((first + x).wrapping_sub(padding)).unwrap_or(BLACK);
                *input = s.load_bytes(part(pixel, n));
            }
            let to = scratch
                .values
                .each_mut()
                .map(|values| &mut values[y + padding]);
            store_all(s, winograd::values(s, inputs), to);
        }
        for m in (0..M / T * T).step_by(T) {
            dense_maps::<N, S, T, L, M, HP, CH, CW, PH, PW>(s, n, first, m, grad, scratch);
        }
        for m in M / T * T..M {
            dense_maps::<N, S, 1, L, M, HP, CH, CW, PH, PW>(s, n, first, m, grad, scratch);
        }
    }
    for (sums, all) in scratch.sums.iter().zip(&mut sums.weight) {
        for (i, all) in all.iter_mut().enumerate() {
            let points = sums.each_ref().map(|sums| &sums[i]);
            s.add_sums(load_all(s, points), all);
        }
    }
    if let Pool::Average(_) = const { L::LAYER.pool } {
        for (sum, to) in scratch.bias.iter().zip(&mut sums.bias) {
            *part_mut(to, n) = *sum;
        }
    }
}

/// Adds the terms of `T` maps at four columns of outputs.
#[inline(always)]
fn dense_maps<
    const N: usize,
    S: Lanewise<N>,
    const T: usize,
    L: Layered,
    const M: usize,
    const HP: usize,
    const CH: usize,
    const CW: usize,
    const PH: usize,
    const PW: usize,
>(
    s: S,
    n: usize,
    first: usize,
    m: usize,
    grad: OutputGrad<'_, L, M, CH, CW, PH, PW>,
    scratch: &mut Dense<N, M, HP>,
) {
    let Dense {
        values,
        products,
        sums,
        bias,
    } = scratch;
    let products: &mut [_; T] = products.first_chunk_mut().expect("at most MAPS");
    for (t, products) in products.iter_mut().enumerate() {
        for y in 0..CH / POOL {
            let left: [[_; POOL]; POOL] = grad.block(s, n, [m + t, y, first / POOL]);
            let right: [[_; POOL]; POOL] = grad.block(s, n, [m + t, y, first / POOL + 1]);
            for i in 0..POOL {
                let row = [left[i][0], left[i][1], right[i][0], right[i][1]];
                let to = products.each_mut().map(|row| &mut row[POOL * y + i]);
                store_all(s, products_grad(s, row), to);
            }
        }
        if let Pool::Average(_) = const { L::LAYER.pool } {
            let mut sum = s.load(&bias[m + t]);
            for product in &products[1][..CH] {
                sum = s.add(sum, s.load(product));
            }
            s.store(sum, &mut bias[m + t]);
        }
    }
    for p in 0..POINTS {
        let mut acc = [[s.splat(0.0); K]; T];
        // The gradient at this row of inputs, and at the rows above it.
        let mut above = [[s.splat(0.0); K]; T];
        for t in 0..T {
            acc[t] = load_all(s, sums[m + t][p].each_ref());
        }
        for y in 0..HP {
            let value = s.load(&values[p][y]);
            for t in 0..T {
                let [g0, g1, g2, g3, _] = above[t];
                above[t] = [s.load(&products[t][p][y]), g0, g1, g2, g3];
                for i in 0..K {
                    acc[t][i] = s.mul_add(above[t][i], value, acc[t][i]);
                }
            }
        }
        for t in 0..T {
            store_all(s, acc[t], sums[m + t][p].each_mut());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::pool::tests::assert_window;
    use super::super::simd::Isa;
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
            maps: 6,
            kernel: K,
            padding: 0,
            pool: Pool::Max(2),
            activation: Activation::Sigmoid,
        }
        .layer("this", [1, 28, 28]);
    }

    type Image = [[[u8; LANES]; 28]; 28];
    type Output = [[[Lanes; 12]; 12]; 6];
    type TraceOf = Trace<6, 24, 24, 12, 12>;
    type Weight = [[[[f32; K]; K]; 1]; 6];

    /// Returns weights in -0.2..0.2, and biases.
    fn params() -> (Weight, [f32; 6]) {
        let mut rng = generator(2, 0);
        let mut next = || (rng.next_u32() as f32 / u32::MAX as f32 - 0.5) * 0.4;
        let weight = std::array::from_fn(|_| {
            [[[0.0; K]; K]].map(|map| map.map(|row| row.map(|_: f32| next())))
        });
        (weight, std::array::from_fn(|_| next()))
    }

    /// Returns the outputs and the winners.
    fn run(isa: Isa, image: &Image) -> (Box<Output>, Box<TraceOf>) {
        let (weight, bias) = params();
        let (mut kernels, mut scratch) = (zeroed_box(), zeroed_box::<ForwardScratch<6, 28>>());
        transform_kernels(&weight, &mut kernels);
        let (mut out, mut trace) = (zeroed_box(), zeroed_box());
        isa.run(Forward::<_, true, _, _, _, _, _, _, _, _> {
            layer: PhantomData::<This>,
            image,
            kernels: &kernels,
            bias: &bias,
            out: &mut out,
            trace: &mut trace,
            scratch: &mut scratch,
        });
        (out, trace)
    }

    #[test]
    fn forward_is_its_definition() {
        let (weight, bias) = params();
        let mut rng = generator(0, 0);
        let mut image: Image = [[[0; LANES]; 28]; 28];
        for pixel in image.as_flattened_mut().as_flattened_mut() {
            *pixel = rng.next_u32() as u8;
        }
        for isa in Isa::every() {
            let (out, trace) = run(isa, &image);
            for y in 0..12 {
                for x in 0..12 {
                    for m in 0..6 {
                        let lane = (y + x + m) % LANES;
                        let pixel =
                            |_, y: usize, x: usize| f64::from(image[y][x][lane]) / f64::from(WHITE);
                        let found = (out[m][y][x][lane], trace.winner[m][y][x][lane]);
                        assert_window(&weight[m], bias[m], pixel, [y, x], found);
                    }
                }
            }
        }
    }

    /// On pictures that are flat, or change along one side only, the first of equal values wins.
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
                let (_, trace) = run(isa, &image);
                let winners = trace.winner.as_flattened().as_flattened().as_flattened();
                let mut winners = winners.iter();
                assert!(winners.all(|winner| may_win.contains(winner)), "{isa:?}");
            }
        }
    }
}
