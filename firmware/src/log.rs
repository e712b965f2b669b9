//! The log: `info!`, `debug!` and `error!`, with the format strings that defmt and `core::fmt` share.
//!
//! On a real board they are defmt's, over RTT (`rtt.rs`): the strings stay on the host. In QEMU they print text through
//! semihosting, so that a run needs no decoder. `DEFMT_LOG` chooses at compile time what is logged.

/// Bytes of RAM that the log's buffer takes.
#[cfg(not(emulated))]
pub const BUFFER_BYTES: usize = crate::rtt::LOG_BYTES;
/// Bytes of RAM that the log's buffer takes.
#[cfg(emulated)]
pub const BUFFER_BYTES: usize = 0;

/// Whether debug lines are compiled in.
pub const DEBUG: bool = matches!(option_env!("DEFMT_LOG"), Some(level) if is_debug(level));

const fn is_debug(level: &str) -> bool {
    matches!(level.as_bytes(), b"debug" | b"trace")
}

/// One line at a level.
#[cfg(not(emulated))]
#[macro_export]
macro_rules! log {
    ($level:ident, $($arg:tt)*) => { ::defmt::$level!($($arg)*) };
}

/// One line at a level.
#[cfg(emulated)]
#[macro_export]
macro_rules! log {
    (info, $($arg:tt)*) => { $crate::log::print(::core::format_args!($($arg)*)) };
    (debug, $($arg:tt)*) => {
        if $crate::log::DEBUG {
            $crate::log::print(::core::format_args!($($arg)*))
        }
    };
    (error, $($arg:tt)*) => {{
        $crate::log::print(::core::format_args!("error: {}", ::core::format_args!($($arg)*)))
    }};
}

/// Logs what a user wants to see.
#[macro_export]
macro_rules! info {
    ($($arg:tt)*) => { $crate::log!(info, $($arg)*) };
}

/// Logs what helps to find a fault.
#[macro_export]
macro_rules! debug {
    ($($arg:tt)*) => { $crate::log!(debug, $($arg)*) };
}

/// Logs why a program ends.
#[macro_export]
macro_rules! error {
    ($($arg:tt)*) => { $crate::log!(error, $($arg)*) };
}

/// Prints a line on the host's standard output.
#[cfg(emulated)]
pub fn print(line: core::fmt::Arguments<'_>) {
    use semihosting::io::Write;
    // Nobody is left to tell if the emulator takes no output.
    if let Ok(mut stdout) = semihosting::io::stdout() {
        let _ = stdout.write_fmt(line);
        let _ = stdout.write_all(b"\n");
    }
}
