//! Fuzzes the link. Any bytes, at either end, must give replies and errors, never a panic and never the reply to another request.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| lenet_test_support::link::any_bytes(bytes));
