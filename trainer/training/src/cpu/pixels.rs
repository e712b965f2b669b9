//! Converts stored pixels to the input of a first layer: 16 interleaved images.

use super::simd::{Isa, Kernel, LANES, Lanes, Simd};
use bytemuck::{Pod, Zeroable};

/// The stored value of a white pixel, which the network sees as 1.
pub(super) const WHITE: u8 = u8::MAX;

/// Transposes 16 rows of 16 bytes: `to[j][i] = from[i][j]`.
#[inline(always)]
pub(super) fn transpose_bytes(from: [&[u8; LANES]; LANES], to: [&mut [u8; LANES]; LANES]) {
    // Interleaves each row with the one eight further on, four times: compilers turn this loop into a single instruction.
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

/// A group of images of `C` channels, `H` rows and `W` columns, as they are stored and interleaved.
#[derive(Clone, Copy, Zeroable)]
#[repr(C, align(64))]
pub struct Stored<const C: usize, const H: usize, const W: usize> {
    /// The images one after the other; a lane without an image repeats the last image.
    pub(super) pixels: [[[[u8; W]; H]; C]; LANES],
    /// Interleaved bytes. The layers that read them compute with integers, which are exact. They divide by 255 elsewhere: their
    /// weights in the forward pass, a sum in the backward pass.
    pub(super) bytes: [[[[u8; LANES]; W]; H]; C],
    /// Interleaved values in 0..=1, set if the first layer reads these.
    lanes: [[[Lanes; W]; H]; C],
    /// The number of images.
    pub(super) images: usize,
}

/// Memory for a group of images of type `P`, from which a first layer reads its input.
pub trait Store<P>: Zeroable + Send + Sync {
    /// Stores `images` images.
    fn set(&mut self, isa: Isa, images: usize, with_lanes: bool, image: impl FnMut(usize) -> P);
}

impl<const C: usize, const H: usize, const W: usize> Store<[[[u8; W]; H]; C]> for Stored<C, H, W> {
    fn set(
        &mut self,
        isa: Isa,
        images: usize,
        with_lanes: bool,
        mut image: impl FnMut(usize) -> [[[u8; W]; H]; C],
    ) {
        self.images = images;
        for (n, pixels) in self.pixels.iter_mut().enumerate() {
            *pixels = image(n.min(images - 1));
        }
        isa.run(Interleave {
            images: self
                .pixels
                .each_ref()
                .map(|image| image.as_flattened().as_flattened()),
            out: self.bytes.as_flattened_mut().as_flattened_mut(),
        });
        if with_lanes {
            isa.run(Grey {
                bytes: self.bytes.as_flattened().as_flattened(),
                out: self.lanes.as_flattened_mut().as_flattened_mut(),
            });
        }
    }
}

/// Provides a group of images in the form that a first layer reads.
pub trait View<T> {
    /// Returns the layer's input.
    fn view(&self) -> &T;
}

impl<const C: usize, const H: usize, const W: usize> View<Self> for Stored<C, H, W> {
    fn view(&self) -> &Self {
        self
    }
}

impl<const C: usize, const H: usize, const W: usize, T: Pod> View<T> for Stored<C, H, W> {
    fn view(&self) -> &T {
        bytemuck::must_cast_ref(&self.lanes)
    }
}

/// Interleaves 16 images.
struct Interleave<'a> {
    images: [&'a [u8]; LANES],
    /// As long as each of the images; overwritten.
    out: &'a mut [[u8; LANES]],
}

impl Kernel for Interleave<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let (blocks, last) = self.out.as_chunks_mut::<LANES>();
        let whole = blocks.len() * LANES;
        for (k, out) in blocks.iter_mut().enumerate() {
            transpose_bytes(
                self.images.map(|image| &image.as_chunks().0[k]),
                out.each_mut(),
            );
        }
        for (k, out) in last.iter_mut().enumerate() {
            *out = self.images.map(|image| image[whole + k]);
        }
    }
}

/// Converts interleaved bytes to the network's input values, like [`lenet_core::image::grey`].
struct Grey<'a> {
    bytes: &'a [[u8; LANES]],
    /// As long as `bytes`; overwritten.
    out: &'a mut [Lanes],
}

impl Kernel for Grey<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let white = s.splat(f32::from(WHITE));
        for (bytes, out) in self.bytes.iter().zip(self.out) {
            s.store(s.div(s.load_bytes(bytes), white), out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytemuck::zeroed_box;

    fn check<const C: usize, const H: usize, const W: usize>() {
        let images: [[[[u8; W]; H]; C]; LANES] = std::array::from_fn(|n| {
            std::array::from_fn(|c| {
                std::array::from_fn(|y| {
                    std::array::from_fn(|x| (n * 16 + y * W + x + c * 101) as u8)
                })
            })
        });
        for isa in Isa::available() {
            let mut stored: Box<Stored<C, H, W>> = zeroed_box();
            stored.set(isa, 11, true, |n| images[n]);
            let lanes: &[[[Lanes; W]; H]; C] = stored.view();
            for c in 0..C {
                for y in 0..H {
                    for x in 0..W {
                        let expected: [u8; LANES] =
                            std::array::from_fn(|n| images[n.min(10)][c][y][x]);
                        let at = format!("{isa:?} {c} {y} {x}");
                        assert_eq!(stored.bytes[c][y][x], expected, "{at}");
                        let expected = expected.map(|pixel| f32::from(pixel) / 255.0);
                        assert_eq!(lanes[c][y][x], expected, "{at}");
                    }
                }
            }
        }
    }

    #[test]
    fn interleaves_on_every_version() {
        check::<1, 28, 28>();
        check::<3, 11, 17>();
        check::<1, 1, 3>();
    }
}
