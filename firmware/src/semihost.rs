//! What a debugger or an emulator offers a program: a command line and an exit code.
//!
//! Semihosting is a breakpoint with a request in registers; without a debugger it is a fault. A real board therefore asks
//! whether there is one. A Cortex-M0 cannot ask, so there the fault tells.

use crate::Failure;
use core::sync::atomic::{AtomicBool, Ordering};
use semihosting::experimental::env::Args;

/// A request was made that nobody has answered yet.
static ASKED: AtomicBool = AtomicBool::new(false);

/// Whether somebody may answer semihosting requests.
fn available() -> bool {
    cfg!(emulated) || cfg!(armv6m) || cortex_m::peripheral::DCB::is_debugger_attached()
}

/// Whether a fault comes from a request that nobody answers.
pub(crate) fn unanswered() -> bool {
    cfg!(armv6m) && ASKED.load(Ordering::Relaxed)
}

/// Returns the command line, its words separated by spaces.
///
/// # Errors
/// If there is no debugger, or it gives none. A Cortex-M0 without a debugger stops here.
pub fn args() -> Result<Args<256>, Failure> {
    if !available() {
        return Err(Failure::Host("no debugger that gives a command line"));
    }
    ASKED.store(true, Ordering::Relaxed);
    let args = semihosting::experimental::env::args()
        .map_err(|_| Failure::Host("the command line is missing or longer than 256 bytes"));
    ASKED.store(false, Ordering::Relaxed);
    args
}

/// Ends the run with an exit code; without a debugger, sleeps for ever.
pub fn exit(code: i32) -> ! {
    if available() {
        ASKED.store(true, Ordering::Relaxed);
        semihosting::process::exit(code);
    }
    sleep()
}

/// Sleeps for ever.
pub(crate) fn sleep() -> ! {
    loop {
        cortex_m::asm::wfi();
    }
}
