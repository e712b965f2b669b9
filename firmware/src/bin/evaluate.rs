//! Classifies every image of an IDX file of the host and writes all logits back, both through semihosting.
//!
//! Command line: `evaluate IMAGES LOGITS [COUNT]`. The images are uncompressed IDX; the logits are ten little-endian f32 an
//! image, without a header. Only the first COUNT images are taken, if it is given.

#![no_std]
#![no_main]

use core::ffi::CStr;
use cortex_m_rt::entry;
use firmware::clock::Clock;
use firmware::{BOARD, Failure, VERSION, info, semihost, weights};
use lenet_core::arch::{Image, Pixels, SIDE, grey};
use lenet_core::network::{Activations, forward};
use semihosting::fs::File;
use semihosting::io::{Read, Write};

#[entry]
fn main() -> ! {
    static mut ACT: Activations = Activations::new();
    static mut IMAGE: Image = [[[0.0; SIDE]; SIDE]; 1];
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
    let mut header = [0; 16];
    images
        .read_exact(&mut header)
        .map_err(|_| Failure::Host("IMAGES is shorter than an IDX header"))?;
    let [magic, count, height, width] =
        bytemuck::cast::<_, [[u8; 4]; 4]>(header).map(u32::from_be_bytes);
    if magic != 0x803 || height as usize != SIDE || width as usize != SIDE {
        return Err(Failure::Host(
            "IMAGES is not an uncompressed IDX file of 28 x 28 images",
        ));
    }
    let count = count.min(limit);
    let mut logits = File::create(path(to, &mut [0; 256])?)
        .map_err(|_| Failure::Host("cannot create LOGITS"))?;

    let start = clock.ticks();
    let mut pixels: Pixels = [[0; SIDE]; SIDE];
    for _ in 0..count {
        images
            .read_exact(pixels.as_flattened_mut())
            .map_err(|_| Failure::Host("IMAGES ends before its last image"))?;
        for (grey_value, &pixel) in image
            .as_flattened_mut()
            .as_flattened_mut()
            .iter_mut()
            .zip(pixels.as_flattened())
        {
            *grey_value = grey(pixel);
        }
        let bytes = bytemuck::bytes_of(forward(params, image, act));
        logits
            .write_all(bytes)
            .map_err(|_| Failure::Host("cannot write LOGITS"))?;
    }
    info!("{} images in {} ms", count, clock.us_since(start) / 1000);
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
