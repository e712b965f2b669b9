//! The trainer's reader of pictures as a WebAssembly module, so that a picture dropped on a page becomes the image that
//! `trainer predict` makes of it: the same source, compiled once more.
//!
//! PNG files are decoded here. Browsers change pixels on their way to a script (colour profiles, premultiplied alpha, 16 bits),
//! and this decoder is the trainer's. Other formats would double the module; a page lets the browser decode those, and this
//! module does the rest.
//!
//! | export | does |
//! |---|---|
//! | `allocate(len)` | returns the address of so many bytes, which the next `read` or `convert` frees |
//! | `read(…)` | makes a PNG file an image; returns 1, or 0 and a sentence |
//! | `convert(jpeg, columns, rows, …)` | makes pixels of red, green, blue and alpha an image; returns 1, or 0 and a sentence |
//! | `image()` | returns address and length of the image: one byte per channel, row and column |
//! | `text()` | returns address and length of the sentence, or of notes and warnings, one per line |

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

/// What may be done to a picture so that it fits: the trainer's options of these names.
#[derive(Clone, Copy)]
pub struct ImageOptions {
    /// Whether to scale it to the size that the network takes.
    pub resize: bool,
    /// Whether to make dark on white bright on black.
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

/// Returns the address of `len` bytes to write a file or pixels to.
#[unsafe(no_mangle)]
extern "C" fn allocate(len: usize) -> usize {
    STATE.with_borrow_mut(|state| {
        state.input = vec![0; len];
        state.input.as_mut_ptr().expose_provenance()
    })
}

/// Makes the PNG file in the allocated bytes an image of these channels, rows and columns.
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

/// Makes the allocated bytes, red, green, blue and alpha of so many columns and rows, an image. They are those of a JPEG, or
/// else of a BMP file, which a browser has decoded and turned.
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

/// Makes the allocated bytes an image by way of what `decode` returns, and keeps it with what there is to say about it.
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

/// Returns the address of the image in the upper half and its length in the lower one.
#[unsafe(no_mangle)]
extern "C" fn image() -> u64 {
    STATE.with_borrow(|state| place(&state.image))
}

/// Returns the address of the text in the upper half and its length in the lower one.
#[unsafe(no_mangle)]
extern "C" fn text() -> u64 {
    STATE.with_borrow(|state| place(state.text.as_bytes()))
}

fn place(bytes: &[u8]) -> u64 {
    (bytes.as_ptr().expose_provenance() as u64) << 32 | bytes.len() as u64
}
