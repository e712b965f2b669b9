//! Compares the functions of `lenet-asm` with those in plain Rust, on a core with the DSP extension, where they are instructions.
//!
//! `smlad` tests a sample of operands: all words of two extreme halves, and four million others. `smlad all` tests all 2³² pairs
//! of 16-bit factors, in both halves. This takes minutes, so CI does not run it:
//!
//! ```sh
//! firmware/build-all.sh mps2-an386
//! firmware/qemu.sh mps2-an386 target/firmware/mps2-an386/thumbv7em-none-eabihf/release/smlad -append all
//! ```

#![no_std]
#![no_main]

use core::hint::black_box;
use cortex_m_rt::entry;
use firmware::{BOARD, Failure, VERSION, info, semihost};
use lenet_asm::{DSP, pair_at, plain, smlad};

/// The halves of a word that test boundaries: signs, carries, bytes.
const EXTREMES: [u16; 12] = [
    0, 1, 2, 0x7f, 0x80, 0xff, 0x100, 0x7ffe, 0x7fff, 0x8000, 0x8001, 0xffff,
];
const SUMS: [u32; 5] = [0, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff];
const RANDOM: u32 = 4_000_000;

#[entry]
fn main() -> ! {
    firmware::start();
    firmware::finish(run())
}

fn run() -> Result<(), Failure> {
    info!("smlad {} on {}", VERSION, BOARD);
    if !DSP {
        return Err(Failure::Host(
            "no DSP instructions: there is nothing to compare",
        ));
    }
    let args = semihost::args()?;
    let different = match (&args).nth(1) {
        None => {
            let [pairs, different] = sample();
            info!("{} sampled operands", pairs);
            different | words()
        }
        Some(Ok("all")) => {
            let different = all();
            info!("all pairs of 16-bit factors");
            different
        }
        Some(_) => return Err(Failure::Host("usage: smlad [all]")),
    };
    match different {
        0 => Ok(()),
        _ => Err(Failure::Host("an instruction differs from its plain twin")),
    }
}

/// Returns the bits in which the instruction differs from the function in plain Rust.
#[inline(always)]
fn difference(a: u32, b: u32, sum: u32) -> u32 {
    smlad(a, b, sum) ^ plain::smlad(a, b, sum)
}

/// Returns an iterator over every word of two extreme halves.
fn extremes() -> impl Iterator<Item = u32> {
    let halves = EXTREMES.map(u32::from);
    (0..halves.len() * halves.len())
        .map(move |at| halves[at / halves.len()] << 16 | halves[at % halves.len()])
}

/// Tests a sample of operands. Returns their number and the bits in which any results differ.
fn sample() -> [u32; 2] {
    let (mut count, mut different) = (0, 0);
    for a in extremes() {
        for b in extremes() {
            for sum in SUMS {
                different |= difference(a, b, sum);
                count += 1;
            }
        }
    }
    // A 64-bit linear congruential generator.
    let mut state = 1u64;
    let mut random = || {
        state = state
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 32) as u32
    };
    for _ in 0..RANDOM {
        different |= difference(random(), random(), random());
        count += 1;
    }
    [count, different]
}

/// Tests every pair of factors, in the lower and in the upper halves. Returns the bits in which any results differ.
fn all() -> u32 {
    let mut different = 0;
    for x in 0..=0xffff_u32 {
        for y in 0..=0xffff_u32 {
            let (a, b) = (y << 16 | x, x << 16 | y);
            different |= difference(a, b, a ^ 0x8000_0000);
        }
    }
    different
}

/// Tests loads of pairs of words. Returns the bits in which any results differ.
fn words() -> u32 {
    let words = black_box([1, 2, 3, 4, 5]);
    let all: &[u32] = &words;
    let differ = |a: [u32; 2], b: [u32; 2]| (a[0] ^ b[0]) | (a[1] ^ b[1]);
    differ(pair_at::<0>(all), plain::pair_at::<0>(all))
        | differ(pair_at::<3>(all), plain::pair_at::<3>(all))
        | differ(pair_at::<4>(all), plain::pair_at::<4>(all))
        | differ(pair_at::<5>(all), plain::pair_at::<5>(all))
}
