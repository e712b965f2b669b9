//! The shape of this network's images, and how they lie in memory.
//!
//! This is the only file of the data set that knows the type [`Pixels`]: the readers take a [`Shape`] and fill plain
//! bytes, channel after channel and row after row, so that their tests can ask for other shapes than this network's.

pub(super) use super::dims::Shape;
use lenet_core::network::{CHANNELS, HEIGHT, Pixels, WIDTH};

/// What this network takes.
pub(super) const SHAPE: Shape = Shape {
    channels: CHANNELS,
    height: HEIGHT,
    width: WIDTH,
};

const _: () = assert!(size_of::<Pixels>() == SHAPE.len());

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
