//! The shape of images, for any network: channels, rows and columns.

use std::fmt;

/// The channels, rows and columns of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// 1 for grey images, 3 for red, green and blue.
    pub channels: usize,
    /// The number of rows.
    pub height: usize,
    /// The number of columns.
    pub width: usize,
}

impl Shape {
    /// Returns the number of values in an image; each of them is a byte.
    #[allow(clippy::len_without_is_empty)]
    pub const fn len(self) -> usize {
        self.channels * self.area()
    }

    /// Transposes each plane of images of this shape, `image[x][y] = image[y][x]`, if they are square; leaves others unchanged.
    pub fn transpose(self, images: &mut [u8]) {
        if self.height != self.width {
            return;
        }
        for plane in images.chunks_exact_mut(self.area()) {
            for y in 0..self.height {
                for x in 0..y {
                    plane.swap(y * self.width + x, x * self.width + y);
                }
            }
        }
    }

    /// Returns the number of values in one channel.
    pub const fn area(self) -> usize {
        self.height * self.width
    }
}

/// For messages: `28x28`, or `32x32 in 3 channels`, with the width first, as is usual for pictures.
impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width, self.height)?;
        match self.channels {
            1 => Ok(()),
            channels => write!(f, " in {channels} channels"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposing_swaps_rows_and_columns_of_each_square_plane() {
        let [square, wide] = [3, 9].map(|width| Shape {
            channels: 1,
            height: 9 / width,
            width,
        });
        let mut images: Vec<u8> = (0..18).collect();
        wide.transpose(&mut images);
        assert!(images.iter().copied().eq(0..18));
        square.transpose(&mut images);
        assert_eq!(images[..9], [0, 3, 6, 1, 4, 7, 2, 5, 8]);
        assert_eq!(images[9..], [9, 12, 15, 10, 13, 16, 11, 14, 17]);
    }
}
