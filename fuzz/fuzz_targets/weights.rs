//! The weights file: a valid file with edits gives parameters that run, or an error, never a panic.
//!
//! A file is 178 KB, far more than a fuzzer can search, so the fuzzer's bytes are edits of a valid one: see [`edit`].

#![no_main]

use crc::{CRC_32_ISO_HDLC, Crc};
use lenet_core::network::{Activations, Net, Params};
use lenet_core::self_test;
use lenet_core::weights::{PARAMS_OFFSET, encode, max_len, view};
use lenet_tests::generate::METADATA;
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use trainer::init::initial_params;

const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);
const MAX_LEN: usize = max_len::<Net>();
const PARAMS_END: usize = PARAMS_OFFSET + size_of::<Params>();

/// A valid file as words, which are aligned, and its length.
static VALID: LazyLock<(Vec<u32>, usize)> = LazyLock::new(|| {
    let mut words = vec![0; MAX_LEN / 4];
    let out = bytemuck::cast_slice_mut(&mut words);
    let len = encode::<Net>(&initial_params(0), &METADATA, out)
        .expect("is valid")
        .len();
    (words, len)
});

/// The file after the edits that `input` spells, and its new length.
///
/// The first byte says whether a fitting checksum is put at the end. The rest is in groups of five bytes: where
/// (before the parameters, within, or after them, by the first byte and a little-endian number), and what: a byte to
/// store, or, for a first byte above 250, the new length.
fn edit(file: &mut [u8], mut len: usize, input: &[u8]) -> usize {
    let Some((&flags, edits)) = input.split_first() else {
        return len;
    };
    for &[region, a, b, c, value] in edits.as_chunks().0 {
        let number = u32::from_le_bytes([a, b, c, 0]) as usize;
        let (start, size) = match region {
            251.. => {
                len = number % (MAX_LEN + 1);
                continue;
            }
            0..100 => (0, PARAMS_OFFSET),
            100..150 => (PARAMS_OFFSET, size_of::<Params>()),
            150.. => (PARAMS_END, MAX_LEN - PARAMS_END),
        };
        file[start + number % size] = value;
    }
    if flags & 1 == 1 && len >= 4 {
        let crc = CRC.checksum(&file[..len - 4]).to_le_bytes();
        file[len - 4..len].copy_from_slice(&crc);
    }
    len
}

fuzz_target!(|input: &[u8]| {
    let (mut words, len) = VALID.clone();
    let file: &mut [u8] = bytemuck::cast_slice_mut(&mut words);
    let len = edit(file, len, input);
    match view::<Net>(&file[..len]) {
        Ok(weights) => {
            assert!(weights.params.as_flat().iter().all(|p| p.is_finite()));
            let mut act = Activations::new();
            // Other parameters with a fitting checksum are a file that its writer did not test.
            let _ = self_test::check::<Net>(weights.params, &weights.self_test, &mut act);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
