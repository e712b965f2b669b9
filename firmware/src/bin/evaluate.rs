//! Classifies every image of an IDX file of the host and writes all logits back, both through semihosting.
//!
//! Command line: `evaluate IMAGES LOGITS [COUNT]`. The images are uncompressed IDX, `(N, H, W)` for a network of one channel, else
//! `(N, C, H, W)`; the logits are little-endian f32, one per class and image, without a header. If COUNT is given, only the first
//! COUNT images are classified.

#![no_std]
#![no_main]

use core::ffi::CStr;
use cortex_m_rt::entry;
use firmware::clock::Clock;
use firmware::{BOARD, Failure, VERSION, info, semihost, weights};
use lenet_core::image::write_grey;
use lenet_core::network::{Activations, CHANNELS, HEIGHT, Image, Pixels, WIDTH, forward};
use semihosting::fs::File;
use semihosting::io::{Read, Write};

/// The first word of an IDX file of bytes: the last byte is the number of dimensions.
const MAGIC: u32 = if CHANNELS == 1 { 0x0803 } else { 0x0804 };

#[entry]
fn main() -> ! {
    static mut ACT: Activations = Activations::new();
    static mut IMAGE: Image = [[[0.0; WIDTH]; HEIGHT]; CHANNELS];
    let machine = firmware::start();
    firmware::finish(run(machine.clock, ACT, IMAGE))
}

fn run(clock: Clock, act: &mut Activations, image: &mut Image) -> Result<(), Failure> {
    info!("evaluate {} on {}, {} MHz", VERSION, BOARD, clock.mhz());
    let params = weights::verify(act)?.params;

    let args = semihost::args()?;
    let mut words = args.skip(1);
    let (Some(Ok(from)), Some(Ok(to))) = (words.next(), words.next()) else {
        return Err(Failure::Host("usage: evaluate IMAGES LOGITS [COUNT]"));
    };
    let limit = match words.next() {
        None => u32::MAX,
        Some(word) => word
            .ok()
            .and_then(|word| word.parse().ok())
            .ok_or(Failure::Host("COUNT is not a number"))?,
    };
    let mut images =
        File::open(path(from, &mut [0; 256])?).map_err(|_| Failure::Host("cannot open IMAGES"))?;
    let mut word = || {
        let mut bytes = [0; 4];
        images
            .read_exact(&mut bytes)
            .map_err(|_| Failure::Host("IMAGES is shorter than an IDX header"))?;
        Ok(u32::from_be_bytes(bytes))
    };
    let (magic, count) = (word()?, word()?);
    let channels = if CHANNELS == 1 { 1 } else { word()? };
    let shape = [channels, word()?, word()?];
    if magic != MAGIC || shape != [CHANNELS, HEIGHT, WIDTH].map(|side| side as u32) {
        return Err(Failure::Host(
            "IMAGES is not an uncompressed IDX file of images of the network's size",
        ));
    }
    let count = count.min(limit);
    let mut logits = File::create(path(to, &mut [0; 256])?)
        .map_err(|_| Failure::Host("cannot create LOGITS"))?;

    let start = clock.now();
    let mut pixels: Pixels = [[[0; WIDTH]; HEIGHT]; CHANNELS];
    for _ in 0..count {
        images
            .read_exact(bytemuck::bytes_of_mut(&mut pixels))
            .map_err(|_| Failure::Host("IMAGES ends before its last image"))?;
        write_grey(&pixels, image);
        let bytes = bytemuck::bytes_of(forward(params, image, act));
        logits
            .write_all(bytes)
            .map_err(|_| Failure::Host("cannot write LOGITS"))?;
    }
    info!("{} images in {} ms", count, clock.ms_since(start));
    Ok(())
}

/// A file name as semihosting takes it, ended by a zero.
fn path<'a>(name: &str, buffer: &'a mut [u8; 256]) -> Result<&'a CStr, Failure> {
    let too_long = Failure::Host("a file name is too long");
    buffer
        .get_mut(..name.len())
        .ok_or(too_long)?
        .copy_from_slice(name.as_bytes());
    CStr::from_bytes_until_nul(buffer).map_err(|_| too_long)
}
