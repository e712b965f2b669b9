//! Checks the weights file, runs its self-test and classifies an IDX file on the host, all through semihosting.
//!
//! The program shows that `lenet-core` gives the host's bits on another architecture, and how much stack its forward pass
//! needs there. It runs on 32-bit RISC-V without floating point, in QEMU's machine `virt`.
//!
//! Command line: `evaluate IMAGES LOGITS [COUNT]`, as for the boards' program `evaluate`.

#![no_std]
#![no_main]

#[path = "../../src/bulk.rs"]
mod bulk;

use bulk::classify_file;
use core::slice;
use lenet_core::network::{Activations, CHANNELS, HEIGHT, Image, Net, WIDTH, forward};
use lenet_core::self_test;
use lenet_core::weights::{max_len, view_prefix};
use riscv as _; // provides the critical section
use riscv_rt::entry;
use semihosting::{eprintln, println, process};

unsafe extern "C" {
    static __weights: u8;
    static _ebss: u32;
}

/// The pattern that marks unused stack.
const PAINT: u32 = 0xcccc_cccc;

#[entry]
fn main() -> ! {
    match run() {
        Ok(()) => {
            println!("ok");
            process::exit(0)
        }
        Err(error) => {
            eprintln!("error: {error}");
            process::exit(1)
        }
    }
}

fn run() -> Result<(), &'static str> {
    // SAFETY: the linker script reserves more than this for the weights, and nothing writes there.
    let region = unsafe { slice::from_raw_parts(&raw const __weights, max_len::<Net>()) };
    let (weights, _) = view_prefix::<Net>(region).map_err(|error| {
        eprintln!("{error}");
        "the weights cannot be used"
    })?;
    let mut act = Activations::new();
    self_test::check::<Net>(weights.params, &weights.self_test, &mut act)
        .map_err(|_| "the self-test has other logits than the trainer's")?;
    let mut image: Image = [[[0.0; WIDTH]; HEIGHT]; CHANNELS];
    let used = stack_of(|| {
        forward(weights.params, &image, &mut act);
    });
    println!("self-test passed, forward takes {used} bytes of stack");

    let args = semihosting::experimental::env::args::<256>().map_err(|_| "no command line")?;
    let mut words = args.skip(1);
    let (Some(Ok(from)), Some(Ok(to))) = (words.next(), words.next()) else {
        return Err("usage: evaluate IMAGES LOGITS [COUNT]");
    };
    let limit = match words.next() {
        None => u32::MAX,
        Some(word) => word
            .ok()
            .and_then(|word| word.parse().ok())
            .ok_or("COUNT is not a number")?,
    };
    let params = weights.params;
    let count = classify_file::<Net>((from, to), limit, params, &mut image, &mut act)?;
    println!("{count} images");
    Ok(())
}

/// Returns the bytes of stack that a function uses.
#[inline(never)]
fn stack_of(work: impl FnOnce()) -> usize {
    let here = 0u32;
    let top = &raw const here as usize & !3;
    let bottom = &raw const _ebss as usize;
    // The last 256 bytes are for this function's own calls.
    let painted = (bottom..top - 256).step_by(4);
    for address in painted.clone() {
        // SAFETY: this is RAM between the statics and the part of the stack that is in use.
        unsafe { core::ptr::with_exposed_provenance_mut::<u32>(address).write_volatile(PAINT) };
    }
    work();
    let untouched = painted.take_while(|&address| {
        // SAFETY: as above.
        unsafe { core::ptr::with_exposed_provenance::<u32>(address).read_volatile() == PAINT }
    });
    top - (bottom + 4 * untouched.count())
}
