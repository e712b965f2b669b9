//! The signals that ask a program to end, caught so that a training can save first.
//!
//! A signal that was ignored when the program started stays ignored: that is how `nohup` asks a program to survive the
//! end of its terminal, and how a shell asks a program in the background not to take the keyboard's Ctrl-C for its own.

use signal_hook::{consts, flag};
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Ctrl-C, the polite request to end, and the end of the terminal.
#[cfg(unix)]
const REQUESTS: [i32; 3] = [consts::SIGINT, consts::SIGTERM, consts::SIGHUP];
#[cfg(not(unix))]
const REQUESTS: [i32; 2] = [consts::SIGINT, consts::SIGTERM];

/// Returns a flag that the first request to end sets; the second ends the program at once, with `exit_code`.
///
/// # Errors
/// The system's reason why a signal cannot be caught.
pub fn stop_flag(exit_code: i32) -> io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in REQUESTS {
        if is_ignored(signal)? {
            continue;
        }
        // In this order the first signal finds the flag unset.
        flag::register_conditional_shutdown(signal, exit_code, stop.clone())?;
        flag::register(signal, stop.clone())?;
    }
    Ok(stop)
}

/// Whether the program was started with this signal ignored.
#[cfg(unix)]
fn is_ignored(signal: i32) -> io::Result<bool> {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: without a new action the call changes nothing. It writes the present one, or fails.
    let action = unsafe {
        if libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        action.assume_init()
    };
    Ok(action.sa_sigaction == libc::SIG_IGN)
}

#[cfg(not(unix))]
fn is_ignored(_: i32) -> io::Result<bool> {
    Ok(false)
}
