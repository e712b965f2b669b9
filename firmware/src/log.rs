//! The log: `info!`, `debug!` and `error!`, with the format strings that defmt and `core::fmt` share.
//!
//! On a real board they are defmt's, over RTT: the strings stay on the host, and the log never blocks when nobody reads
//! (what does not fit into the buffer is dropped). In QEMU they print text through semihosting, so that a run needs no
//! decoder. What is logged is chosen when compiled, by `DEFMT_LOG`.

/// Bytes of RAM the log takes.
#[cfg(not(emulated))]
pub const BUFFER_BYTES: usize = 4096;
/// Bytes of RAM the log takes.
#[cfg(emulated)]
pub const BUFFER_BYTES: usize = 0;

/// Whether debug lines are compiled in.
pub const DEBUG: bool = matches!(option_env!("DEFMT_LOG"), Some(level) if is_debug(level));

const fn is_debug(level: &str) -> bool {
    matches!(level.as_bytes(), b"debug" | b"trace")
}

/// Sets RTT up: channel 0 for the log, channel 1 for the link.
#[cfg(not(emulated))]
pub(crate) fn start() -> crate::link::Rtt {
    let channels = rtt_target::rtt_init! {
        up: {
            0: { size: BUFFER_BYTES, name: "defmt" }
            1: { size: 1024, name: "lenet" }
        }
        down: {
            0: { size: 16, name: "unused" }
            1: { size: 1024, name: "lenet" }
        }
    };
    rtt_target::set_defmt_channel(channels.up.0);
    crate::link::Rtt {
        up: channels.up.1,
        down: channels.down.1,
    }
}

/// Takes back the blocking mode that a probe sets while it reads: it may be gone.
#[cfg(not(emulated))]
pub fn never_block() {
    // SAFETY: called from one thread, and from handlers that never return to it; the handle lives only for this write of
    // one word, which the logger only reads.
    if let Some(mut channel) = unsafe { rtt_target::UpChannel::conjure(0) } {
        channel.set_mode(rtt_target::ChannelMode::NoBlockSkip);
    }
}

/// One line at a level.
#[cfg(not(emulated))]
#[macro_export]
macro_rules! log {
    ($level:ident, $($arg:tt)*) => {{
        $crate::log::never_block();
        ::defmt::$level!($($arg)*);
    }};
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
