//! Decodes files of pictures: PNG, JPEG, BMP and PNM.
//!
//! The crate `image` decodes, rotates and scales. For JPEG this module calls `zune-jpeg`, which `image` uses too, directly,
//! because only then can it be strict: see [`jpeg`].
//!
//! Nothing here depends on the network of the build or on the rest of the trainer. The WebAssembly module `lenet-pictures`
//! includes this file unchanged, so a page decodes a picture as `trainer predict` does.

use super::ImageOptions;
use super::dims::Shape;
use super::kinds::beginning;
use super::picture::{check_size, turned, values, whole};
use image::codecs::{bmp::BmpDecoder, png::PngDecoder, pnm::PnmDecoder};
use image::metadata::Orientation;
use image::{DynamicImage, GrayImage, ImageFormat, Limits};
use std::io::Cursor;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

/// Returns the format of a file that begins with these bytes, with its name, if it is that of a picture.
pub(super) fn format(start: &[u8]) -> Option<(&'static str, ImageFormat)> {
    match start {
        [0x89, b'P', b'N', b'G', ..] => Some(("PNG", ImageFormat::Png)),
        [0xff, 0xd8, 0xff, ..] => Some(("JPEG", ImageFormat::Jpeg)),
        [b'B', b'M', _, _, _, _, 0, 0, 0, 0, ..] => Some(("BMP", ImageFormat::Bmp)),
        [b'P', b'1'..=b'7', space, ..] if space.is_ascii_whitespace() => {
            Some(("PNM", ImageFormat::Pnm))
        }
        _ => None,
    }
}

/// Reads a picture into the values of an image of `shape`, and returns whether it had colours other than grey.
pub(super) fn decode(
    bytes: &[u8],
    options: ImageOptions,
    shape: Shape,
    out: &mut [u8],
) -> Result<bool, String> {
    let Some((name, format)) = format(bytes) else {
        return Err(match bytes {
            [] => "empty; expected a PNG, JPEG, BMP or PNM file".to_owned(),
            _ => format!("no PNG, JPEG, BMP or PNM file ({})", beginning(bytes)),
        });
    };
    let check_size = |size, orientation| check_size(name, size, orientation, options, shape);
    let file = Cursor::new(bytes);
    let broken = |error| format!("broken {name}: {error}");
    let picture = match format {
        ImageFormat::Jpeg => {
            let (picture, orientation) = jpeg(bytes, check_size)?;
            turned(picture.into_rgba8(), orientation)
        }
        // The limits bound the memory for text and colour profiles.
        ImageFormat::Png => {
            let decoder = PngDecoder::with_limits(file, Limits::default());
            whole(decoder.map_err(broken)?, name, check_size)?
        }
        ImageFormat::Bmp => whole(BmpDecoder::new(file).map_err(broken)?, name, check_size)?,
        _ => whole(PnmDecoder::new(file).map_err(broken)?, name, check_size)?,
    };
    Ok(values(&picture, options, shape, out))
}

/// Decodes a JPEG file, which must be complete.
///
/// Decoders fill in what a damaged file lacks: a truncated file becomes a picture with a grey bottom. Three checks prevent that
/// here. The file must have an end marker, where its coded data ends. The decoder is strict about that data. And the picture
/// must stay the same if other bits follow the data, which it does not if the data ends early.
fn jpeg(
    bytes: &[u8],
    check_size: impl Fn((u32, u32), Orientation) -> Result<(), String>,
) -> Result<(DynamicImage, Orientation), String> {
    const CUT: &str = "truncated JPEG: its data ends before the picture does; copy it again";
    let broken = |error| format!("broken JPEG: {error}");
    let mut data = bytes[..jpeg_end(bytes).ok_or(CUT)?].to_vec();
    let end = |data: &[u8]| [data, &[0xff, 0xd9]].concat();
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(usize::MAX)
        .set_max_height(usize::MAX);

    let whole = end(&data);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(&whole[..]), options);
    decoder.decode_headers().map_err(broken)?;
    let (width, height) = decoder.dimensions().expect("the headers are decoded");
    let (width, height) = (width as u32, height as u32);
    let exif = decoder
        .exif()
        .and_then(|exif| Orientation::from_exif_chunk(exif));
    let orientation = exif.unwrap_or(Orientation::NoTransforms);
    check_size((width, height), orientation)?;
    let is_grey = decoder.input_colorspace() == Some(ColorSpace::Luma);
    let options = options.jpeg_set_out_colorspace(match is_grey {
        true => ColorSpace::Luma,
        false => ColorSpace::RGB,
    });
    let decode = |file: &[u8]| JpegDecoder::new_with_options(ZCursor::new(file), options).decode();
    let pixels = decode(&whole).map_err(broken)?;
    // The decoder fills in zeros if the data ends early; these bits stand for large numbers instead.
    data.extend([0xee; 64]);
    if decode(&end(&data)).ok().as_ref() != Some(&pixels) {
        return Err(CUT.to_owned());
    }
    let picture = match is_grey {
        true => GrayImage::from_raw(width, height, pixels).map(DynamicImage::from),
        false => image::RgbImage::from_raw(width, height, pixels).map(DynamicImage::from),
    };
    let picture =
        picture.ok_or("broken JPEG: it has another number of pixels than its size says")?;
    Ok((picture, orientation))
}

/// Returns the position of a JPEG file's end marker, including fill bytes before it.
fn jpeg_end(bytes: &[u8]) -> Option<usize> {
    let mut at = 2; // After the start marker.
    loop {
        // Outside a scan, no byte precedes a marker; inside a scan, its data does.
        at += bytes.get(at..)?.iter().position(|&byte| byte == 0xff)?;
        let fill = bytes[at..].iter().take_while(|&&byte| byte == 0xff).count();
        let marker = at + fill;
        match *bytes.get(marker)? {
            0xd9 => return Some(at),
            // A stuffed byte, or a marker without content.
            0 | 0x01 | 0xd0..=0xd7 => at = marker + 1,
            _ => {
                let length = bytes.get(marker + 1..marker + 3)?;
                at = marker + 1 + usize::from(u16::from_be_bytes([length[0], length[1]]));
            }
        }
    }
}
