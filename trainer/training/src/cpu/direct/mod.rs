//! Direct convolution of 16 images, with its pooling and activation, and its gradients, for every shape that a network's
//! description allows.
//!
//! **Shapes.** The forward pass reads an input that already has its border of zeros ([`Pad`]), so it computes a convolution
//! without padding:
//!
//! ```text
//! input     (C, HP, WP)           HP = H + 2 · padding
//! weight    (M, C, K, K)
//! sums      (M, OH, OW)           OH = HP - K + 1
//! output    (M, PH, PW)           OH = PH · window
//! ```
//!
//! Each element is a vector with one value for each of the 16 images.
//!
//! **Numerics.** Every sum has a fixed order, the same on every instruction set, and each multiply-add is fused:
//!
//! * an output starts with the bias and adds its terms by channel, row and column of the kernel;
//! * a mean adds the values of its window in row order and multiplies by the reciprocal of the window's size;
//! * an input gradient adds its terms by map, row and column of the kernel;
//! * a weight gradient adds its terms by row and column of the output, for each image. Then the sums of the lower eight images
//!   are added pairwise by halves, then those of the upper eight, and the two results are added in this order;
//! * a bias gradient adds its terms by row and column of the output (of the pooled output after max pooling), for each image.
//!   Then the sums of the images are added pairwise by halves.
//!
//! **Tiles.** The accumulators of a tile (some maps at some neighbouring columns) stay in registers. If the number of maps or
//! columns is not a multiple of the tile's, the last tile overlaps the one before, and computes some values twice, with the
//! same bits.
//!
//! This module has what both passes share: the sizes of tiles and of arrays. `forward` computes the outputs, and `backward` the
//! gradients.

mod backward;
mod forward;
#[cfg(test)]
pub(super) mod tests;

pub(super) use backward::{Backward, GradInput};
pub(super) use forward::{Forward, Pad};

use super::simd::{Lanes, sum_lanes};
use bytemuck::Zeroable;
use lenet_core::layer::Pool;

/// Returns the tile size up to `most` that computes `n` values with the least work; of equally good ones the largest.
const fn tile(n: usize, most: usize) -> usize {
    if n <= most {
        return n;
    }
    let (mut best, mut size) = (1, 2);
    while size <= most {
        if n.div_ceil(size) * size <= n.div_ceil(best) * best || best < most.div_ceil(2) {
            best = size;
        }
        size += 1;
    }
    best
}

/// Runs `$call` with the constant `$size` set to the value of a constant expression in 1..=8.
macro_rules! with_size {
    ($size:ident = $value:expr => $call:expr) => {
        with_size!(@ $size $value, $call, 1 2 3 4 5 6 7 8)
    };
    (@ $size:ident $value:expr, $call:expr, $($n:literal)*) => {
        // For a given shape, the compiler removes all arms but one.
        match const { $value } {
            $($n => {
                const $size: usize = $n;
                $call
            })*
            _ => unreachable!("a tile's size is 1 to 8"),
        }
    };
}
use with_size;

/// Returns the largest number of columns for a tile of `maps` maps: as many accumulators as fit the registers, 24 whole vectors
/// or 12 half vectors.
const fn most_columns(maps: usize, wide: bool) -> usize {
    match (wide, maps) {
        (true, 1..=3) => 8,
        (true, maps) => 24 / maps,
        (false, 1) => 8,
        (false, 2) => 5,
        (false, 3 | 4) => 3,
        (false, _) => 2,
    }
}

/// Returns the length of [`Forward::sums`].
pub(super) const fn sums_len(pool: Pool, maps: usize, height: usize, width: usize) -> usize {
    match pool {
        Pool::Whole => 0,
        Pool::Max(window) => maps * window * width,
        Pool::Average(_) => maps * height * width,
    }
}

/// Returns the length of [`Forward::winner`] for a pooled output of this size.
pub(super) const fn winner_len(pool: Pool, maps: usize, height: usize, width: usize) -> usize {
    match pool {
        Pool::Max(_) => maps * height * width,
        Pool::Whole | Pool::Average(_) => 0,
    }
}

/// Returns the length of [`Backward::grad_sums`] for an input of this width, without its border, and a kernel of this side.
pub(super) const fn grad_sums_len(
    maps: usize,
    output_height: usize,
    input_width: usize,
    kernel: usize,
) -> usize {
    maps * output_height * (input_width + kernel - 1)
}

/// The gradients of a layer's parameters, summed over one group of images.
#[derive(Clone, Copy, Zeroable)]
#[repr(C)]
pub struct Sums<const C: usize, const M: usize, const K: usize> {
    pub weight: [[[[f32; K]; K]; C]; M],
    /// The bias gradient of each image.
    pub bias: [Lanes; M],
}

impl<const C: usize, const M: usize, const K: usize> Sums<C, M, K> {
    /// Returns the bias gradient.
    pub(super) fn bias(&self) -> [f32; M] {
        self.bias.map(sum_lanes)
    }
}
