//! Ten images to try, one a class, in flash as the network takes them: no buffer in RAM.

use lenet_core::arch::{CLASSES, Image, Pixels, SIDE, image};

static PIXELS: [Pixels; CLASSES] = {
    let bytes = include_bytes!("../../data/samples.bin");
    assert!(
        bytes.len() == CLASSES * SIDE * SIDE,
        "samples.bin must hold ten images"
    );
    let mut pixels = [[[0; SIDE]; SIDE]; CLASSES];
    let mut i = 0;
    while i < bytes.len() {
        pixels[i / (SIDE * SIDE)][i / SIDE % SIDE][i % SIDE] = bytes[i];
        i += 1;
    }
    pixels
};

/// The images; the index is the class.
pub static IMAGES: [Image; CLASSES] = {
    let mut images = [[[[0.0; SIDE]; SIDE]; 1]; CLASSES];
    let mut class = 0;
    while class < CLASSES {
        images[class] = image(&PIXELS[class]);
        class += 1;
    }
    images
};
