//! From stored pixels to what the kernels read: sixteen images interleaved.

use super::simd::{Kernel, LANES, Lanes, Simd};
use lenet_core::arch::{Pixels, SIDE};

/// Pixels of an image.
const PIXELS: usize = SIDE * SIDE;
const _: () = assert!(PIXELS.is_multiple_of(LANES));

/// `pixel / 255`, rounded once like the division in `lenet_core::arch::grey`: a product with the reciprocal, corrected
/// by its remainder (Markstein: Computation of elementary functions on the IBM RISC System/6000 processor, 1990).
#[inline(always)]
pub(super) fn grey<S: Simd>(s: S, pixels: &[u8; LANES]) -> S::V {
    let reciprocal = s.splat(1.0 / 255.0);
    let x = s.load_bytes(pixels);
    let quotient = s.mul(x, reciprocal);
    let remainder = s.mul_add(quotient, s.splat(-255.0), x);
    s.mul_add(remainder, reciprocal, quotient)
}

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
    /// `(SIDE, SIDE, 1, LANES)`; overwritten.
    pub out: &'a mut [[[Lanes; 1]; SIDE]; SIDE],
}

impl Kernel for Interleave<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut block = [[0; LANES]; LANES];
        let out = self.out.as_flattened_mut().as_flattened_mut();
        for (k, out) in out.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            transpose_bytes(
                self.images
                    .each_ref()
                    .map(|image| &image.as_flattened().as_chunks().0[k]),
                block.each_mut(),
            );
            for (pixels, out) in block.iter().zip(out) {
                s.store(grey(s, pixels), out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::simd::Isa;
    use super::*;
    use lenet_core::arch::grey;

    /// Image `n` holds the bytes from `n * 16` on, so that all 256 occur.
    fn image(n: usize) -> Pixels {
        std::array::from_fn(|y| std::array::from_fn(|x| (n * 16 + y * SIDE + x) as u8))
    }

    #[test]
    fn every_version_sees_the_pixels_that_the_board_sees() {
        let images: [Pixels; LANES] = std::array::from_fn(image);
        for isa in Isa::available() {
            let mut out = [[[[9.0; LANES]; 1]; SIDE]; SIDE];
            isa.run(Interleave {
                images: &images,
                out: &mut out,
            });
            for y in 0..SIDE {
                for x in 0..SIDE {
                    let expected = images.map(|image| grey(image[y][x]));
                    assert_eq!(out[y][x][0], expected, "{isa:?} {y} {x}");
                }
            }
        }
    }
}
