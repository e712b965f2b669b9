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
//!
//! This module has the arrays of both passes, and converts the kernels and their gradients to and from values at the points.
//! `forward` computes the outputs, and `backward` the gradients.

mod backward;
mod forward;
#[cfg(test)]
mod tests;

pub(super) use backward::backward;
pub(super) use forward::Forward;

use super::pool::is_known;
use super::simd::{HALF, HalfLanes, LANES, Lanes, sum_lanes};
use super::winograd::{K, OUTPUTS, POINTS, at_points, at_points_grad};
use bytemuck::Zeroable;
use lenet_core::plan::{Kind, Layer};

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
use by_tiles;
