//! Replaces `image.rs` in a build without the feature `program`: every picture is an error.

use super::ImageOptions;
use super::shape::{SHAPE, Shape};
use lenet_core::network::Pixels;
use std::path::Path;

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

/// Returns whether a file's name is that of a picture.
pub(super) fn has_picture_name(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
    ["png", "jpg", "jpeg"]
        .iter()
        .any(|known| extension == *known)
}

pub(super) fn is_picture(_start: &[u8]) -> bool {
    false
}
