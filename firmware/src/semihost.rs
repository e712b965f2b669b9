//! What a debugger or an emulator offers a program: a command line and an exit code.
//!
//! Semihosting is a breakpoint with a request in registers; without a debugger it would be a fault, so real boards ask
//! for one first.

use crate::Failure;
use semihosting::experimental::env::Args;

/// Whether somebody answers semihosting requests.
pub fn available() -> bool {
    cfg!(emulated) || cortex_m::peripheral::DCB::is_debugger_attached()
}

/// The command line, its words separated by spaces.
///
/// # Errors
/// If there is no debugger, or it gives none.
pub fn args() -> Result<Args<256>, Failure> {
    if !available() {
        return Err(Failure::Host("no debugger that gives a command line"));
    }
    semihosting::experimental::env::args()
        .map_err(|_| Failure::Host("the command line is missing or longer than 256 bytes"))
}

/// Ends the run with an exit code; without a debugger, sleeps for ever.
pub fn exit(code: i32) -> ! {
    if available() {
        semihosting::process::exit(code);
    }
    loop {
        cortex_m::asm::wfi();
    }
}
