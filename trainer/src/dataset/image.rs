//! Converts pictures to images of the network: PNG, JPEG, BMP and PNM files.
//!
//! A picture is rotated as its EXIF orientation says. Where it is transparent, it becomes black, the background of
//! Fashion-MNIST. 16-bit values become 8-bit ones. For a network of one channel, colour becomes grey by ITU-R 601-2 luma in the
//! fixed-point arithmetic of Pillow's `convert("L")`, which most data sets used; for one of three channels, grey fills all of
//! them. A picture of another size is an error, unless scaling was requested.

use super::ImageOptions;
use super::shape::{self, SHAPE};
use lenet_core::network::Pixels;
pub(super) use lenet_pictures::{decode, is_picture};

/// The extensions of picture files.
const EXTENSIONS: [&str; 11] = [
    "png", "jpg", "jpeg", "jpe", "jfif", "bmp", "dib", "pnm", "pbm", "pgm", "ppm",
];

/// A picture, converted for this network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image {
    /// The image.
    pub pixels: Pixels,
    /// Whether the picture had colours other than grey.
    pub has_colour: bool,
}

impl Image {
    /// Returns whether colours became grey, because the network has one channel.
    pub fn is_converted(&self) -> bool {
        self.has_colour && SHAPE.channels == 1
    }
}

/// Reads a picture.
///
/// # Errors
/// A sentence that says what was found and what was expected.
pub fn read_image(bytes: &[u8], options: ImageOptions) -> Result<Image, String> {
    let mut values = vec![0; SHAPE.len()];
    let has_colour = decode(bytes, options, SHAPE, &mut values)?;
    Ok(Image {
        pixels: shape::image(&values),
        has_colour,
    })
}

/// Returns whether a file's name is that of a picture.
pub(super) fn has_picture_name(path: &std::path::Path) -> bool {
    let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
    EXTENSIONS.iter().any(|known| extension == *known)
}
