// The room that the programs need, in bytes. `build.rs` compares it with what a board has, and the tests compare it with
// what the images take.

use lenet_core::network;

/// Images that the largest program holds in flash: ten of Fashion-MNIST if they have the network's size, else one pattern, and
/// the pattern of the self-test.
const IMAGES: u64 = if size_of::<network::Pixels>() == 28 * 28 { 11 } else { 2 };
/// Flash of the largest program besides the weights: its images, and code.
pub const CODE_BYTES: u64 = IMAGES * size_of::<network::Image>() as u64 + 38 * 1024;
/// RAM of the largest program besides its stack: the outputs of all layers, an image, and 3.5 KB for the link and the rest.
pub const STATIC_BYTES: u64 = (size_of::<network::Activations>() + size_of::<network::Image>() + 3584) as u64;
/// RAM that a real board needs on top: the log, the link through the probe, and the UART's buffers.
pub const REAL_BYTES: u64 = 10 * 1024;
/// Stack of the deepest program.
pub const STACK_BYTES: u64 = 3 * 1024;

/// Returns the `LENGTH` of a region of a board's `memory.x`, which must be written as `NAME : ORIGIN = …, LENGTH = nK`.
pub fn length(script: &str, region: &str) -> Option<u64> {
    let line = script
        .lines()
        .find(|line| line.trim_start().starts_with(&format!("{region} ")))?;
    let (_, length) = line.split_once("LENGTH = ")?;
    Some(length.trim().strip_suffix('K')?.parse::<u64>().ok()? * 1024)
}
