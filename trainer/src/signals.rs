//! Catches the signals that ask a program to end, so that a training can save its state first.
//!
//! A signal that was ignored when the program started stays ignored. That is how `nohup` lets a program survive the end of its
//! terminal, and how a shell keeps Ctrl-C from a program in the background.

use signal_hook::{consts, flag};
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Ctrl-C, the request to terminate, and the end of the terminal.
#[cfg(unix)]
const REQUESTS: [i32; 3] = [consts::SIGINT, consts::SIGTERM, consts::SIGHUP];
#[cfg(not(unix))]
const REQUESTS: [i32; 2] = [consts::SIGINT, consts::SIGTERM];

/// Returns a flag that the first such signal sets. The second one ends the program at once, with `exit_code`.
///
/// # Errors
/// The system's error if a signal cannot be caught.
pub fn stop_flag(exit_code: i32) -> io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in REQUESTS {
        if is_ignored(signal)? {
            continue;
        }
        // In this order, the first signal still finds the flag unset.
        flag::register_conditional_shutdown(signal, exit_code, stop.clone())?;
        flag::register(signal, stop.clone())?;
    }
    Ok(stop)
}

/// Returns whether this signal was ignored when the program started.
#[cfg(unix)]
fn is_ignored(signal: i32) -> io::Result<bool> {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: without a new action, the call changes nothing. It writes the current action, or fails.
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
