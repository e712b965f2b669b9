//! From stored pixels to what the kernels read: sixteen images interleaved.

use super::simd::{Kernel, LANES, Simd};
use crate::lenet::SIDE;
use lenet_core::network::Pixels;

/// Pixels of an image.
const PIXELS: usize = SIDE * SIDE;
const _: () = assert!(PIXELS.is_multiple_of(LANES));

/// What a pixel of 1 is stored as. The kernels read stored pixels, whose whole numbers are exact, and make up for it with
/// their weights: forward by weights so much smaller, back by a sum so much smaller.
pub(super) const WHITE: u8 = u8::MAX;

/// `to[j][i] = from[i][j]`
#[inline(always)]
pub(super) fn transpose_bytes(from: [&[u8; LANES]; LANES], to: [&mut [u8; LANES]; LANES]) {
    // Four times row by row with the row eight further on: a compiler knows this loop as one instruction.
    let mut rows = from.map(|row| *row);
    for _ in 0..LANES.ilog2() {
        let mut next = [[0; LANES]; LANES];
        for i in 0..LANES / 2 {
            for j in 0..LANES / 2 {
                next[2 * i][2 * j] = rows[i][j];
                next[2 * i][2 * j + 1] = rows[i + LANES / 2][j];
                next[2 * i + 1][2 * j] = rows[i][j + LANES / 2];
                next[2 * i + 1][2 * j + 1] = rows[i + LANES / 2][j + LANES / 2];
            }
        }
        rows = next;
    }
    for (row, to) in rows.iter().zip(to) {
        *to = *row;
    }
}

/// Interleaves sixteen images.
pub(super) struct Interleave<'a> {
    /// The images; a place without an image may repeat another.
    pub images: &'a [Pixels; LANES],
    /// `(SIDE, SIDE, LANES)`; overwritten.
    pub out: &'a mut [[[u8; LANES]; SIDE]; SIDE],
}

impl Kernel for Interleave<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let out = self.out.as_flattened_mut();
        for (k, out) in out.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            let images = self.images.each_ref();
            transpose_bytes(
                images.map(|image| &image.as_flattened().as_flattened().as_chunks().0[k]),
                out.each_mut(),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::simd::Isa;
    use super::*;

    #[test]
    fn interleaves_on_every_version() {
        let images: [Pixels; LANES] = std::array::from_fn(|n| {
            [std::array::from_fn(|y| {
                std::array::from_fn(|x| (n * 16 + y * SIDE + x) as u8)
            })]
        });
        for isa in Isa::available() {
            let mut out = [[[9; LANES]; SIDE]; SIDE];
            isa.run(Interleave {
                images: &images,
                out: &mut out,
            });
            for y in 0..SIDE {
                for x in 0..SIDE {
                    assert_eq!(
                        out[y][x],
                        images.map(|image| image[0][y][x]),
                        "{isa:?} {y} {x}"
                    );
                }
            }
        }
    }
}
