//! Fuzzes the IDX reader. Any bytes, plain or gzipped, must give the contents of a data set's file or an error message, and must
//! never cause a panic or exceed libFuzzer's memory limit.

#![no_main]

use lenet_core::network::{CLASSES, Pixels};
use libfuzzer_sys::fuzz_target;
use trainer::dataset::{read_images, read_labels};

fuzz_target!(|bytes: &[u8]| {
    match read_images(bytes) {
        Ok(file) => {
            assert!(!file.bytes.is_empty() && file.bytes.len().is_multiple_of(size_of::<Pixels>()))
        }
        Err(sentence) => assert!(!sentence.is_empty()),
    }
    match read_labels(bytes) {
        Ok(file) => assert!(file.bytes.iter().all(|&label| usize::from(label) < CLASSES)),
        Err(sentence) => assert!(!sentence.is_empty()),
    }
});
