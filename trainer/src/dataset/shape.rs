//! The shape of this network's images, and their layout in memory.
//!
//! Only this file of the data set knows the type [`Pixels`]. The readers take a [`Shape`] and fill plain bytes, channel by
//! channel and row by row, so that their tests can use shapes other than this network's.

use lenet_core::network::{CHANNELS, HEIGHT, Pixels, WIDTH};
pub(super) use lenet_pictures::Shape;

/// The shape that this network takes.
pub(super) const SHAPE: Shape = Shape {
    channels: CHANNELS,
    height: HEIGHT,
    width: WIDTH,
};

const _: () = assert!(size_of::<Pixels>() == SHAPE.len());

/// Returns the values of images.
pub(super) fn bytes(images: &[Pixels]) -> &[u8] {
    bytemuck::cast_slice(images)
}

/// Returns the image with these values, [`Shape::len`] of them.
#[cfg(any(feature = "program", test))]
pub(super) fn image(bytes: &[u8]) -> Pixels {
    bytemuck::cast_slice(bytes)[0]
}
