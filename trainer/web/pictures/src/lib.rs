//! The trainer's conversion of pictures to images as a WebAssembly module. The code is the same, so a picture dropped on a web page
//! becomes the same image as in `trainer predict`. The browser's own decoders are not used, because browsers change
//! pixels before a script can read them (colour profiles, premultiplied alpha, 16 bits).
//!
//! | export | purpose |
//! |---|---|
//! | `allocate(len)` | returns the address of `len` bytes, which the next `read` frees |
//! | `read(…)` | converts a file to an image; returns 1, or 0 if there is an error message |
//! | `image()` | returns the address and the length of the image: one byte per channel, row and column |
//! | `text()` | returns the address and the length of the error message, or of notes and warnings, one per line |

#![cfg(target_arch = "wasm32")]

use lenet_pictures::{ImageOptions, Shape, decode, oddity};
use std::cell::RefCell;

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

/// Converts the file in the allocated bytes to an image of these channels, rows and columns.
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
    STATE.with_borrow_mut(|state| {
        let file = std::mem::take(&mut state.input);
        let mut image = vec![0; shape.len()];
        match decode(&file, ImageOptions { resize, invert }, shape, &mut image) {
            Ok(has_colour) => {
                let mut lines = oddity::warnings(&image, shape);
                if has_colour && shape.channels == 1 {
                    lines.insert(0, "the colours are converted to grey".to_owned());
                }
                state.text = lines.join("\n");
                state.image = image;
                true
            }
            Err(sentence) => {
                state.image = Vec::new();
                state.text = sentence;
                false
            }
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
