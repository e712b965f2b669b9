//! The shape of this network's images, and how they lie in memory.
//!
//! This is the only file of the data set that knows the type [`Pixels`]: the readers take a [`Shape`] and fill plain
//! bytes, channel after channel and row after row, so that their tests can ask for other shapes than this network's.

use lenet_core::network::{CHANNELS, HEIGHT, Pixels, WIDTH};
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

/// What this network takes.
pub(super) const SHAPE: Shape = Shape {
    channels: CHANNELS,
    height: HEIGHT,
    width: WIDTH,
};

const _: () = assert!(size_of::<Pixels>() == SHAPE.len());

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

/// Returns the images whose values are these bytes, which must be a whole number of images.
pub(super) fn images(bytes: &[u8]) -> &[Pixels] {
    bytemuck::cast_slice(bytes)
}

/// Returns the values of images.
pub(super) fn bytes(images: &[Pixels]) -> &[u8] {
    bytemuck::cast_slice(images)
}

/// Returns the image whose values these are, [`Shape::len`] of them.
#[cfg(feature = "program")]
pub(super) fn image(bytes: &[u8]) -> Pixels {
    images(bytes)[0]
}
