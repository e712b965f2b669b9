//! Proves that inference and the link cannot panic: no weights file, picture or message can cause a panic before the logits or the
//! reply are there. The proof is that this program links.
//!
//! Its panic handler calls a function that does not exist, so the linker fails if any panic is reachable. The
//! program does what every other program does between its start and its output. It is never run.

#![no_std]
#![no_main]

// This program cannot use the library, which has its own panic handler.
#[allow(unused)]
#[path = "../model.rs"]
mod model;

use core::hint::black_box;
use core::panic::PanicInfo;
use cortex_m_rt::entry;
use lenet_core::Classifier;
use lenet_core::image::{Frame, invert};
use lenet_core::link::{Bench, Info, MAX_FRAME, Meter, Receiver, Responder, Scratch, Unit};
use lenet_core::network::{CHANNELS, CLASSES, HEIGHT, LAYERS, Pixels, WIDTH};
use lenet_core::ops::{argmax, softmax};
use lenet_core::self_test;
use lenet_core::weights::{max_len, view_prefix};
use model::{Activations, Net, Params, forward, image};

unsafe extern "C" {
    static __weights: u8;
    fn a_panic_can_be_reached() -> !;
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    // SAFETY: this is never called. Nothing defines the function, so a program that could call it does not link.
    unsafe { a_panic_can_be_reached() }
}

/// The interrupts of the vector table, which the other programs get from the chip's crate.
#[cfg(feature = "device")]
#[unsafe(link_section = ".vector_table.interrupts")]
#[unsafe(no_mangle)]
static __INTERRUPTS: [u32; 1] = [0];

/// A clock that always returns the same time.
struct Stopped;

impl Meter<Net> for Stopped {
    fn ticks(&mut self) -> u32 {
        black_box(0)
    }

    fn bench(&mut self, _: &Params, _: &mut Activations) -> Bench {
        black_box(Bench {
            unit: Unit::Ticks,
            layers: [0; LAYERS.len()],
            total: 0,
        })
    }
}

#[entry]
fn main() -> ! {
    // SAFETY: the linker script reserves this region of flash.
    let region = unsafe { core::slice::from_raw_parts(&raw const __weights, max_len::<Net>()) };
    let mut act = Activations::new();
    if let Ok((weights, _)) = view_prefix::<Net>(region)
        && self_test::check::<Net>(weights.params, &weights.self_test, &mut act).is_ok()
    {
        let pixels: Pixels = black_box([[[0; WIDTH]; HEIGHT]; CHANNELS]);
        let mut shares = [0.0; CLASSES];
        let logits = forward(weights.params, &image(pixels), &mut act);
        softmax(logits, &mut shares);
        black_box((shares, argmax(logits)));

        let mut scratch = Scratch::<Net>::new();
        // What an application calls: from a camera's frame to a class.
        let mut pixels = pixels;
        if let Some(frame) = Frame::new(region, black_box(80), black_box(60)) {
            for channel in &mut pixels {
                frame.shrink(channel);
                invert(channel);
            }
        }
        if let Ok(mut classifier) = Classifier::<Net>::new(region, &mut scratch) {
            black_box(classifier.classify(&pixels));
        }
        let who = Info::new(&weights, black_box("board"), black_box("version"), 1);
        let mut responder = Responder::new(who, weights.params, &mut scratch, Stopped);
        let (mut receiver, mut out) = (Receiver::new(), [0; MAX_FRAME]);
        loop {
            if let Some(received) = receiver.push(black_box(0)) {
                black_box(responder.answer(received, &mut out));
            }
        }
    }
    loop {
        cortex_m::asm::wfi();
    }
}
