//! Fuzzes the weights file. An edited valid file must give parameters with which the network runs, or an error, never a panic.
//!
//! A file has 178 KB, far more than a fuzzer can search, so the fuzzer's bytes describe edits of a valid file: see [`edit`].

#![no_main]

use crc::{CRC_32_ISO_HDLC, Crc};
use lenet_core::Network;
use lenet_core::network::{Net, int8};
use lenet_core::self_test;
use lenet_core::weights::{PARAMS_OFFSET, max_len, view};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// A valid file, stored as words to align it, and its length in bytes.
type Valid = (Vec<u32>, usize);

static F32: LazyLock<Valid> =
    LazyLock::new(|| valid::<Net>(include_bytes!("../../data/lenet.weights")));

static INT8: LazyLock<Valid> =
    LazyLock::new(|| valid::<int8::Net>(include_bytes!("../../data/lenet-int8.weights")));

/// Copies a valid file to the start of a buffer that can hold the largest file of the network.
fn valid<N: Network>(file: &[u8]) -> Valid {
    let mut words = vec![0; max_len::<N>() / 4];
    bytemuck::cast_slice_mut(&mut words)[..file.len()].copy_from_slice(file);
    assert!(
        view::<N>(&bytemuck::cast_slice(&words)[..file.len()]).is_ok(),
        "data/*.weights are files of the default network"
    );
    (words, file.len())
}

/// Edits a file and returns its new length.
///
/// The first byte of the fuzzer's input is `flags`: if its lowest bit is set, a valid checksum is written at the end; if the next bit
/// is set, the file is that of the int8 network. The rest of the input is `edits` of five bytes each. The first byte and a
/// little-endian number choose a position before, within or after the parameters, and the last byte is stored there. A first byte
/// above 250 sets a new length instead.
fn edit<N: Network>(file: &mut [u8], mut len: usize, flags: u8, edits: &[u8]) -> usize {
    let (max_len, params) = (file.len(), size_of::<N::Params>());
    let params_end = PARAMS_OFFSET + params;
    for &[region, a, b, c, value] in edits.as_chunks().0 {
        let number = u32::from_le_bytes([a, b, c, 0]) as usize;
        let (start, size) = match region {
            251.. => {
                len = number % (max_len + 1);
                continue;
            }
            0..100 => (0, PARAMS_OFFSET),
            100..150 => (PARAMS_OFFSET, params),
            150.. => (params_end, max_len - params_end),
        };
        file[start + number % size] = value;
    }
    if flags & 1 == 1 && len >= 4 {
        let crc = CRC.checksum(&file[..len - 4]).to_le_bytes();
        file[len - 4..len].copy_from_slice(&crc);
    }
    len
}

fn check<N: Network>((words, len): &Valid, flags: u8, edits: &[u8]) {
    let mut words = words.clone();
    let file: &mut [u8] = bytemuck::cast_slice_mut(&mut words);
    let len = edit::<N>(file, *len, flags, edits);
    match view::<N>(&file[..len]) {
        Ok(weights) => {
            assert!(N::unusable(weights.params).is_none());
            let mut act = bytemuck::zeroed_box();
            // The self-test may fail, because the edits may have changed the parameters and renewed the checksum.
            let _ = self_test::check::<N>(weights.params, &weights.self_test, &mut act);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fuzz_target!(|input: &[u8]| {
    let (&flags, edits) = input.split_first().unwrap_or((&0, &[]));
    match flags & 2 {
        0 => check::<Net>(&F32, flags, edits),
        _ => check::<int8::Net>(&INT8, flags, edits),
    }
});
