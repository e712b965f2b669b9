//! In place of `image.rs` in a build without the feature `program`: every picture is an error.

use super::ImageOptions;
use super::shape::{SHAPE, Shape};
use lenet_core::network::Pixels;
use std::path::Path;

/// A picture as this network takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image {
    /// The image.
    pub pixels: Pixels,
    /// Whether the picture had other colours than grey.
    pub has_colour: bool,
}

impl Image {
    /// Whether colours became grey, as the network has one channel.
    pub fn is_converted(&self) -> bool {
        self.has_colour && SHAPE.channels == 1
    }
}

const LACKING: &str = "this build reads no pictures; build it with the feature `program`";

/// Refuses any picture.
///
/// # Errors
/// Always.
pub fn read_image(_bytes: &[u8], _options: ImageOptions) -> Result<Image, String> {
    Err(LACKING.to_owned())
}

pub(super) fn decode(
    _bytes: &[u8],
    _options: ImageOptions,
    _shape: Shape,
    _out: &mut [u8],
) -> Result<bool, String> {
    Err(LACKING.to_owned())
}

/// Whether the name says that a file is a picture.
pub(super) fn has_picture_name(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
    ["png", "jpg", "jpeg"]
        .iter()
        .any(|known| extension == *known)
}

pub(super) fn is_picture(_start: &[u8]) -> bool {
    false
}
