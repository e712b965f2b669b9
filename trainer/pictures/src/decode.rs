//! Decodes files of pictures: PNG, JPEG, BMP and PNM.
//!
//! The crate `image` decodes, rotates and scales. For JPEG this module calls `zune-jpeg`, which `image` uses too, directly,
//! because only then can it be strict: see [`jpeg`].

use crate::kinds::beginning;
use crate::picture::{check_size, rgba, turned, values, whole};
use crate::{ImageOptions, Shape};
use image::codecs::{bmp::BmpDecoder, png::PngDecoder, pnm::PnmDecoder};
use image::metadata::Orientation;
use image::{DynamicImage, GrayImage, ImageFormat, Limits};
use std::io::Cursor;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

/// Returns whether a file that begins with these bytes is a picture that [`decode`] reads.
pub fn is_picture(start: &[u8]) -> bool {
    format(start).is_some()
}

/// Returns the format of a file that begins with these bytes, with its name, if it is that of a picture.
fn format(start: &[u8]) -> Option<(&'static str, ImageFormat)> {
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

/// Reads a picture into the values of an image of `shape`, and returns whether it had colours other than grey. `out` has
/// [`Shape::len`] values: channel by channel, row by row.
///
/// # Errors
/// A sentence that says what was found and what was expected.
pub fn decode(
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
            turned(rgba(picture), orientation)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture::fitting;
    use image::{ImageBuffer, Luma, LumaA, Pixel, Rgb, RgbImage};

    const GREY: Shape = Shape {
        channels: 1,
        height: 28,
        width: 28,
    };

    fn encoded<P: Pixel + image::PixelWithColorType>(
        image: &ImageBuffer<P, Vec<P::Subpixel>>,
        format: ImageFormat,
    ) -> Vec<u8>
    where
        [P::Subpixel]: image::EncodableLayout,
    {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    fn png<P: Pixel + image::PixelWithColorType>(width: u32, height: u32, pixel: P) -> Vec<u8>
    where
        [P::Subpixel]: image::EncodableLayout,
    {
        encoded(
            &ImageBuffer::from_pixel(width, height, pixel),
            ImageFormat::Png,
        )
    }

    const AS_IT_IS: ImageOptions = ImageOptions {
        resize: false,
        invert: false,
    };
    const INVERT: ImageOptions = ImageOptions {
        invert: true,
        ..AS_IT_IS
    };
    const RESIZE: ImageOptions = ImageOptions {
        resize: true,
        ..AS_IT_IS
    };

    /// Returns the values of an image in any shape.
    fn values(file: &[u8], options: ImageOptions, shape: Shape) -> Result<Vec<u8>, String> {
        let mut values = vec![0; shape.len()];
        decode(file, options, shape, &mut values).map(|_| values)
    }

    /// Returns a picture in which neighbouring pixels differ, in colour and in grey.
    fn noise(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| {
            Rgb([
                (x * 37 + y * 11) as u8,
                (x * 5 + y * 59) as u8,
                (x * y * 7) as u8,
            ])
        })
    }

    fn grey_noise() -> GrayImage {
        DynamicImage::from(noise(28, 28)).into_luma8()
    }

    #[test]
    fn every_kind_of_pixel_becomes_grey() {
        for (file, options, grey) in [
            (png(28, 28, Luma([7u8])), AS_IT_IS, 7),
            (png(28, 28, Luma([7u8])), INVERT, 248),
            (png(28, 28, Luma([0x0707u16])), AS_IT_IS, 7),
            (png(28, 28, Rgb([90u8, 90, 90])), AS_IT_IS, 90),
            // Half transparent on black. Inverting does not change transparent parts.
            (png(28, 28, LumaA([200u8, 128])), AS_IT_IS, 100),
            (png(28, 28, LumaA([200u8, 0])), INVERT, 0),
        ] {
            let mut read = [0; 784];
            assert_eq!(decode(&file, options, GREY, &mut read), Ok(false));
            assert_eq!(read, [grey; 784]);
        }
        let jpeg = encoded(
            &ImageBuffer::from_pixel(28, 28, Luma([100u8])),
            ImageFormat::Jpeg,
        );
        let grey = values(&jpeg, AS_IT_IS, GREY).unwrap()[14 * 28 + 14];
        assert!(grey.abs_diff(100) <= 1, "{grey}");
    }

    #[test]
    fn every_format_gives_the_same_pixels() {
        let picture = noise(28, 28);
        let expected = values(&encoded(&picture, ImageFormat::Png), AS_IT_IS, GREY).unwrap();
        for format in [ImageFormat::Bmp, ImageFormat::Pnm] {
            let file = encoded(&picture, format);
            assert!(is_picture(&file[..16]), "{format:?}");
            assert_eq!(values(&file, AS_IT_IS, GREY).as_ref(), Ok(&expected));
        }
        let text = b"P2 28 28 255\n".iter().copied();
        let text: Vec<u8> = text.chain("9 ".repeat(784).into_bytes()).collect();
        assert_eq!(values(&text, AS_IT_IS, GREY), Ok(vec![9; 784]));
    }

    /// The grey values come from Pillow 13's `Image.convert("L")`.
    #[test]
    fn colour_becomes_grey_as_in_pillow() {
        for (rgb, grey) in [
            ([255, 0, 0], 76),
            ([0, 255, 0], 150),
            ([0, 0, 255], 29),
            ([255, 255, 255], 255),
            ([1, 0, 0], 0),
            ([0, 1, 0], 1),
            ([10, 200, 30], 124),
            ([200, 10, 30], 69),
            ([30, 10, 200], 38),
            ([123, 45, 67], 71),
            // Truncated instead of rounded, these would be one less.
            ([21, 7, 221], 36),
            ([209, 84, 115], 125),
            // In exact arithmetic the sum ends in .5, which would be rounded up.
            ([176, 112, 238], 145),
            ([252, 158, 179], 188),
        ] {
            let mut read = [0; 784];
            let picture = png(28, 28, Rgb::<u8>(rgb));
            let has_colour = decode(&picture, AS_IT_IS, GREY, &mut read).unwrap();
            let is_grey = rgb[0] == rgb[1] && rgb[1] == rgb[2];
            assert_eq!((read[0], has_colour), (grey, !is_grey), "{rgb:?}");
        }
    }

    #[test]
    fn a_network_of_three_channels_gets_the_colours() {
        let shape = Shape {
            channels: 3,
            height: 6,
            width: 5,
        };
        let picture = noise(5, 6);
        let read = values(&encoded(&picture, ImageFormat::Png), AS_IT_IS, shape).unwrap();
        for (channel, plane) in read.chunks(30).enumerate() {
            let expected = picture.pixels().map(|pixel| pixel[channel]);
            assert!(plane.iter().copied().eq(expected), "{channel}");
        }
        let inverted = values(&encoded(&picture, ImageFormat::Png), INVERT, shape).unwrap();
        assert!(inverted.iter().zip(&read).all(|(a, b)| a + b == 255));
        // Grey fills all of them.
        let grey = values(&png(5, 6, Luma([77u8])), AS_IT_IS, shape);
        assert_eq!(grey, Ok(vec![77; 90]));
    }

    #[test]
    fn pixels_stay_where_they_are() {
        let image = GrayImage::from_fn(28, 28, |x, y| [(x * 9 + y / 4) as u8].into());
        let read = values(&encoded(&image, ImageFormat::Png), AS_IT_IS, GREY);
        assert_eq!(read, Ok(image.into_raw()));
    }

    #[test]
    fn scaling_keeps_proportions_and_fills_up_with_black() {
        let read = |file: &[u8]| {
            let read = values(file, RESIZE, GREY).unwrap();
            read.chunks(28).map(<[u8]>::to_vec).collect::<Vec<_>>()
        };
        let wide = read(&png(56, 28, Luma([200u8])));
        assert_eq!(wide[6], [0; 28]);
        assert_eq!(wide[7..21], vec![[200; 28]; 14]);
        assert_eq!(wide[21], [0; 28]);
        let thin = read(&png(1, 4000, Luma([200u8])));
        assert_eq!((thin[3][12], thin[3][13], thin[3][14]), (0, 200, 0));
        // Into a shape that is wider than high.
        assert_eq!(fitting([100, 100], [40, 20]), [20, 20]);
        assert_eq!(fitting([300, 100], [40, 20]), [40, 13]);
        assert_eq!(fitting([10, 9000], [40, 20]), [1, 20]);
    }

    /// Returns a JPEG file whose orientation gives `picture`: it stores the picture rotated the other way.
    fn jpeg_to_turn(picture: &DynamicImage, orientation: Orientation) -> Vec<u8> {
        let mut stored = picture.clone();
        stored.apply_orientation(match orientation {
            Orientation::Rotate90 => Orientation::Rotate270,
            Orientation::Rotate270 => Orientation::Rotate90,
            other => other,
        });
        let mut file = Vec::new();
        let mut encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut file, 100);
        image::ImageEncoder::set_exif_metadata(&mut encoder, exif(orientation)).unwrap();
        encoder.encode_image(&stored).unwrap();
        file
    }

    /// Returns a TIFF structure with one entry: orientation, tag 0x112, one short.
    fn exif(orientation: Orientation) -> Vec<u8> {
        let mut exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01".to_vec();
        exif.extend([0, orientation.to_exif(), 0, 0, 0, 0, 0, 0]);
        exif
    }

    #[test]
    fn a_picture_is_turned_as_its_exif_says() {
        let shape = Shape {
            channels: 1,
            height: 24,
            width: 16,
        };
        // Smooth, so that JPEG stores it well, and different from each of its rotations.
        let picture = GrayImage::from_fn(16, 24, |x, y| [(x * 9 + y * y / 6) as u8].into());
        let picture = DynamicImage::from(picture);
        let expected = picture.to_luma8().into_raw();
        for exif_value in 1..=8 {
            let orientation = Orientation::from_exif(exif_value).unwrap();
            let read = values(&jpeg_to_turn(&picture, orientation), AS_IT_IS, shape).unwrap();
            let furthest = read
                .iter()
                .zip(&expected)
                .map(|(a, b)| a.abs_diff(*b))
                .max();
            assert!(furthest < Some(8), "{orientation:?}: {furthest:?}");
        }
        // PNG has a chunk for the orientation.
        let mut file = Cursor::new(Vec::new());
        let mut encoder = image::codecs::png::PngEncoder::new(&mut file);
        let exif = exif(Orientation::Rotate90);
        image::ImageEncoder::set_exif_metadata(&mut encoder, exif).unwrap();
        picture.rotate270().write_with_encoder(encoder).unwrap();
        assert_eq!(values(&file.into_inner(), AS_IT_IS, shape), Ok(expected));
        // The message states the size of the rotated picture.
        let turned = jpeg_to_turn(&picture, Orientation::Rotate90);
        assert_eq!(
            values(&turned, AS_IT_IS, GREY).unwrap_err(),
            "a JPEG of 16x24 pixels; this network takes 28x28, and --resize scales to that"
        );
    }

    #[test]
    fn each_fault_has_its_own_message() {
        let refused = |file: &[u8]| values(file, AS_IT_IS, GREY).unwrap_err();
        assert_eq!(refused(b""), "empty; expected a PNG, JPEG, BMP or PNM file");
        assert_eq!(
            refused(b"GIF89a\x01"),
            "no PNG, JPEG, BMP or PNM file (starts with \"GIF89a\\u{1}\", a GIF picture; convert it to PNG)"
        );
        assert_eq!(
            refused(&png(32, 30, Luma([0u8]))),
            "a PNG of 32x30 pixels; this network takes 28x28, and --resize scales to that"
        );
        assert_eq!(
            values(&png(1, 8193, Luma([0u8])), RESIZE, GREY).unwrap_err(),
            "a PNG of 1x8193 pixels; at most 8192x8192 are read"
        );
        // PNM allows sides of 0.
        for (size, file) in [
            ("0x0", "P5 0 0 255\n"),
            ("0x3", "P2 0 3 255\n"),
            ("3x0", "P6 3 0 255\n"),
        ] {
            assert_eq!(
                values(file.as_bytes(), RESIZE, GREY),
                Err(format!("a PNM of {size} pixels; expected at least 1x1"))
            );
        }
        let whole = png(28, 28, Luma([9u8]));
        for end in 4..whole.len() - 12 {
            let sentence = refused(&whole[..end]);
            assert!(sentence.starts_with("broken PNG: "), "{end}: {sentence}");
        }
    }

    /// A progressive picture, which the `image` crate cannot write. Pillow 13 wrote it with `progressive=True`.
    const PROGRESSIVE: &[u8] = include_bytes!("../samples/progressive.jpg");
    /// A picture with a restart marker after each block; Pillow 13 wrote it with `restart_marker_blocks=1`.
    const RESTARTS: &[u8] = include_bytes!("../samples/restarts.jpg");

    /// A truncated file is refused, unless only its end marker is missing: then it gives the whole picture.
    #[test]
    fn no_cut_file_gives_another_picture() {
        let grey = grey_noise();
        let colour = noise(28, 28);
        for (name, whole) in [
            ("png", encoded(&colour, ImageFormat::Png)),
            ("bmp", encoded(&colour, ImageFormat::Bmp)),
            ("ppm", encoded(&colour, ImageFormat::Pnm)),
            ("grey jpeg", encoded(&grey, ImageFormat::Jpeg)),
            ("colour jpeg", encoded(&colour, ImageFormat::Jpeg)),
            ("progressive jpeg", PROGRESSIVE.to_vec()),
            ("restarts jpeg", RESTARTS.to_vec()),
        ] {
            let expected = values(&whole, AS_IT_IS, GREY).unwrap();
            for len in 0..whole.len() {
                let read = values(&whole[..len], AS_IT_IS, GREY);
                assert!(
                    read.is_err() || read.as_ref() == Ok(&expected),
                    "{name}, {len} bytes"
                );
                let is_jpeg = name.ends_with("jpeg");
                assert!(!is_jpeg || read.is_err(), "{name}, {len} bytes");
            }
            // Bytes after the end, such as those that telephones add, do no harm.
            let longer = [&whole[..], b"more"].concat();
            assert_eq!(values(&longer, AS_IT_IS, GREY), Ok(expected), "{name}");
        }
    }

    /// Some programs add the end marker to a file of which they have only a part.
    #[test]
    fn a_jpeg_whose_data_ends_before_its_picture_is_refused() {
        for whole in [
            encoded(&grey_noise(), ImageFormat::Jpeg),
            encoded(&noise(28, 28), ImageFormat::Jpeg),
            RESTARTS.to_vec(),
        ] {
            let expected = values(&whole, AS_IT_IS, GREY).unwrap();
            for len in 4..whole.len() - 2 {
                let cut = [&whole[..len], &[0xff, 0xd9]].concat();
                let read = values(&cut, AS_IT_IS, GREY);
                assert!(read.is_err() || read == Ok(expected.clone()), "{len}");
            }
            let half = [&whole[..whole.len() / 2], &[0xff, 0xd9]].concat();
            let sentence = values(&half, AS_IT_IS, GREY).unwrap_err();
            assert!(sentence.contains("JPEG"), "{sentence}");
        }
    }
}
