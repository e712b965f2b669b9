// The room that the programs need, in bytes. `build.rs` compares it with what a board has, and the tests compare it with
// what the images take.

use lenet_core::{Network, Numbers, network, weights};

/// What the largest programs for one kind of numbers need.
pub struct Room {
    /// Flash of the largest program besides the weights: its images, and code.
    pub code: u64,
    /// Flash of the weights file.
    pub weights: u64,
    /// RAM of the largest program besides its stack: the outputs of all layers, an image, and 2.5 KB for the link and the rest.
    pub statics: u64,
    /// Stack of the deepest program.
    pub stack: u64,
}

/// Returns the room that a kind of numbers needs.
pub const fn room(numbers: Numbers) -> Room {
    match numbers {
        Numbers::F32 => room_of::<network::Net>(),
        Numbers::Int8 => room_of::<network::int8::Net>(),
    }
}

/// Images that the largest program holds in flash: ten of Fashion-MNIST if they have the network's size, else one pattern, and
/// the pattern of the self-test.
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

/// RAM that a real board needs on top: the log, the link through the probe, and the UART's buffers.
pub const REAL_BYTES: u64 = 10 * 1024;

/// Returns the `LENGTH` of a region of a board's `memory.x`, which must be written as `NAME : ORIGIN = …, LENGTH = nK`.
pub fn length(script: &str, region: &str) -> Option<u64> {
    let line = script
        .lines()
        .find(|line| line.trim_start().starts_with(&format!("{region} ")))?;
    let (_, length) = line.split_once("LENGTH = ")?;
    Some(length.trim().strip_suffix('K')?.parse::<u64>().ok()? * 1024)
}
