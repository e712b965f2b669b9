//! Fuzzes the link. Any bytes, at either end, must give replies and errors, never a panic and never the reply to another request.

#![no_main]

// This file belongs to `lenet-test-support`. It is included here instead, because that crate's dependencies take long to compile.
#[path = "../../tests/support/src/link.rs"]
mod link;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| link::any_bytes(bytes));
