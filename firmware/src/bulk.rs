//! Classifies an IDX file on the host, through semihosting. `firmware/riscv` also compiles this file, so it uses no board.

use core::ffi::CStr;
use lenet_core::Numbers;
use lenet_core::image::grey;
use lenet_core::link::Served;
use lenet_core::network::{CHANNELS, HEIGHT, Pixels, WIDTH};
use semihosting::fs::{File, OpenOptions};
use semihosting::io::{Read, Write};

/// The first word of an IDX file of bytes. Its last byte is the number of dimensions.
const MAGIC: u32 = if CHANNELS == 1 { 0x0803 } else { 0x0804 };

/// Classifies at most `limit` images of the file `from`, and writes their logits to the file `to`. Returns the number of
/// images. The images are uncompressed IDX: `(N, H, W)` for a network with one channel, otherwise `(N, C, H, W)`. The logits are
/// little-endian f32, one per class and image, without a header.
///
/// # Errors
/// Returns a message that says which file is at fault and why.
pub fn classify_file<N: Served>(
    (from, to): (&str, &str),
    limit: u32,
    params: &N::Params,
    image: &mut N::Image,
    act: &mut N::Activations,
) -> Result<u32, &'static str> {
    let mut images = open(from, File::options().read(true), "cannot open IMAGES")?;
    let mut word = || {
        let mut bytes = [0; 4];
        images
            .read_exact(&mut bytes)
            .map_err(|_| "IMAGES is shorter than an IDX header")?;
        Ok(u32::from_be_bytes(bytes))
    };
    let (magic, count) = (word()?, word()?);
    let channels = if CHANNELS == 1 { 1 } else { word()? };
    let shape = [channels, word()?, word()?];
    if magic != MAGIC || shape != [CHANNELS, HEIGHT, WIDTH].map(|side| side as u32) {
        return Err("IMAGES is not an uncompressed IDX file of images of the network's size");
    }
    let count = count.min(limit);
    let mut logits = open(
        to,
        File::options().write(true).create(true).truncate(true),
        "cannot create LOGITS",
    )?;
    for _ in 0..count {
        read_image::<N>(&mut images, image)?;
        let bytes = bytemuck::bytes_of(N::forward(params, image, act));
        logits.write_all(bytes).map_err(|_| "cannot write LOGITS")?;
    }
    Ok(count)
}

/// Reads the pixels of an image and converts them to the network's input.
///
/// The pixels have no buffer of their own, because the smallest boards have no RAM for one. They are read into the end of the
/// input, and in int8 they are the input. In f32 they are converted from the first to the last, so that a value of four bytes
/// overwrites only pixels that are already converted.
fn read_image<N: Served>(images: &mut File, image: &mut N::Image) -> Result<(), &'static str> {
    let bytes = bytemuck::bytes_of_mut(image);
    let start = bytes.len() - size_of::<Pixels>();
    images
        .read_exact(&mut bytes[start..])
        .map_err(|_| "IMAGES ends before its last image")?;
    match N::NUMBERS {
        Numbers::Int8 => {}
        Numbers::F32 => {
            for index in 0..size_of::<Pixels>() {
                let [[[value]]] = grey(&[[[bytes[start + index]]]]);
                bytes[4 * index..][..4].copy_from_slice(&value.to_ne_bytes());
            }
        }
    }
    Ok(())
}

/// Opens or creates a file. Returns `error` if that fails.
#[inline(never)] // so that the stack does not hold the name while the network runs
fn open(name: &str, options: &OpenOptions, error: &'static str) -> Result<File, &'static str> {
    let too_long = "a file name is too long";
    // Semihosting requires a name that ends with a zero.
    let mut buffer = [0; 256];
    buffer
        .get_mut(..name.len())
        .ok_or(too_long)?
        .copy_from_slice(name.as_bytes());
    let name = CStr::from_bytes_until_nul(&buffer).map_err(|_| too_long)?;
    options.open(name).map_err(|_| error)
}
