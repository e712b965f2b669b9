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
