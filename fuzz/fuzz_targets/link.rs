//! The link: any bytes, at either end, give answers and errors, never a panic, and never the answer to another question.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| lenet_tests::link::any_bytes(bytes));
