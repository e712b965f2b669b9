//! From stored pixels to what a network sees.

/// Returns the image that a network sees for stored pixels: `pixel / 255` for each, rounded once.
pub const fn grey<const C: usize, const H: usize, const W: usize>(
    pixels: &[[[u8; W]; H]; C],
) -> [[[f32; W]; H]; C] {
    let mut out = [[[0.0; W]; H]; C];
    write_grey(pixels, &mut out);
    out
}

/// Writes the image that a network sees for stored pixels: `pixel / 255` for each, rounded once.
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
                out[c][y][x] = pixels[c][y][x] as f32 / 255.0;
                x += 1;
            }
            y += 1;
        }
        c += 1;
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
}
