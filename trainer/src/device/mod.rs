//! Access to a board, real or emulated, from the host.
//!
//! | file | holds |
//! |---|---|
//! | `client.rs` | [`Client`]: requests and replies over a wire that may lose or damage frames |
//! | `wire.rs` | [`Wire`]: bytes over TCP or a serial port |
//! | `qemu.rs` | [`Qemu`]: an emulated board, which is started here and always stopped |
//! | `watcher.rs` | cleans up if this process is killed |
//! | `certificate.rs` | [`certificate`]: a record of what a board did, which others can check |
//! | `compare.rs` | finds where two computations differ, in ulps |
//! | `probe.rs` | the wire through a debug probe (feature `probe`) |
//!
//! Flashing is not included: `probe-rs run` does it (see `firmware/`).

pub mod certificate;
mod client;
mod compare;
#[cfg(feature = "probe")]
pub mod probe;
mod qemu;
mod watcher;
mod wire;

pub use client::{Classified, Client, Identity, Traffic};
pub use compare::{Difference, differing, first_difference, ulps};
pub use qemu::{MACHINES, Machine, Qemu};
pub use wire::{Serial, Tcp, Wire};

use crate::dataset::hex;
use crate::report::layers::grouped;
use lenet_core::link::LinkError;
use std::path::PathBuf;
use std::time::Duration;

/// The error returned when the communication with a board fails.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The wire cannot be opened, or failed.
    #[error("{wire}: {source}{hint}")]
    Wire {
        /// The wire's name.
        wire: String,
        /// The system's error.
        source: std::io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// The board does not reply.
    #[error(
        "{wire}: no answer in {} s. Does the board run `serve`, and does nobody else use the wire? \
         If it is slow, give it longer with --timeout",
        waited.as_secs()
    )]
    Silent {
        /// The wire.
        wire: String,
        /// How long this program has waited.
        waited: Duration,
    },
    /// Bytes arrive, but they contain no frame.
    #[error(
        "{wire}: {bytes} bytes received in {waited} s, but no reply: they begin with \"{start}\". {hint}",
        bytes = grouped(*bytes), waited = waited.as_secs(), start = start.escape_ascii(),
        hint = match echoed {
            true => "They are this program's own requests: the port echoes them, because its two lines are connected, or because \
                     another program passes them back",
            false => "Does the board run `serve`, and does --baud say its rate?",
        }
    )]
    Noise {
        /// The wire.
        wire: String,
        /// How long this program has waited.
        waited: Duration,
        /// The number of bytes.
        bytes: usize,
        /// The first bytes.
        start: Vec<u8>,
        /// Whether they contained complete requests of this program.
        echoed: bool,
    },
    /// A request got no complete reply in any of its tries.
    #[error(
        "link lost at {at}: no complete reply in {tries} tries{heard}",
        heard = match heard {
            0 => String::new(),
            bytes => format!(", though {} bytes came", grouped(*bytes)),
        }
    )]
    Lost {
        /// What was requested, such as `image 812`.
        at: String,
        /// The number of tries.
        tries: u32,
        /// The number of bytes received meanwhile.
        heard: usize,
    },
    /// The board replied with an error.
    #[error("the board replied to {at} with an error: {error}")]
    Refused {
        /// What was requested, such as `image 812`.
        at: String,
        /// The board's error.
        error: LinkError,
    },
    /// The reply does not match the request.
    #[error(
        "the board replied to {at} with a message of the wrong kind; does it run another version of the firmware?"
    )]
    Unexpected {
        /// What was requested, such as `image 812`.
        at: String,
    },
    /// The firmware speaks another version of the link.
    #[error(
        "the board speaks version {found} of the link, this program {expected}; flash the firmware again"
    )]
    Version {
        /// The board's version.
        found: u8,
        /// This program's version.
        expected: u8,
    },
    /// The firmware was built for another network.
    #[error(
        "{}",
        match found == expected {
            true => format!(
                "the layers of the board's network `{found}` are not those of this program's, although the name is the same: the \
                 description has changed since; build the firmware again, and flash it"
            ),
            false => format!(
                "the board runs the network `{found}`, this program is built for `{expected}`; build the trainer with \
                 LENET_NETWORK={found} (or the path of its description), or flash firmware for `{expected}`"
            ),
        }
    )]
    Network {
        /// The name of the board's network.
        found: String,
        /// The name of this program's network.
        expected: &'static str,
    },
    /// The board and the host have different parameters.
    #[error(
        "the board has parameters {}, {file} has {}: flash it again, or name the file it has with --weights",
        hex(board),
        hex(host),
        file = file.display()
    )]
    Weights {
        /// SHA-256 of the board's parameters.
        board: [u8; 32],
        /// SHA-256 of the host's parameters.
        host: [u8; 32],
        /// The host's file.
        file: PathBuf,
    },
    /// No certificate can have the board's name.
    #[error(
        "the board's name is {found:?}, and the files of its certificate are named after it: expected lower-case letters, digits \
         and `-`; change the name in the firmware, and flash it again"
    )]
    Name {
        /// The board's name.
        found: String,
    },
    /// The emulator is not installed.
    #[error("qemu-system-arm not found (Debian: apt install qemu-system-arm)")]
    NoQemu,
    /// The program to run is not built.
    #[error("{path}: no such image. Build it: {command}", path = path.display())]
    NotBuilt {
        /// Where it should be.
        path: PathBuf,
        /// The command that builds it.
        command: String,
    },
    /// The emulated program did not end as expected.
    #[error("{machine}: {problem}; its last line: {last_line}")]
    Qemu {
        /// The emulated board.
        machine: &'static str,
        /// What happened.
        problem: String,
        /// The last line of its output.
        last_line: String,
    },
}

impl DeviceError {
    /// Returns whether host and board disagree, as opposed to a failure.
    pub fn is_mismatch(&self) -> bool {
        matches!(self, Self::Weights { .. })
    }
}
