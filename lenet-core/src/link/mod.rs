//! Messages between a host and a board.
//!
//! `LINK.md` defines the bytes; this module implements them. The host asks, the board answers each frame once. A frame
//! carries its length, a sequence number and a checksum, and stands between zero bytes, which occur nowhere else, so a
//! receiver recovers after a damaged frame at the next zero.
//!
//! What goes wrong on the wire ends in a [`LinkError`], never in a panic or a wrong answer. Left out: addresses, flow
//! control, and retries, about which the host decides; every request may be sent twice without harm.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | requests and replies |
//! | `frame.rs` | their frames: [`encode`] and [`Receiver`] |
//! | `board.rs` | the board's side: [`Responder`] |

mod board;
mod frame;

pub use board::{Meter, Responder, Scratch, Served};
pub use frame::{Frame, FrameBuffer, MAX_FRAME, MAX_MESSAGE, Receiver, Refused, UNKNOWN, encode};

use crate::network::{FINGERPRINT, LAYERS, Logits, NAME, Pixels};
use crate::weights::{self, Weights};
use core::fmt;
use serde::{Deserialize, Serialize};

/// Version of the messages that this build speaks.
pub const VERSION: u8 = 2;
/// Values an [`Reply::Activations`] holds at most.
pub const PAGE: usize = 196;

/// What a host asks.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request<'a> {
    /// Who are you? Answered by [`Reply::Info`].
    Info,
    /// Classify the built-in pattern of [`self_test`](crate::self_test). Answered by [`Reply::Logits`].
    SelfTest,
    /// Classify an image. Answered by [`Reply::Logits`].
    Classify(#[serde(borrow, with = "pixels")] &'a Pixels),
    /// Outputs of a layer for the last image. Answered by [`Reply::Activations`].
    Activations {
        /// The sequence number of the request that had the image classified; another one is [`LinkError::NotReady`].
        image: u32,
        /// Index in [`LAYERS`].
        layer: u8,
        /// The first element wanted.
        offset: u16,
    },
    /// Measure each layer. Answered by [`Reply::Bench`].
    Bench,
    /// How much memory has been used? Answered by [`Reply::Memory`].
    Memory,
}

/// What a board answers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reply<'a> {
    /// The request cannot be answered, or never arrived whole.
    Error(LinkError),
    /// Who the board is.
    Info(#[serde(borrow)] Info<'a>),
    /// An image is classified.
    Logits {
        /// The logits, bit for bit.
        #[serde(with = "array")]
        logits: Logits,
        /// Time of the forward pass, in ticks of [`Info::clock_hz`].
        ticks: u32,
    },
    /// Outputs of a layer.
    Activations(#[serde(borrow)] Values<'a>),
    /// The cost of each layer.
    Bench(Bench),
    /// The memory used since the start.
    Memory(Memory),
}

/// Who a board is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info<'a> {
    /// [`VERSION`] of the board's firmware; always the first byte, so that any host can read it.
    pub version: u8,
    /// Format version of its weights file.
    pub weights_version: u8,
    /// Fingerprint of its architecture, as in the weights file.
    #[serde(with = "postcard::fixint::le")]
    pub fingerprint: u64,
    /// Checksum of its weights file.
    #[serde(with = "postcard::fixint::le")]
    pub weights_crc: u32,
    /// SHA-256 of its parameters: names the model.
    pub params_sha256: [u8; 32],
    /// Ticks a second of the clock that times a forward pass.
    pub clock_hz: u32,
    /// Name of the board, as in `firmware/boards`.
    pub board: &'a str,
    /// Version of the firmware.
    pub firmware: &'a str,
    /// Name of the network that its firmware was built for.
    pub network: &'a str,
}

