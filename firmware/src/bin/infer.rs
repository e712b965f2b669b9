//! Checks the weights and the machine, then classifies the sample images.

#![no_std]
#![no_main]

use cortex_m_rt::entry;
use firmware::clock::Clock;
use firmware::model::{Activations, Image, Net, brightness, forward};
use firmware::{BOARD, Failure, VERSION, debug, info, log, ram, samples, weights};
use lenet_core::network::{CLASSES, Logits, NAME, WIDTH};
use lenet_core::ops::{argmax, softmax};
use lenet_core::weights::Weights;

#[entry]
fn main() -> ! {
    static mut ACT: Activations = Activations::new();
    let machine = firmware::start();
    firmware::finish(run(machine.clock, ACT))
}

fn run(clock: Clock, act: &mut Activations) -> Result<(), Failure> {
    info!("{} {} on {}, {} MHz", NAME, VERSION, BOARD, clock.mhz());
    // Borrows from the result instead of moving out of it, so that the stack holds its 250 bytes only once.
    let read = weights::read();
    let (weights, _) = read.as_ref().map_err(|&error| Failure::Weights(error))?;
    weights::self_test(weights, act)?;
    describe(weights);
    for (class, image) in samples::IMAGES.iter().enumerate() {
        classify(clock, weights, class, image, act);
    }
    let used = ram::used();
    info!(
        "RAM: {} bytes of statics, {} of them the log's, and {} of stack",
        used.statics,
        log::BUFFER_BYTES,
        used.stack
    );
    Ok(())
}

/// Logs the metadata of the weights file.
#[inline(never)]
fn describe(weights: &Weights<'_, Net>) {
    let from = &weights.metadata.provenance;
    let [a, b, c, d, ..] = from.params_sha256;
    info!(
        "weights {:08x}, parameters {:08x}: {}, {} epochs of {}",
        weights.crc,
        u32::from_be_bytes([a, b, c, d]),
        from.dataset,
        from.epochs,
        from.recipe
    );
    if !from.test_accuracy.is_nan() {
        let (whole, tenths) = percent(from.test_accuracy);
        info!("test accuracy {}.{} %, self-test passed", whole, tenths);
    }
}

/// Classifies a sample image and logs the result.
#[inline(never)]
fn classify(
    clock: Clock,
    weights: &Weights<'_, Net>,
    class: usize,
    image: &Image,
    act: &mut Activations,
) {
    if log::DEBUG {
        draw(image);
    }
    let start = clock.ticks();
    let logits = forward(weights.params, image, act);
    let us = clock.ticks().wrapping_sub(start) / clock.mhz();
    report(weights, class, logits, us);
}

/// Logs the result for an image. This is a separate function, so that its stack is free while the network runs.
#[inline(never)]
fn report(weights: &Weights<'_, Net>, class: usize, logits: &Logits, us: u32) {
    let best = argmax(logits);
    let (whole, tenths) = percent(share(logits, best));
    let names = &weights.metadata.classes;
    info!(
        "{}: {}, {}.{} %, {} us",
        names.get(class),
        names.get(best),
        whole,
        tenths,
        us
    );
}

/// Returns the softmax probability of a class.
#[inline(never)] // so that its stack is free again when the result is logged
fn share(logits: &Logits, class: usize) -> f32 {
    let mut shares = [0.0; CLASSES];
    softmax(logits, &mut shares);
    shares[class]
}

/// Draws the first channel of the image in characters, darker for larger values.
#[inline(never)]
fn draw(image: &Image) {
    const INK: &[u8; 8] = b" .:-=+*#";
    for row in &image[0] {
        let mut line = [b' '; WIDTH];
        for (character, &value) in line.iter_mut().zip(row) {
            *character = INK[brightness(value) & 7];
        }
        debug!("{}", core::str::from_utf8(&line).unwrap_or_default());
    }
}

/// Converts a share to percent and tenths of a percent, rounded to nearest.
fn percent(share: f32) -> (u32, u32) {
    let permille = (share * 1000.0 + 0.5) as u32;
    (permille / 10, permille % 10)
}
