//! Converts decoded pictures to values of an image of the network.

use crate::{ImageOptions, Shape};
use image::imageops::{self, FilterType};
use image::metadata::Orientation;
use image::{DynamicImage, GrayImage, ImageDecoder, Rgba, RgbaImage};

/// The largest side of a picture; a larger picture is refused before memory is allocated for it.
const MAX_SIDE: u32 = 8192;

/// Checks the size of a picture before it is decoded, so that no memory is allocated for one that is refused.
pub(crate) fn check_size(
    name: &str,
    (width, height): (u32, u32),
    orientation: Orientation,
    options: ImageOptions,
    shape: Shape,
) -> Result<(), String> {
    let (width, height) = match is_on_its_side(orientation) {
        true => (height, width),
        false => (width, height),
    };
    let size = format!("a {name} of {width}x{height} pixels");
    if width.min(height) == 0 {
        return Err(format!("{size}; expected at least 1x1"));
    }
    if width.max(height) > MAX_SIDE {
        return Err(format!("{size}; at most {MAX_SIDE}x{MAX_SIDE} are read"));
    }
    let wanted = [shape.width, shape.height];
    if [width, height].map(|side| side as usize) != wanted && !options.resize {
        let [width, height] = wanted;
        return Err(format!(
            "{size}; this network takes {width}x{height}, and --resize scales to that"
        ));
    }
    Ok(())
}

/// Decodes a whole picture and rotates it as its orientation says.
pub(crate) fn whole(
    mut decoder: impl ImageDecoder,
    name: &str,
    check_size: impl Fn((u32, u32), Orientation) -> Result<(), String>,
) -> Result<RgbaImage, String> {
    let broken = |error| format!("broken {name}: {error}");
    let orientation = decoder.orientation().map_err(broken)?;
    check_size(decoder.dimensions(), orientation)?;
    let picture = DynamicImage::from_decoder(decoder).map_err(broken)?;
    Ok(turned(rgba(picture), orientation))
}

/// Converts a picture to red, green, blue and opacity. Pictures of 8 bits are converted here, because this crate is compiled with
/// optimization and `image` is not.
pub(crate) fn rgba(picture: DynamicImage) -> RgbaImage {
    let size = (picture.width(), picture.height());
    let values: Vec<u8> = match &picture {
        DynamicImage::ImageLuma8(grey) => {
            let pixels = grey.as_raw().iter();
            pixels.flat_map(|&grey| [grey, grey, grey, 255]).collect()
        }
        DynamicImage::ImageLumaA8(grey) => {
            let pixels = grey.as_raw().as_chunks().0.iter();
            pixels
                .flat_map(|&[grey, a]| [grey, grey, grey, a])
                .collect()
        }
        DynamicImage::ImageRgb8(colours) => {
            let pixels = colours.as_raw().as_chunks().0.iter();
            pixels.flat_map(|&[r, g, b]| [r, g, b, 255]).collect()
        }
        _ => return picture.into_rgba8(),
    };
    RgbaImage::from_raw(size.0, size.1, values).expect("four values per pixel")
}

/// Rotates a picture as its orientation says.
pub(crate) fn turned(picture: RgbaImage, orientation: Orientation) -> RgbaImage {
    let flip = |picture: &RgbaImage| imageops::flip_horizontal(picture);
    match orientation {
        Orientation::NoTransforms => picture,
        Orientation::Rotate90 => imageops::rotate90(&picture),
        Orientation::Rotate180 => imageops::rotate180(&picture),
        Orientation::Rotate270 => imageops::rotate270(&picture),
        Orientation::FlipHorizontal => flip(&picture),
        Orientation::FlipVertical => imageops::flip_vertical(&picture),
        Orientation::Rotate90FlipH => flip(&imageops::rotate90(&picture)),
        Orientation::Rotate270FlipH => flip(&imageops::rotate270(&picture)),
    }
}

/// Converts a picture to the values of an image of `shape`, and returns whether it had colours other than grey.
pub(crate) fn values(
    picture: &RgbaImage,
    options: ImageOptions,
    shape: Shape,
    out: &mut [u8],
) -> bool {
    for (channel, out) in out.chunks_exact_mut(shape.area()).enumerate() {
        let value = |&Rgba([r, g, b, _]): &Rgba<u8>| match shape.channels {
            1 => luma([r, g, b]),
            _ => [r, g, b][channel],
        };
        let plane = on_black(picture, value, options.invert);
        out.copy_from_slice(&scaled(plane, shape));
    }
    let is_grey = |&Rgba([r, g, b, a]): &Rgba<u8>| a == 0 || (r == g && g == b);
    !picture.pixels().all(is_grey)
}

/// Computes grey by ITU-R 601-2, `(299 r + 587 g + 114 b) / 1000`, like Pillow: in units of 1/65,536, rounded.
fn luma([r, g, b]: [u8; 3]) -> u8 {
    let sum = u32::from(r) * 19_595 + u32::from(g) * 38_470 + u32::from(b) * 7_471;
    ((sum + 0x8000) >> 16) as u8
}

fn is_on_its_side(orientation: Orientation) -> bool {
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    matches!(
        orientation,
        Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH
    )
}

/// Returns one value per pixel, inverted if `invert` is set; transparent parts become black.
fn on_black(picture: &RgbaImage, value: impl Fn(&Rgba<u8>) -> u8, invert: bool) -> GrayImage {
    GrayImage::from_fn(picture.width(), picture.height(), |x, y| {
        let pixel = &picture[(x, y)];
        let value = u16::from(value(pixel));
        let value = if invert { 255 - value } else { value };
        [((value * u16::from(pixel[3]) + 127) / 255) as u8].into()
    })
}

/// Returns the values of a plane, scaled to the largest size that fits, in the middle of black.
fn scaled(plane: GrayImage, shape: Shape) -> Vec<u8> {
    let wanted = [shape.width as u32, shape.height as u32];
    if [plane.width(), plane.height()] == wanted {
        return plane.into_raw();
    }
    let [width, height] = fitting([plane.width(), plane.height()], wanted);
    let small = imageops::resize(&plane, width, height, FilterType::Triangle);
    let mut whole = GrayImage::new(wanted[0], wanted[1]);
    let [left, top] = [(wanted[0] - width) / 2, (wanted[1] - height) / 2];
    imageops::replace(&mut whole, &small, left.into(), top.into());
    whole.into_raw()
}

/// Returns the largest sides of the same proportion, at least 1, that are not longer than those wanted.
pub(crate) fn fitting([width, height]: [u32; 2], wanted: [u32; 2]) -> [u32; 2] {
    // `side * numerator / denominator`, rounded.
    let scale = |side: u32, numerator: u32, denominator: u32| {
        let [side, numerator, denominator] = [side, numerator, denominator].map(u64::from);
        ((side * numerator + denominator / 2) / denominator).max(1) as u32
    };
    match u64::from(width) * u64::from(wanted[1]) >= u64::from(height) * u64::from(wanted[0]) {
        true => [wanted[0], scale(height, wanted[0], width).min(wanted[1])],
        false => [scale(width, wanted[1], height).min(wanted[0]), wanted[1]],
    }
}
