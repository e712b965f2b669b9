//! The log: `info!`, `debug!` and `error!`, with format strings that both defmt and `core::fmt` accept.
//!
//! On a real board these are defmt's macros over RTT (`rtt.rs`), so the strings stay on the host. In QEMU they print text
//! through semihosting, so a run needs no decoder. `DEFMT_LOG` selects at compile time which levels are logged.

/// The size of the log's buffer in bytes of RAM.
#[cfg(not(emulated))]
pub const BUFFER_BYTES: usize = crate::rtt::LOG_BYTES;
/// The size of the log's buffer in bytes of RAM.
#[cfg(emulated)]
pub const BUFFER_BYTES: usize = 0;

/// Whether debug messages are compiled in.
pub const DEBUG: bool = matches!(option_env!("DEFMT_LOG"), Some(level) if is_debug(level));

const fn is_debug(level: &str) -> bool {
    matches!(level.as_bytes(), b"debug" | b"trace")
}

/// Logs a line at a level.
#[cfg(not(emulated))]
#[macro_export]
macro_rules! log {
    ($level:ident, $($arg:tt)*) => { ::defmt::$level!($($arg)*) };
}

/// Logs a line at a level.
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

/// Logs a message for users.
#[macro_export]
macro_rules! info {
    ($($arg:tt)*) => { $crate::log!(info, $($arg)*) };
}

/// Logs a message that helps to debug the firmware.
#[macro_export]
macro_rules! debug {
    ($($arg:tt)*) => { $crate::log!(debug, $($arg)*) };
}

/// Logs the error that ends a program.
#[macro_export]
macro_rules! error {
    ($($arg:tt)*) => { $crate::log!(error, $($arg)*) };
}

/// Prints a line on the host's standard output.
#[cfg(emulated)]
pub fn print(line: core::fmt::Arguments<'_>) {
    use semihosting::io::Write;
    // If the emulator accepts no output, there is no other place to report that.
    if let Ok(mut stdout) = semihosting::io::stdout() {
        let _ = stdout.write_fmt(line);
        let _ = stdout.write_all(b"\n");
    }
}
