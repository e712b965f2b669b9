//! The network that the image runs: in f32 or in int8, whichever the weights file is that `build.rs` looked at.
//!
//! Both have the same items, so that the programs need not tell them apart.

#[cfg(int8)]
pub use lenet_core::network::int8::{Activations, Image, Net, Params, forward, forward_by_layer};
#[cfg(not(int8))]
pub use lenet_core::network::{Activations, Image, Net, Params, forward, forward_by_layer};

use lenet_core::network::Pixels;

/// Returns what the network sees of a stored image.
#[cfg(int8)]
pub const fn image(pixels: Pixels) -> Image {
    pixels
}

/// Returns what the network sees of a stored image.
#[cfg(not(int8))]
pub const fn image(pixels: Pixels) -> Image {
    lenet_core::image::grey(&pixels)
}

/// Returns how bright a value of an image is, from 0 to 7.
#[cfg(int8)]
pub fn brightness(value: u8) -> usize {
    usize::from(value >> 5)
}

/// Returns how bright a value of an image is, from 0 to 7.
#[cfg(not(int8))]
pub fn brightness(value: f32) -> usize {
    (value * 7.0) as usize & 7
}
