//! PNG and JPEG files as images of the network, bright on black.
//!
//! For a network of one channel, colour becomes grey (Rec. 709); for one of three, grey becomes red, green and blue alike. Sixteen
//! bits become eight, transparent is black. Another size is an error unless scaling was asked for. Decoding and scaling are
//! the `image` crate's.

use super::ImageOptions;
use bytemuck::Zeroable;
use image::imageops::{self, FilterType};
use image::{DynamicImage, GrayImage, ImageDecoder, ImageFormat, ImageReader};
use lenet_core::network::{CHANNELS, HEIGHT, Pixels, WIDTH};
use std::io::Cursor;

/// Sides above this are refused before any memory is asked for.
const MAX_SIDE: u32 = 8192;
/// Width and height of the network's images.
const WANTED: [u32; 2] = [WIDTH as u32, HEIGHT as u32];

/// Reads an image file.
///
/// # Errors
/// A sentence that says what was found and what was expected.
pub fn read_image(bytes: &[u8], options: ImageOptions) -> Result<Pixels, String> {
    let (name, format) = match bytes {
        [] => return Err("empty; expected a PNG or JPEG file".to_owned()),
        [0x89, b'P', b'N', b'G', ..] => ("PNG", ImageFormat::Png),
        [0xff, 0xd8, ..] => ("JPEG", ImageFormat::Jpeg),
        _ => {
            let start: String = String::from_utf8_lossy(&bytes[..bytes.len().min(16)])
                .escape_debug()
                .collect();
            return Err(format!("neither PNG nor JPEG (starts with \"{start}\")"));
        }
    };
    let broken = |error| format!("broken {name}: {error}");
    let decoder = ImageReader::with_format(Cursor::new(bytes), format)
        .into_decoder()
        .map_err(broken)?;
    let (width, height) = decoder.dimensions();
    let size = format!("a {name} of {width}x{height} pixels");
    if width.max(height) > MAX_SIDE {
        return Err(format!("{size}; at most {MAX_SIDE}x{MAX_SIDE} are read"));
    }
    if [width, height] != WANTED && !options.resize {
        return Err(format!(
            "{size}; this network takes {WIDTH}x{HEIGHT}, and --resize scales to that"
        ));
    }
    let decoded = DynamicImage::from_decoder(decoder).map_err(broken)?;
    let mut pixels = Pixels::zeroed();
    for (channel, map) in pixels.iter_mut().enumerate() {
        let values = on_black(&decoded, channel, options.invert);
        let values = if [width, height] == WANTED {
            values
        } else {
            scaled(&values)
        };
        *map = std::array::from_fn(|y| std::array::from_fn(|x| values[(x as u32, y as u32)].0[0]));
    }
    Ok(pixels)
}

/// Returns the values of a channel, inverted if asked; where the image is transparent, black shows.
fn on_black(image: &DynamicImage, channel: usize, invert: bool) -> GrayImage {
    let on_black = |value: u8, alpha: u8| {
        let [value, alpha] = [value, alpha].map(u16::from);
        let value = if invert { 255 - value } else { value };
        [((value * alpha + 127) / 255) as u8].into()
    };
    if CHANNELS == 1 {
        let image = image.to_luma_alpha8();
        GrayImage::from_fn(image.width(), image.height(), |x, y| {
            let [grey, alpha] = image[(x, y)].0;
            on_black(grey, alpha)
        })
    } else {
        let image = image.to_rgba8();
        GrayImage::from_fn(image.width(), image.height(), |x, y| {
            let pixel = image[(x, y)].0;
            on_black(pixel[channel], pixel[3])
        })
    }
}

