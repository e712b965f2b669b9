//! Converts a camera's frame to pixels, and pixels to the input of a network.

/// Converts pixels to the input of an f32 network: `pixel / 255` for each, rounded once.
pub const fn grey<const C: usize, const H: usize, const W: usize>(
    pixels: &[[[u8; W]; H]; C],
) -> [[[f32; W]; H]; C] {
    let mut out = [[[0.0; W]; H]; C];
    write_grey(pixels, &mut out);
    out
}

/// Writes the input of an f32 network for an image: `pixel / 255` for each pixel, rounded once.
pub const fn write_grey<const C: usize, const H: usize, const W: usize>(
    pixels: &[[[u8; W]; H]; C],
    out: &mut [[[f32; W]; H]; C],
) {
    let mut c = 0;
    while c < C {
        let mut y = 0;
        while y < H {
            let mut x = 0;
            while x < W {
                out[c][y][x] = scaled(pixels[c][y][x]);
                x += 1;
            }
            y += 1;
        }
        c += 1;
    }
}

/// Returns `pixel / 255`, rounded once.
const fn scaled(pixel: u8) -> f32 {
    pixel as f32 / 255.0
}

/// The largest number of pixels in a frame: the sum of as many bytes fits into a u32.
const MAX_PIXELS: usize = 1 << 24;

const _: () = assert!(MAX_PIXELS as u64 * u8::MAX as u64 <= u32::MAX as u64);

/// A grayscale frame in row-major order, as a camera delivers it.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    pixels: &'a [u8],
    width: usize,
    height: usize,
}

impl<'a> Frame<'a> {
    /// Borrows the pixels of a frame. Returns `None` unless there are `width · height` of them, at least one and at most 2²⁴.
    ///
    /// The upper limit exists because [`shrink`](Self::shrink) adds up in 32 bits all pixels that one pixel of its output covers.
    pub const fn new(pixels: &'a [u8], width: usize, height: usize) -> Option<Self> {
        match width.checked_mul(height) {
            Some(len) if len == pixels.len() && len > 0 && len <= MAX_PIXELS => Some(Self {
                pixels,
                width,
                height,
            }),
            _ => None,
        }
    }

    /// Crops the frame to the aspect ratio of `out` and scales the result to the size of `out`.
    ///
    /// The crop is centered and as large as possible. Each pixel of `out` is the mean of the pixels that it covers, rounded
    /// down. Where the crop is smaller than `out`, it is the nearest pixel.
    ///
    /// # Cost
    /// Reads each pixel of the crop once, or writes `H · W` pixels, whichever is more.
    pub fn shrink<const H: usize, const W: usize>(self, out: &mut [[u8; W]; H]) {
        // The crop is as high or as wide as the frame.
        let by_height = self.height.saturating_mul(W) / H.max(1);
        let (width, height) = if by_height <= self.width {
            (by_height.max(1), self.height)
        } else {
            (self.width, (self.width.saturating_mul(H) / W.max(1)).max(1))
        };
        let (left, top) = ((self.width - width) / 2, (self.height - height) / 2);
        for (y, row) in out.iter_mut().enumerate() {
            let (y0, y1) = span(y, height, H);
            for (x, out) in row.iter_mut().enumerate() {
                let (x0, x1) = span(x, width, W);
                let (mut sum, mut count) = (0u32, 0u32);
                for y in top + y0..top + y1 {
                    let start = y * self.width + left;
                    let part = self.pixels.get(start + x0..start + x1);
                    for &pixel in part.unwrap_or_default() {
                        sum = sum.wrapping_add(u32::from(pixel));
                        count = count.wrapping_add(1);
                    }
                }
                *out = sum.checked_div(count).unwrap_or(0) as u8;
            }
        }
    }
}

/// Returns the half-open range of the `from` source pixels that pixel `n` of the `to` target pixels covers.
const fn span(n: usize, from: usize, to: usize) -> (usize, usize) {
    let start = n.saturating_mul(from) / to;
    let end = (n + 1).saturating_mul(from) / to;
    (start, if end > start { end } else { start + 1 })
}

/// Inverts the image. Fashion-MNIST and MNIST are bright on black, whereas paper is dark on white.
pub fn invert<const H: usize, const W: usize>(pixels: &mut [[u8; W]; H]) {
    for pixel in pixels.as_flattened_mut() {
        *pixel = 255 - *pixel;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_are_divided_by_255_where_they_stand() {
        let pixels = [[[0, 255], [51, 102]], [[1, 2], [3, 4]], [[5, 6], [7, 254]]];
        let image = grey(&pixels);
        assert_eq!(image[0], [[0.0, 1.0], [0.2, 0.4]]);
        assert_eq!(image[2][1][1], 254.0 / 255.0);
        assert_eq!(image[1][0][1], 2.0 / 255.0);
    }

    #[test]
    fn a_frame_is_cropped_to_its_middle_and_averaged() {
        // 6 x 4 to 2 x 2: columns 1 to 4, in blocks of two by two.
        let pixels = [
            9, 0, 2, 10, 20, 9, //
            9, 4, 6, 30, 40, 9, //
            9, 1, 1, 255, 255, 9, //
            9, 1, 2, 255, 255, 9,
        ];
        let mut out = [[0; 2]; 2];
        Frame::new(&pixels, 6, 4).unwrap().shrink(&mut out);
        assert_eq!(out, [[3, 25], [1, 255]]);
        invert(&mut out);
        assert_eq!(out, [[252, 230], [254, 0]]);

        // Two columns by three rows become two by one: the middle row.
        let mut out = [[0; 2]; 1];
        Frame::new(&[1, 2, 7, 8, 3, 4], 2, 3)
            .unwrap()
            .shrink(&mut out);
        assert_eq!(out, [[7, 8]]);
    }

    #[test]
    fn a_small_frame_is_enlarged_by_its_nearest_pixels() {
        let mut out = [[0; 4]; 4];
        Frame::new(&[1, 2, 3, 4], 2, 2).unwrap().shrink(&mut out);
        assert_eq!(
            out,
            [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]
        );
    }

    #[test]
    fn a_frame_of_another_length_is_refused() {
        assert!(Frame::new(&[0; 5], 2, 3).is_none());
        assert!(Frame::new(&[], 0, 3).is_none());
        assert!(Frame::new(&[0; 5], usize::MAX, 2).is_none());
    }

    #[test]
    fn the_sum_of_the_largest_frame_does_not_overflow() {
        let white = std::vec![255; MAX_PIXELS + 1];
        let frame = |len: usize| Frame::new(&white[..len], len, 1);
        let mut out = [[0]];
        frame(MAX_PIXELS).unwrap().shrink(&mut out);
        assert_eq!(out, [[255]]);
        assert!(frame(MAX_PIXELS + 1).is_none());
    }
}
