//! Channels, rows and columns of images, whatever the network.

use std::fmt;

/// Channels, rows and columns of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// 1 for grey images, 3 for red, green and blue.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl Shape {
    /// Values of an image, each of them a byte.
    pub const fn len(self) -> usize {
        self.channels * self.area()
    }

    /// Values of one channel.
    pub const fn area(self) -> usize {
        self.height * self.width
    }
}

/// For messages: `28x28`, or `32x32 in 3 channels`, width first as everywhere in speech about pictures.
impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width, self.height)?;
        match self.channels {
            1 => Ok(()),
            channels => write!(f, " in {channels} channels"),
        }
    }
}
