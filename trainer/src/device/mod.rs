//! A board, real or emulated, from the host's side.
//!
//! | file | holds |
//! |---|---|
//! | `client.rs` | [`Client`]: questions and answers over a wire that may lose or damage frames |
//! | `wire.rs` | [`Wire`]: bytes over TCP or a serial port |
//! | `qemu.rs` | [`Qemu`]: an emulated board, started here and never left behind |
//! | `watcher.rs` | cleans up if this process is killed |
//! | `certificate.rs` | [`certificate`]: what a board did, in a form that others can check |
//! | `compare.rs` | where two computations part, in ulps |
//! | `probe.rs` | the wire through a debug probe (feature `probe`) |
//!
//! Left out: flashing, which `probe-rs run` does (see `firmware/`).

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

/// Why a board could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The wire cannot be opened, or broke.
    #[error("{wire}: {source}{hint}")]
    Wire {
        /// Which.
        wire: String,
        /// The system's reason.
        source: std::io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// Nobody answers.
    #[error(
        "{wire}: no answer in {} s. Does the board run `serve`, and does nobody else use the wire? \
         If it is slow, give it longer with --timeout",
        waited.as_secs()
    )]
    Silent {
        /// The wire.
        wire: String,
        /// How long.
        waited: Duration,
    },
    /// Bytes come, but none of them is a frame.
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
        /// How long.
        waited: Duration,
        /// How many bytes.
        bytes: usize,
        /// The first of them.
        start: Vec<u8>,
        /// Whether there were whole questions among them.
        echoed: bool,
    },
    /// A question got no complete reply in all its tries.
    #[error(
        "link lost at {at}: no complete reply in {tries} tries{heard}",
        heard = match heard {
            0 => String::new(),
            bytes => format!(", though {} bytes came", grouped(*bytes)),
        }
    )]
    Lost {
        /// Such as `image 812`.
        at: String,
        /// How often it was asked.
        tries: u32,
        /// Bytes that came meanwhile.
        heard: usize,
    },
    /// The board answers, but not to the point.
    #[error("the board replied to {at} with an error: {error}")]
    Refused {
        /// Such as `image 812`.
        at: String,
        /// What it says.
        error: LinkError,
    },
    /// The answer is of another kind than the question.
    #[error(
        "the board replied to {at} with a message of the wrong kind; does it run another version of the firmware?"
    )]
    Unexpected {
        /// Such as `image 812`.
        at: String,
    },
    /// The firmware speaks another version of the link.
    #[error(
        "the board speaks version {found} of the link, this program {expected}; flash the firmware again"
    )]
    Version {
        /// The board's.
        found: u8,
        /// This program's.
        expected: u8,
    },
    /// The board has other parameters than the host.
    #[error(
        "the board has parameters {}, {file} has {}: flash it again, or name the file it has with --weights",
        hex(board),
        hex(host),
        file = file.display()
    )]
    Weights {
        /// SHA-256 of the board's.
        board: [u8; 32],
        /// SHA-256 of the host's.
        host: [u8; 32],
        /// The host's file.
        file: PathBuf,
    },
    /// The emulator is not installed.
    #[error("qemu-system-arm not found (Debian: apt install qemu-system-arm)")]
    NoQemu,
    /// The program to run is not built.
    #[error("{path}: no such image. Build it: {command}", path = path.display())]
    NotBuilt {
        /// Where it should be.
        path: PathBuf,
        /// What builds it.
        command: String,
    },
    /// The emulated program did not end as it should.
    #[error("{machine}: {problem}; its last line: {last_line}")]
    Qemu {
        /// The emulated board.
        machine: &'static str,
        /// What happened.
        problem: String,
        /// What it said last.
        last_line: String,
    },
}

impl DeviceError {
    /// Whether host and board disagree, rather than something having failed.
    pub fn is_mismatch(&self) -> bool {
        matches!(self, Self::Weights { .. })
    }
}
