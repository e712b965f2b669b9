//! Semihosting, through which a debugger or an emulator provides a command line and an exit code.
//!
//! A semihosting request is a breakpoint with arguments in registers. Without a debugger it causes a fault, so a real board
//! first checks whether a debugger is attached. A Cortex-M0 cannot check this, so there the fault handler detects it.

use crate::Failure;
use core::sync::atomic::{AtomicBool, Ordering};
use semihosting::experimental::env::Args;

/// Whether a request is pending.
static ASKED: AtomicBool = AtomicBool::new(false);

/// Returns whether a debugger or an emulator may answer semihosting requests.
fn available() -> bool {
    cfg!(emulated) || cfg!(armv6m) || cortex_m::peripheral::DCB::is_debugger_attached()
}

/// Returns whether the cause of a fault is a request on a machine without a debugger.
pub(crate) fn unanswered() -> bool {
    cfg!(armv6m) && ASKED.load(Ordering::Relaxed)
}

/// Returns the words of the command line, which are separated by spaces.
///
/// # Errors
/// Returns an error if there is no debugger or it provides no command line. A Cortex-M0 without a debugger sleeps forever.
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

/// Ends the program with an exit code, or sleeps forever without a debugger.
pub fn exit(code: i32) -> ! {
    if available() {
        ASKED.store(true, Ordering::Relaxed);
        semihosting::process::exit(code);
    }
    sleep()
}

/// Sleeps forever.
pub(crate) fn sleep() -> ! {
    loop {
        cortex_m::asm::wfi();
    }
}
