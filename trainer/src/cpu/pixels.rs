//! From stored pixels to what the kernels read: sixteen images interleaved for the forward pass, and one image's rows
//! for the gradient of the first convolution.

use super::simd::{Kernel, LANES, Lanes, Simd};
use lenet_core::arch::{Pixels, SIDE};

/// Pixels of an image.
const PIXELS: usize = SIDE * SIDE;
const _: () = assert!(PIXELS.is_multiple_of(LANES));

/// An image's rows, each followed by zeros, so that eight values can be read from every column of a window.
pub(super) type PaddedRows = [[f32; 2 * LANES]; SIDE];

/// `pixel / 255`, rounded once like the division in `lenet_core::arch::grey`: a product with the reciprocal, corrected
/// by its remainder (Markstein: Computation of elementary functions on the IBM RISC System/6000 processor, 1990).
#[inline(always)]
fn grey<S: Simd>(s: S, pixels: &[u8; LANES]) -> S::V {
    let reciprocal = s.splat(1.0 / 255.0);
    let x = s.load_bytes(pixels);
    let quotient = s.mul(x, reciprocal);
    let remainder = s.mul_add(quotient, s.splat(-255.0), x);
    s.mul_add(remainder, reciprocal, quotient)
}

/// Interleaves sixteen images.
pub(super) struct Interleave<'a> {
    /// The images; a place without an image may repeat another.
    pub images: [&'a Pixels; LANES],
    /// `(SIDE, SIDE, 1, LANES)`; overwritten.
    pub out: &'a mut [[[Lanes; 1]; SIDE]; SIDE],
}

impl Kernel for Interleave<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut block = [[0.0; LANES]; LANES];
        let out = self.out.as_flattened_mut().as_flattened_mut();
        for (k, out) in out.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            for (image, row) in self.images.iter().zip(&mut block) {
                let pixels = &image.as_flattened().as_chunks::<LANES>().0[k];
                s.store(grey(s, pixels), row);
            }
            s.transpose(block.each_ref(), out.each_mut());
        }
    }
}

/// Converts one image.
pub(super) struct Pad<'a> {
    pub image: &'a Pixels,
    /// Overwritten but for the padding.
    pub out: &'a mut PaddedRows,
}

impl Kernel for Pad<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (row, out) in self.image.iter().zip(self.out) {
            let (start, end): (&[u8; LANES], &[u8; LANES]) = (
                row.first_chunk().expect("a row has 28 pixels"),
                row.last_chunk().expect("a row has 28 pixels"),
            );
            s.store(
                grey(s, start),
                out.first_chunk_mut().expect("a row has 32 places"),
            );
            let out: &mut Lanes = out[SIDE - LANES..]
                .first_chunk_mut()
                .expect("sixteen places");
            s.store(grey(s, end), out);
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
                images: images.each_ref(),
                out: &mut out,
            });
            let mut padded = [[0.0; 32]; SIDE];
            isa.run(Pad {
                image: &images[3],
                out: &mut padded,
            });
            for y in 0..SIDE {
                for x in 0..SIDE {
                    let expected = images.map(|image| grey(image[y][x]));
                    assert_eq!(out[y][x][0], expected, "{isa:?} {y} {x}");
                    assert_eq!(padded[y][x], expected[3], "{isa:?} {y} {x}");
                }
                assert_eq!(padded[y][SIDE..], [0.0; 4]);
            }
        }
    }
}
