//! The one place where the CUDA source gets its numbers: dimensions and offsets from `lenet`, and the
//! shapes of blocks and tiles, which the launches need too.

use crate::dataset::{MAX_SHIFT, ROUNDS};
use crate::lenet::{
    C1, C2, CLASSES, CONV_PARAMS as CONVOLUTIONS, CONV2_SIDE, FC1, FC2, FLAT, K, NUM_PARAMS, POOL,
    POOL1_SIDE, POOL2_SIDE, SIDE,
};
use lenet_core::network::TENSORS;

/// Virtual architecture the PTX is compiled for: the driver compiles it on for its GPU, from Volta on.
pub const ARCH: &str = "compute_70";
/// Threads a block, in all kernels.
pub const THREADS: usize = 512;
/// Images a block. Two: a batch of 256 then fills an H100's 132 multiprocessors, and each weight read serves both.
pub const GROUP: usize = 2;

/// Outputs and inputs of a fully connected layer in one tile of the update.
const TILE: [usize; 2] = [8, 32];
/// Parameters of the convolutions in one tile of the update.
const CONV_TILE: usize = 32;

/// Parameters of the convolutions, the first of all.
pub const CONV_PARAMS: usize = CONVOLUTIONS;
/// Values of `adam::Coefficients` that the kernels take.
pub const COEFFICIENTS: usize = 8;
/// Words of a part of an epoch, see `epoch_words`.
pub const EPOCH_WORDS: usize = 2 + ROUNDS + 4;
/// Blocks of the update.
pub const UPDATE_BLOCKS: usize =
    tiles(FC1, FLAT) + tiles(FC2, FC1) + tiles(CLASSES, FC2) + CONV_PARAMS.div_ceil(CONV_TILE);

const fn tiles(outputs: usize, inputs: usize) -> usize {
    outputs.div_ceil(TILE[0]) * inputs.div_ceil(TILE[1])
}

/// What the update needs of an image; the same as in the CUDA source, which compares the size.
#[repr(C, align(16))]
pub struct Trace {
    pool2: [f32; FLAT],
    fc1: [f32; FC1],
    fc2: [f32; FC2],
    grad_fc1: [f32; FC1],
    grad_fc2: [f32; FC2],
    grad_logits: [f32; CLASSES],
}

/// The compiler's `-D` options: `SIDE=28`, and so on.
pub fn definitions() -> Vec<String> {
    let numbers = [
        ("SIDE", SIDE),
        ("K", K),
        ("POOL", POOL),
        ("C1", C1),
        ("C2", C2),
        ("FLAT", FLAT),
        ("FC1", FC1),
        ("FC2", FC2),
        ("CLASSES", CLASSES),
        ("POOL1_SIDE", POOL1_SIDE),
        ("CONV2_SIDE", CONV2_SIDE),
        ("POOL2_SIDE", POOL2_SIDE),
        ("ROUNDS", ROUNDS),
        ("MAX_SHIFT", MAX_SHIFT),
        ("EPOCH_WORDS", EPOCH_WORDS),
        ("THREADS", THREADS),
        ("GROUP", GROUP),
        ("TILE_OUT", TILE[0]),
        ("TILE_IN", TILE[1]),
        ("CONV_TILE", CONV_TILE),
        ("TRACE_BYTES", size_of::<Trace>()),
        ("NUM_PARAMS", NUM_PARAMS),
        ("UPDATE_BLOCKS", UPDATE_BLOCKS),
        ("COEFFICIENTS", COEFFICIENTS),
    ];
    let offsets = TENSORS.map(|tensor| {
        (
            format!("OFFSET_{}", tensor.name.to_uppercase()),
            tensor.offset,
        )
    });
    numbers
        .map(|(name, number)| (name.to_owned(), number))
        .into_iter()
        .chain(offsets)
        .map(|(name, number)| format!("{name}={number}"))
        .collect()
}
