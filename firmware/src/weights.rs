//! The weights file in flash. It has its own region at a fixed address, so that you can replace it without the program.
//!
//! On a real board the firmware image contains the file that `build.rs` found. In QEMU the region is empty until QEMU loads a
//! file. In both cases the program reads the bytes at run time through the linker's symbol, so the compiler cannot make
//! assumptions about them.

use crate::Failure;
use crate::model::{Activations, Net};
use core::slice;
use lenet_core::self_test;
use lenet_core::weights::{self, WeightsError, max_len, view_prefix};

#[cfg(not(emulated))]
core::arch::global_asm!(
    ".section .weights, \"a\", %progbits",
    concat!(".incbin ", "\"", env!("LENET_WEIGHTS_FILE"), "\""),
);

/// A weights file of the network that this firmware is built for.
pub type Weights<'a> = weights::Weights<'a, Net>;

/// The length of the region in bytes.
pub const MAX_LEN: usize = max_len::<Net>();

unsafe extern "C" {
    static __weights: u8;
}

/// Returns the region of flash that holds the weights file.
pub fn region() -> &'static [u8] {
    // SAFETY: `build.rs` checks that the linker script reserves at least `MAX_LEN` bytes of flash at this symbol, and
    // nothing writes there while the program runs.
    unsafe { slice::from_raw_parts(&raw const __weights, MAX_LEN) }
}

/// Checks the file and runs its self-test. Call this function before classifying images.
///
/// # Errors
/// `Weights` if the file cannot be used, `SelfTest` if the board's logits differ from those that the trainer computed.
pub fn verify(act: &mut Activations) -> Result<Weights<'static>, Failure> {
    let (weights, _) = read().map_err(Failure::Weights)?;
    self_test(&weights, act)?;
    Ok(weights)
}

/// Reads the file in place and checks its format. Also returns the rest of the region.
///
/// # Errors
/// Returns the first [`WeightsError`] that a check finds.
pub fn read() -> Result<(Weights<'static>, &'static [u8]), WeightsError> {
    view_prefix(region())
}

/// Runs the power-on self-test, which compares the logits with those in the file bit for bit.
///
/// # Errors
/// `SelfTest`, with the first logit that differs.
pub fn self_test(weights: &Weights<'_>, act: &mut Activations) -> Result<(), Failure> {
    self_test::check::<Net>(weights.params, &weights.self_test, act).map_err(Failure::SelfTest)
}
