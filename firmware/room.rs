// The flash and RAM that the programs need, in bytes. `build.rs` compares them with the memories of a board, and the tests
// compare them with the sizes of the images. (Not `//!`, which a file that `build.rs` includes by `include!` cannot have.)

use lenet_core::{Network, Numbers, network, weights};

/// The memory that the largest programs for one number format need.
pub struct Room {
    /// The flash of the largest program without the weights: its sample images and its code.
    pub code: u64,
    /// The flash of the weights file.
    pub weights: u64,
    /// The RAM of the largest program without its stack: the outputs of all layers, an image, and 2.5 KB for the link and the rest.
    pub statics: u64,
    /// The stack of the program that needs the most.
    pub stack: u64,
}

/// Returns the memory that a number format needs.
pub const fn room(numbers: Numbers) -> Room {
    match numbers {
        Numbers::F32 => room_of::<network::Net>(),
        Numbers::Int8 => room_of::<network::int8::Net>(),
    }
}

/// The number of images that the largest program has in flash: the pattern of the self-test, and ten images of Fashion-MNIST if
/// they have the network's size, or else the pattern again.
const IMAGES: usize = if size_of::<network::Pixels>() == 28 * 28 {
    11
} else {
    2
};

const fn room_of<N: Network>() -> Room {
    Room {
        code: (IMAGES * size_of::<N::Image>() + 38 * 1024) as u64,
        weights: weights::max_len::<N>() as u64,
        statics: (size_of::<N::Activations>() + size_of::<N::Image>() + 2560) as u64,
        stack: 3 * 1024,
    }
}

/// The RAM that a real board needs in addition, for the log, the link through the probe and the UART's buffers.
pub const REAL_BYTES: u64 = 10 * 1024;

/// Returns the `LENGTH` of a region of a board's `memory.x`, which must be written as `NAME : ORIGIN = …, LENGTH = nK`.
pub fn length(script: &str, region: &str) -> Option<u64> {
    let line = script
        .lines()
        .find(|line| line.trim_start().starts_with(&format!("{region} ")))?;
    let (_, length) = line.split_once("LENGTH = ")?;
    Some(length.trim().strip_suffix('K')?.parse::<u64>().ok()? * 1024)
}
