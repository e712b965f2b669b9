//! Classifies an IDX file on the host, through semihosting. `firmware/riscv` also compiles this file, so it uses no board.

use core::ffi::CStr;
use lenet_core::link::Served;
use lenet_core::network::{CHANNELS, HEIGHT, Pixels, WIDTH};
use semihosting::fs::File;
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
    let mut images = File::open(path(from, &mut [0; 256])?).map_err(|_| "cannot open IMAGES")?;
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
    let mut logits = File::create(path(to, &mut [0; 256])?).map_err(|_| "cannot create LOGITS")?;

    let mut pixels: Pixels = [[[0; WIDTH]; HEIGHT]; CHANNELS];
    for _ in 0..count {
        images
            .read_exact(bytemuck::bytes_of_mut(&mut pixels))
            .map_err(|_| "IMAGES ends before its last image")?;
        N::write_image(&pixels, image);
        let bytes = bytemuck::bytes_of(N::forward(params, image, act));
        logits.write_all(bytes).map_err(|_| "cannot write LOGITS")?;
    }
    Ok(count)
}

/// Returns a file name as semihosting requires it, terminated by a zero.
fn path<'a>(name: &str, buffer: &'a mut [u8; 256]) -> Result<&'a CStr, &'static str> {
    let too_long = "a file name is too long";
    buffer
        .get_mut(..name.len())
        .ok_or(too_long)?
        .copy_from_slice(name.as_bytes());
    CStr::from_bytes_until_nul(buffer).map_err(|_| too_long)
}
