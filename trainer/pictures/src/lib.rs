//! Reads IDX files, converts pictures and tables of pixels to images of a network, and recognises files and images that a network
//! cannot use.
//!
//! Nothing here depends on the network of the build. The trainer uses this crate, and so does the WebAssembly module of the page
//! that runs a network, so a picture dropped on a page becomes the same image as in `trainer predict`.

#![warn(missing_docs)]

#[cfg(feature = "decode")]
mod decode;
mod dims;
#[cfg(feature = "idx")]
pub mod gunzip;
#[cfg(feature = "idx")]
pub mod idx;
mod kinds;
pub mod oddity;
#[cfg(feature = "decode")]
mod picture;
#[cfg(feature = "tables")]
pub mod table;

#[cfg(feature = "decode")]
pub use decode::{decode, is_picture};
pub use dims::Shape;
pub use kinds::{beginning, by_name};

/// The largest number of images in a file; no data set of this kind has more.
#[cfg(any(feature = "idx", feature = "tables"))]
const MAX_COUNT: u32 = 1 << 20;

/// The permitted conversions of a picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImageOptions {
    /// Whether to scale a picture to the network's size.
    pub resize: bool,
    /// Whether to invert a picture, from dark on white to bright on black.
    pub invert: bool,
}
