//! The trainer's conversion of pictures to images as a WebAssembly module. It compiles the same source, so that a picture dropped
//! on a web page becomes the same image as in `trainer predict`.
//!
//! PNG files are decoded here, by the trainer's decoder, because browsers change pixels before a script can read them (colour
//! profiles, premultiplied alpha, 16 bits). Decoders for other formats would double the size of the module. The page lets the
//! browser decode those, and this module converts the pixels.
//!
//! | export | purpose |
//! |---|---|
//! | `allocate(len)` | returns the address of `len` bytes, which the next `read` or `convert` frees |
//! | `read(…)` | converts a PNG file to an image; returns 1, or 0 if there is an error message |
//! | `convert(jpeg, columns, rows, …)` | converts red, green, blue and alpha to an image; returns 1, or 0 if there is an error message |
//! | `image()` | returns the address and the length of the image: one byte per channel, row and column |
//! | `text()` | returns the address and the length of the error message, or of notes and warnings, one per line |

#![cfg(target_arch = "wasm32")]

#[path = "../../../src/dataset/dims.rs"]
mod dims;
#[path = "../../../src/dataset/kinds.rs"]
#[allow(dead_code)]
mod kinds;
#[path = "../../../src/dataset/oddity.rs"]
mod oddity;
#[path = "../../../src/dataset/picture.rs"]
mod picture;

use dims::Shape;
use image::RgbaImage;
use image::codecs::png::PngDecoder;
use image::metadata::Orientation;
use std::cell::RefCell;
use std::io::Cursor;

/// The permitted conversions of a picture, which are the trainer's options of the same names.
#[derive(Clone, Copy)]
pub struct ImageOptions {
    /// Whether to scale the picture to the network's size.
    pub resize: bool,
    /// Whether to invert the picture, from dark on white to bright on black.
    pub invert: bool,
}

#[derive(Default)]
struct State {
    input: Vec<u8>,
    image: Vec<u8>,
    text: String,
}

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}

/// Allocates `len` bytes for a file or pixels, and returns their address.
#[unsafe(no_mangle)]
extern "C" fn allocate(len: usize) -> usize {
    STATE.with_borrow_mut(|state| {
        state.input = vec![0; len];
        state.input.as_mut_ptr().expose_provenance()
    })
}

/// Converts the PNG file in the allocated bytes to an image of these channels, rows and columns.
#[unsafe(no_mangle)]
extern "C" fn read(
    channels: usize,
    height: usize,
    width: usize,
    resize: bool,
    invert: bool,
) -> bool {
    let shape = Shape {
        channels,
        height,
        width,
    };
    let options = ImageOptions { resize, invert };
    keep(shape, options, |bytes| {
        if !bytes.starts_with(b"\x89PNG") {
            return Err(match &bytes[..] {
                [] => "empty; expected a PNG, JPEG, BMP or PNM file".to_owned(),
                _ => format!(
                    "no PNG, JPEG, BMP or PNM file ({})",
                    kinds::beginning(&bytes)
                ),
            });
        }
        let decoder = PngDecoder::new(Cursor::new(bytes));
        let decoder = decoder.map_err(|error| format!("broken PNG: {error}"))?;
        let check_size = |size, turned| picture::check_size("PNG", size, turned, options, shape);
        picture::whole(decoder, "PNG", check_size)
    })
}

/// Converts the allocated bytes to an image. They are the red, green, blue and alpha of so many columns and rows, from a JPEG or a
/// BMP file that a browser has decoded and rotated.
#[unsafe(no_mangle)]
extern "C" fn convert(
    jpeg: bool,
    columns: u32,
    rows: u32,
    channels: usize,
    height: usize,
    width: usize,
    resize: bool,
    invert: bool,
) -> bool {
    let shape = Shape {
        channels,
        height,
        width,
    };
    let options = ImageOptions { resize, invert };
    keep(shape, options, |pixels| {
        let name = if jpeg { "JPEG" } else { "BMP" };
        picture::check_size(
            name,
            (columns, rows),
            Orientation::NoTransforms,
            options,
            shape,
        )?;
        RgbaImage::from_raw(columns, rows, pixels).ok_or_else(|| {
            format!("broken {name}: it has another number of pixels than its size says")
        })
    })
}

/// Decodes the allocated bytes, converts the picture to an image, and stores the image with the notes and warnings about it.
fn keep(
    shape: Shape,
    options: ImageOptions,
    decode: impl FnOnce(Vec<u8>) -> Result<RgbaImage, String>,
) -> bool {
    STATE.with_borrow_mut(|state| match decode(std::mem::take(&mut state.input)) {
        Ok(picture) => {
            state.image = vec![0; shape.len()];
            let has_colour = picture::values(&picture, options, shape, &mut state.image);
            let mut lines = oddity::warnings(&state.image, shape);
            if has_colour && shape.channels == 1 {
                lines.insert(0, "the colours are converted to grey".to_owned());
            }
            state.text = lines.join("\n");
            true
        }
        Err(sentence) => {
            state.image = Vec::new();
            state.text = sentence;
            false
        }
    })
}

/// Returns the address of the image in the upper half and its length in the lower half.
#[unsafe(no_mangle)]
extern "C" fn image() -> u64 {
    STATE.with_borrow(|state| place(&state.image))
}

/// Returns the address of the text in the upper half and its length in the lower half.
#[unsafe(no_mangle)]
extern "C" fn text() -> u64 {
    STATE.with_borrow(|state| place(state.text.as_bytes()))
}

fn place(bytes: &[u8]) -> u64 {
    (bytes.as_ptr().expose_provenance() as u64) << 32 | bytes.len() as u64
}
