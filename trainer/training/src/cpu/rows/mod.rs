//! A first convolution over one channel, of 16 images, with its pooling and activation, and the gradient of its parameters, by
//! [`winograd`](super::winograd)'s algorithm along rows.
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
//!
//! # Modules
//! This module has the kernels, the sums of the gradients, and the backward pass, which runs one of the two algorithms above.
//! `forward` has the forward pass, `sparse` the weight gradient from the winners, and `dense` the dense one.

mod dense;
mod forward;
mod sparse;
#[cfg(test)]
mod tests;

pub(super) use forward::Forward;
pub use forward::ForwardScratch;

use super::pixels::{Stored, WHITE};
use super::pool::{GradBias, OutputGrad, POOL, Trace, is_known};
use super::simd::{HALF, HalfLanes, LANES, Lanes, sum_lanes};
use super::winograd::{K, POINTS, at_points, at_points_grad};
use bytemuck::Zeroable;
use dense::{Dense, GradDense};
use lenet_core::layer::{Layered, Pool};
use lenet_core::plan::{Kind, Layer};
use sparse::{Deinterleave, DeinterleaveWinners, GradSparse, ROW_STRIDE};
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
    image: [[f32; ROW_STRIDE]; H],
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