/// Scales to the largest size that fits, in the middle.
fn scaled(image: &GrayImage) -> GrayImage {
    let [width, height] = [image.width(), image.height()].map(u64::from);
    let [wanted_width, wanted_height] = WANTED.map(u64::from);
    // The side that is the tighter fit takes all the room it has.
    let (by, of) = if width * wanted_height >= height * wanted_width {
        (wanted_width, width)
    } else {
        (wanted_height, height)
    };
    let side = |side: u64| ((side * by + of / 2) / of).max(1) as u32;
    let small = imageops::resize(image, side(width), side(height), FilterType::Triangle);
    let mut whole = GrayImage::new(WANTED[0], WANTED[1]);
    let middle = |wanted: u32, side: u32| i64::from((wanted - side) / 2);
    let (x, y) = (
        middle(WANTED[0], small.width()),
        middle(WANTED[1], small.height()),
    );
    imageops::replace(&mut whole, &small, x, y);
    whole
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ImageBuffer, Luma, LumaA, Pixel, Rgb};

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

    #[test]
    fn every_kind_of_pixel_becomes_grey() {
        for (file, options, grey) in [
            (png(28, 28, Luma([7u8])), AS_IT_IS, 7),
            (png(28, 28, Luma([7u8])), INVERT, 248),
            (png(28, 28, Luma([0x0707u16])), AS_IT_IS, 7),
            (png(28, 28, Rgb([90u8, 90, 90])), AS_IT_IS, 90),
            // Half transparent on black; where it is transparent, inverting changes nothing.
            (png(28, 28, LumaA([200u8, 128])), AS_IT_IS, 100),
            (png(28, 28, LumaA([200u8, 0])), INVERT, 0),
        ] {
            assert_eq!(read_image(&file, options), Ok([[[grey; 28]; 28]]));
        }
        let jpeg = encoded(
            &ImageBuffer::from_pixel(28, 28, Luma([100u8])),
            ImageFormat::Jpeg,
        );
        let grey = read_image(&jpeg, AS_IT_IS).unwrap()[0][14][14];
        assert!(grey.abs_diff(100) <= 1, "{grey}");
    }

    #[test]
    fn green_is_brighter_than_blue() {
        let grey = |rgb| read_image(&png(28, 28, Rgb::<u8>(rgb)), AS_IT_IS).unwrap()[0][0][0];
        assert!(grey([0, 255, 0]) > grey([255, 0, 0]) && grey([255, 0, 0]) > grey([0, 0, 255]));
    }

    #[test]
    fn pixels_stay_where_they_are() {
        let image = GrayImage::from_fn(28, 28, |x, y| [(x * 9 + y / 4) as u8].into());
        let read = read_image(&encoded(&image, ImageFormat::Png), AS_IT_IS).unwrap();
        assert_eq!(read[0][9][20], 20 * 9 + 2);
    }

    #[test]
    fn scaling_keeps_proportions_and_fills_up_with_black() {
        let wide = read_image(&png(56, 28, Luma([200u8])), RESIZE).unwrap()[0];
        assert_eq!(wide[6], [0; 28]);
        assert_eq!(wide[7..21], [[200; 28]; 14]);
        assert_eq!(wide[21], [0; 28]);
        let thin = read_image(&png(1, 4000, Luma([200u8])), RESIZE).unwrap()[0];
        assert_eq!((thin[3][12], thin[3][13], thin[3][14]), (0, 200, 0));
    }

    #[test]
    fn each_fault_has_its_sentence() {
        let refused = |file: &[u8]| read_image(file, AS_IT_IS).unwrap_err();
        assert_eq!(refused(b""), "empty; expected a PNG or JPEG file");
        assert_eq!(
            refused(b"GIF89a\x01"),
            "neither PNG nor JPEG (starts with \"GIF89a\\u{1}\")"
        );
        assert_eq!(
            refused(&png(32, 30, Luma([0u8]))),
            "a PNG of 32x30 pixels; this network takes 28x28, and --resize scales to that"
        );
        assert_eq!(
            read_image(&png(1, 8193, Luma([0u8])), RESIZE).unwrap_err(),
            "a PNG of 1x8193 pixels; at most 8192x8192 are read"
        );
        let whole = png(28, 28, Luma([9u8]));
        for end in 4..whole.len() - 12 {
            let sentence = refused(&whole[..end]);
            assert!(sentence.starts_with("broken PNG: "), "{end}: {sentence}");
        }
    }
}
