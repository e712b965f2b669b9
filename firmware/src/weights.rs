//! The weights file in flash: in a region of its own, at an address that does not change, so that it can be replaced
//! alone.
//!
//! On a real board the image brings the file that `build.rs` found; in QEMU the region is empty until QEMU loads a file.
//! Either way the bytes are read at run time through the linker's symbol, so that the compiler knows nothing of them.

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

/// A weights file of the network that this build is for.
pub type Weights<'a> = weights::Weights<'a, Net>;

/// The length of the region.
pub const MAX_LEN: usize = max_len::<Net>();

unsafe extern "C" {
    static __weights: u8;
}

/// The region.
pub fn region() -> &'static [u8] {
    // SAFETY: `build.rs` checks that the linker script sets at least `MAX_LEN` bytes of flash aside at this symbol;
    // nothing writes there while the program runs.
    unsafe { slice::from_raw_parts(&raw const __weights, MAX_LEN) }
}

/// Checks the file, then the machine: what a program does before it infers.
///
/// # Errors
/// `Weights` if the file cannot be used, `SelfTest` if the board computes other bits than the trainer did.
pub fn verify(act: &mut Activations) -> Result<Weights<'static>, Failure> {
    let (weights, _) = read().map_err(Failure::Weights)?;
    self_test(&weights, act)?;
    Ok(weights)
}

/// Reads the file in place, every check of the format; also returns the rest of the region.
///
/// # Errors
/// By the name of the damage.
pub fn read() -> Result<(Weights<'static>, &'static [u8]), WeightsError> {
    view_prefix(region())
}

/// The power-on self-test: the file's test vector, bit for bit.
///
/// # Errors
/// `SelfTest`, with the first logit that differs.
pub fn self_test(weights: &Weights<'_>, act: &mut Activations) -> Result<(), Failure> {
    self_test::check::<Net>(weights.params, &weights.self_test, act).map_err(Failure::SelfTest)
}
