//! Fuzzes the IDX reader. Any bytes, plain or gzipped, must give the contents of a data set's file or an error message, and must
//! never cause a panic or exceed libFuzzer's memory limit.

#![no_main]

use lenet_pictures::Shape;
use lenet_pictures::idx::{check_labels, images, labels};
use libfuzzer_sys::fuzz_target;

const SHAPE: Shape = Shape {
    channels: 1,
    height: 28,
    width: 28,
};

fuzz_target!(|bytes: &[u8]| {
    let len = bytes.len() as u64;
    match images(bytes, len, SHAPE) {
        Ok(file) => {
            assert!(!file.bytes.is_empty() && file.bytes.len().is_multiple_of(SHAPE.len()))
        }
        Err(sentence) => assert!(!sentence.is_empty()),
    }
    match labels(bytes, len) {
        Ok(file) => {
            assert!(!file.bytes.is_empty());
            let are_classes = check_labels(&file.bytes, 0, 10).is_ok();
            assert_eq!(are_classes, file.bytes.iter().all(|&label| label < 10));
        }
        Err(sentence) => assert!(!sentence.is_empty()),
    }
});