impl<'a> Info<'a> {
    /// Of a board that runs this build with these weights.
    pub fn new<N: Served>(
        weights: &Weights<'_, N>,
        board: &'a str,
        firmware: &'a str,
        clock_hz: u32,
    ) -> Self {
        Self {
            version: VERSION,
            weights_version: weights::VERSION,
            fingerprint: FINGERPRINT,
            weights_crc: weights.crc,
            params_sha256: weights.metadata.provenance.params_sha256,
            clock_hz,
            board,
            firmware,
            network: NAME,
        }
    }
}

/// The cost of classifying one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bench {
    /// What is counted.
    pub unit: Unit,
    /// By layer, in the order of [`LAYERS`].
    #[serde(with = "array")]
    pub layers: [u32; LAYERS.len()],
    /// Of the whole forward pass.
    pub total: u32,
}

/// What a board counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unit {
    /// Ticks of [`Info::clock_hz`]: there is no cycle counter.
    Ticks,
    /// Cycles of the core.
    Cycles,
}

/// The memory that a board's program has used since its start, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Statics.
    pub statics: u32,
    /// The stack at its deepest.
    pub stack: u32,
}

/// Up to [`PAGE`] values, as they lie in a frame: little-endian f32, unaligned; for a hidden layer of an int8 network bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Values<'a>(&'a [u8]);

impl<'a> Values<'a> {
    /// Borrows the first [`PAGE`] of the values.
    pub fn of(values: &'a [f32]) -> Self {
        let page = values.get(..PAGE).unwrap_or(values);
        Self(bytemuck::must_cast_slice(page))
    }

    /// Returns the values as they lie in the frame.
    pub fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// The values in order, where they are f32.
    pub fn iter(self) -> impl Iterator<Item = f32> + 'a {
        self.0
            .as_chunks()
            .0
            .iter()
            .map(|&bytes| f32::from_le_bytes(bytes))
    }
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum LinkError {
    /// The frame was damaged: checksum or length do not match.
    Damaged,
    /// The frame ended early.
    Truncated,
    /// The frame was longer than any message.
    TooLong,
    /// The frame is whole, but this build knows no such message.
    Unknown,
    /// There is no such layer, or it has no such element.
    NoSuchElement,
    /// The image asked about is not the last one classified.
    NotReady,
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Damaged => "damaged frame",
            Self::Truncated => "truncated frame",
            Self::TooLong => "frame longer than any message",
            Self::Unknown => "unknown message: another version of the firmware?",
            Self::NoSuchElement => "no such layer or element",
            Self::NotReady => "another image was classified since",
        })
    }
}

impl core::error::Error for LinkError {}

/// A message that a frame can carry: [`Request`] or [`Reply`].
pub trait Message<'a>: Serialize + Deserialize<'a> {
    /// First byte of its frames. It differs by direction, so that nobody takes an echo for an answer.
    const KIND: u8;
}

impl<'a> Message<'a> for Request<'a> {
    const KIND: u8 = b'>';
}

impl<'a> Message<'a> for Reply<'a> {
    const KIND: u8 = b'<';
}

/// An image as a run of bytes, borrowed from the frame.
mod pixels {
    use crate::network::Pixels;
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;

    pub fn serialize<S: Serializer>(pixels: &Pixels, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytemuck::bytes_of(pixels))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<&'de Pixels, D::Error> {
        let bytes = <&[u8]>::deserialize(deserializer)?;
        bytemuck::try_from_bytes(bytes).map_err(|_| D::Error::custom("not the size of an image"))
    }
}

/// An array of f32 or u32 as a run of little-endian bytes; serde itself takes arrays of up to 32 elements.
mod array {
    use bytemuck::Pod;
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;

    pub fn serialize<T: Pod, S: Serializer>(array: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytemuck::bytes_of(array))
    }

    pub fn deserialize<'de, T: Pod, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        let bytes = <&[u8]>::deserialize(deserializer)?;
        bytemuck::try_pod_read_unaligned(bytes).map_err(|_| D::Error::custom("not as many values"))
    }
}
