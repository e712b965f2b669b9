//! Sample images. They are stored in flash as inputs of the network, so they need no buffer in RAM.

use crate::model::{Image, Net, image};
use lenet_core::Network as _;
use lenet_core::network::{CHANNELS, HEIGHT, Pixels, WIDTH};

/// The pixels of ten images of Fashion-MNIST, one of each class.
static BYTES: &[u8] = include_bytes!("../../data/samples.bin");
const FASHION: [usize; 3] = [1, 28, 28];

/// The number of images: ten, or one for a network whose images have another size.
pub const COUNT: usize = if is_fashion() { 10 } else { 1 };

const fn is_fashion() -> bool {
    CHANNELS == FASHION[0] && HEIGHT == FASHION[1] && WIDTH == FASHION[2]
}

/// The images of Fashion-MNIST in the order of their classes. For a network whose images have another size, this is only the
/// pattern of the self-test.
pub static IMAGES: [Image; COUNT] = {
    let mut images = [*Net::TEST_IMAGE; COUNT];
    if is_fashion() {
        assert!(
            BYTES.len() == COUNT * size_of::<Pixels>(),
            "samples.bin must hold ten images"
        );
        let mut index = 0;
        while index < COUNT {
            images[index] = image(pixels(index));
            index += 1;
        }
    }
    images
};

const fn pixels(index: usize) -> Pixels {
    let mut pixels = [[[0; WIDTH]; HEIGHT]; CHANNELS];
    let mut y = 0;
    while y < HEIGHT {
        let mut x = 0;
        while x < WIDTH {
            pixels[0][y][x] = BYTES[(index * HEIGHT + y) * WIDTH + x];
            x += 1;
        }
        y += 1;
    }
    pixels
}
