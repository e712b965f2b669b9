//! The network that the firmware runs, in f32 or in int8. `build.rs` reads from the weights file which of them it is.
//!
//! Both have the same items, so the programs need not distinguish them.

#[cfg(int8)]
pub use lenet_core::network::int8::{Activations, Image, Net, Params, forward, forward_by_layer};
#[cfg(not(int8))]
pub use lenet_core::network::{Activations, Image, Net, Params, forward, forward_by_layer};

use lenet_core::network::Pixels;

/// Converts pixels to the input of the network.
#[cfg(int8)]
pub const fn image(pixels: Pixels) -> Image {
    pixels
}

/// Converts pixels to the input of the network.
#[cfg(not(int8))]
pub const fn image(pixels: Pixels) -> Image {
    lenet_core::image::grey(&pixels)
}

/// Returns the brightness of a value of an image, from 0 to 7.
#[cfg(int8)]
pub fn brightness(value: u8) -> usize {
    usize::from(value >> 5)
}

/// Returns the brightness of a value of an image, from 0 to 7.
#[cfg(not(int8))]
pub fn brightness(value: f32) -> usize {
    (value * 7.0) as usize & 7
}
