//! Messages between a host and a board.
//!
//! `LINK.md` specifies the bytes, and this module implements them. The host sends requests, and the board sends one reply for
//! every frame. A frame has a length, a sequence number and a checksum. Zero bytes occur only between frames, so a
//! receiver recovers from a damaged frame at the next zero.
//!
//! A transmission error leads to a [`LinkError`], never to a panic or a wrong reply. There are no addresses and there is no
//! flow control. The host decides when to retry; repeating a request is harmless.
//!
//! | file | contents |
//! |---|---|
//! | `mod.rs` | requests and replies |
//! | `frame.rs` | frames: [`encode`] and [`Receiver`] |
//! | `board.rs` | the board's side: [`Responder`] |

mod board;
mod frame;

pub use board::{Meter, Responder, Scratch, Served};
pub use frame::{Frame, FrameBuffer, MAX_FRAME, MAX_MESSAGE, Receiver, Refused, UNKNOWN, encode};

use crate::network::{FINGERPRINT, LAYERS, Logits, NAME, Pixels};
use crate::weights::{self, Weights};
use core::fmt;
use serde::{Deserialize, Serialize};

/// The version of the protocol that this build implements.
pub const VERSION: u8 = 2;
/// The maximum number of values in a [`Reply::Activations`].
pub const PAGE: usize = 196;

/// A request from a host.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request<'a> {
    /// Identify the board. The reply is [`Reply::Info`].
    Info,
    /// Classify the built-in pattern of [`self_test`](crate::self_test). The reply is [`Reply::Logits`].
    SelfTest,
    /// Classify an image. The reply is [`Reply::Logits`].
    Classify(#[serde(borrow, with = "pixels")] &'a Pixels),
    /// Send the outputs of a layer for the last image. The reply is [`Reply::Activations`].
    Activations {
        /// The sequence number of the last request that classified an image. Any other gives [`LinkError::NotReady`].
        image: u32,
        /// The index of the layer in [`LAYERS`].
        layer: u8,
        /// The index of the first element to send.
        offset: u16,
    },
    /// Measure each layer. The reply is [`Reply::Bench`].
    Bench,
    /// Measure the memory used. The reply is [`Reply::Memory`].
    Memory,
}

/// A reply from a board.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reply<'a> {
    /// The board cannot process the request, or did not receive it undamaged.
    Error(LinkError),
    /// The identity of the board.
    Info(#[serde(borrow)] Info<'a>),
    /// The result of classifying an image.
    Logits {
        /// The logits, bit for bit.
        #[serde(with = "array")]
        logits: Logits,
        /// The duration of the forward pass, in ticks of [`Info::clock_hz`].
        ticks: u32,
    },
    /// The outputs of a layer.
    Activations(#[serde(borrow)] Values<'a>),
    /// The cost of each layer.
    Bench(Bench),
    /// The memory used since the start.
    Memory(Memory),
}

/// The identity of a board.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info<'a> {
    /// The [`VERSION`] of the board's firmware. It is always the first byte, so that any host can read it.
    pub version: u8,
    /// The format version of the weights file.
    pub weights_version: u8,
    /// The fingerprint of the network, as in the weights file.
    #[serde(with = "postcard::fixint::le")]
    pub fingerprint: u64,
    /// The checksum of the weights file.
    #[serde(with = "postcard::fixint::le")]
    pub weights_crc: u32,
    /// The SHA-256 of the parameters, which identifies the model.
    pub params_sha256: [u8; 32],
    /// The frequency of the clock that times a forward pass, in ticks per second.
    pub clock_hz: u32,
    /// The name of the board, as in `firmware/boards`.
    pub board: &'a str,
    /// The version of the firmware.
    pub firmware: &'a str,
    /// The name of the network that the firmware was built for.
    pub network: &'a str,
}

impl<'a> Info<'a> {
    /// Returns the identity of a board that runs this build with these weights.
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
    /// The unit of the counts.
    pub unit: Unit,
    /// One count per layer, in the order of [`LAYERS`].
    #[serde(with = "array")]
    pub layers: [u32; LAYERS.len()],
    /// The count of the whole forward pass.
    pub total: u32,
}

/// The unit that a board counts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unit {
    /// Ticks of [`Info::clock_hz`], on a board without a cycle counter.
    Ticks,
    /// Clock cycles of the core.
    Cycles,
}

/// The memory that a board's program has used since its start, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// The size of the statics.
    pub statics: u32,
    /// The maximum stack usage.
    pub stack: u32,
}

/// Up to [`PAGE`] values, as encoded in a frame: unaligned little-endian f32, or bytes for a hidden layer of an int8 network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Values<'a>(&'a [u8]);

impl<'a> Values<'a> {
    /// Borrows the first [`PAGE`] of the values.
    pub fn of(values: &'a [f32]) -> Self {
        let page = values.get(..PAGE).unwrap_or(values);
        Self(bytemuck::must_cast_slice(page))
    }

    /// Returns the values as encoded in the frame.
    pub fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// Returns an iterator over the values, which must be f32.
    pub fn iter(self) -> impl Iterator<Item = f32> + 'a {
        self.0
            .as_chunks()
            .0
            .iter()
            .map(|&bytes| f32::from_le_bytes(bytes))
    }
}

/// The reason why a board replies with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum LinkError {
    /// The frame was damaged: its checksum or its length is wrong.
    Damaged,
    /// The frame ended early.
    Truncated,
    /// The frame was longer than [`MAX_FRAME`].
    TooLong,
    /// The frame is undamaged, but this build does not know its message.
    Unknown,
    /// There is no such layer, or it has no such element.
    NoSuchElement,
    /// The requested image is not the last one that the board classified.
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
    /// The first byte of a packet. It differs by direction, so that a host does not mistake an echo for a reply.
    const KIND: u8;
}

impl<'a> Message<'a> for Request<'a> {
    const KIND: u8 = b'>';
}

impl<'a> Message<'a> for Reply<'a> {
    const KIND: u8 = b'<';
}

/// Serializes an image as bytes, and borrows it from the frame.
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

/// Serializes an array of f32 or u32 as little-endian bytes, because serde supports arrays of at most 32 elements.
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
