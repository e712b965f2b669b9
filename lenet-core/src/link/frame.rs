//! Frames. A frame encodes a message with its length, sequence number and checksum without zero bytes, between two zeros.
//!
//! The crate `cobs` does the byte stuffing. Source: Cheshire and Baker, Consistent Overhead Byte Stuffing, 1999.

use super::{LinkError, Message};
use crate::checksum::crc32;
use crate::network::{CLASSES, LAYERS, Pixels};
use cobs::{CobsEncoder, DecodeResult, DecoderState};
use core::fmt;
use heapless::Vec;

/// The maximum length of a message in bytes: that of an image, a page of values, the logits or a count per layer, plus space for
/// the fields before it.
pub const MAX_MESSAGE: usize = {
    let lengths = [
        size_of::<Pixels>(),
        super::PAGE * size_of::<f32>(),
        CLASSES * size_of::<f32>(),
        LAYERS.len() * size_of::<u32>(),
    ];
    let (mut longest, mut i) = (0, 0);
    while i < lengths.len() {
        if lengths[i] > longest {
            longest = lengths[i];
        }
        i += 1;
    }
    longest + 16
};
/// The maximum length of a frame in bytes, including its zeros.
pub const MAX_FRAME: usize = 1 + MAX_PACKET + MAX_PACKET.div_ceil(254) + 1;
/// The sequence number of an error that replies to an incomplete or damaged frame. Hosts count from 1.
pub const UNKNOWN: u32 = 0;

/// The length of the header: kind, length of the message, sequence number.
const HEADER: usize = 1 + 2 + 4;
const CHECKSUM: usize = 4;
const MAX_PACKET: usize = HEADER + MAX_MESSAGE + CHECKSUM;

// A frame stores the length of its message in two bytes.
const _: () = assert!(MAX_MESSAGE <= u16::MAX as usize);

/// A buffer that can hold any frame.
pub type FrameBuffer = [u8; MAX_FRAME];

/// An undamaged frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Frame<M> {
    /// The sequence number. A reply has the number of its request.
    pub sequence: u32,
    /// The message in the frame.
    pub message: M,
}

/// The error returned when a frame is incomplete or damaged, or when this build does not know its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Refused {
    /// The sequence number of the frame, or [`UNKNOWN`].
    pub sequence: u32,
    /// The reason.
    pub error: LinkError,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.sequence {
            UNKNOWN => self.error.fmt(f),
            sequence => write!(f, "{} (message {sequence})", self.error),
        }
    }
}

impl core::error::Error for Refused {}

/// Writes a message as a frame and returns the part of `out` that the frame occupies.
///
/// # Errors
/// `TooLong`: the message takes more than [`MAX_MESSAGE`] bytes.
pub fn encode<'b, 'm>(
    sequence: u32,
    message: &impl Message<'m>,
    out: &'b mut FrameBuffer,
) -> Result<&'b [u8], LinkError> {
    fn kind<'m, M: Message<'m>>(_: &M) -> u8 {
        M::KIND
    }
    let mut packet = [0; MAX_MESSAGE];
    let message_bytes = postcard::to_slice(message, &mut packet).map_err(|_| LinkError::TooLong)?;
    let mut header = [0; HEADER];
    header[0] = kind(message);
    header[1..3].copy_from_slice(&(message_bytes.len() as u16).to_le_bytes());
    header[3..].copy_from_slice(&sequence.to_le_bytes());
    let checksum = crc32(&[&header, message_bytes]).to_le_bytes();

    let (start, rest) = out.split_first_mut().ok_or(LinkError::TooLong)?;
    *start = 0;
    let mut stuffed = CobsEncoder::new(rest);
    for part in [&header[..], message_bytes, &checksum] {
        stuffed.push(part).map_err(|_| LinkError::TooLong)?;
    }
    let end = 1 + stuffed.finalize();
    *out.get_mut(end).ok_or(LinkError::TooLong)? = 0;
    out.get(..=end).ok_or(LinkError::TooLong)
}

/// Decodes the frames in a stream of bytes.
pub struct Receiver {
    stuffing: DecoderState,
    packet: Vec<u8, MAX_PACKET>,
    too_long: bool,
    ended: bool,
}

impl Receiver {
    /// Returns a receiver that waits for the start of a frame.
    pub const fn new() -> Self {
        Self {
            stuffing: DecoderState::Idle,
            packet: Vec::new(),
            too_long: false,
            ended: false,
        }
    }

    /// Takes the next byte, and returns the frame that the byte completes, if any. Ignores frames of the other direction.
    ///
    /// # Errors
    /// Returns [`Refused`] if the frame cannot be used. The next frame is not affected.
    pub fn push<'a, M: Message<'a>>(&'a mut self, byte: u8) -> Option<Result<Frame<M>, Refused>> {
        if core::mem::take(&mut self.ended) {
            self.packet.clear();
            self.too_long = false;
        }
        let whole = match self.stuffing.feed(byte) {
            Ok(DecodeResult::NoData) => return None,
            Ok(DecodeResult::DataContinue(byte)) => {
                self.too_long |= self.packet.push(byte).is_err();
                return None;
            }
            Ok(DecodeResult::DataComplete) => true,
            Err(_) => false,
        };
        self.ended = true;
        match (self.too_long, whole) {
            (true, _) => Some(Err(lost(LinkError::TooLong))),
            (false, false) => Some(Err(lost(LinkError::Truncated))),
            (false, true) => open(&self.packet),
        }
    }
}

impl Default for Receiver {
    fn default() -> Self {
        Self::new()
    }
}

fn lost(error: LinkError) -> Refused {
    Refused {
        sequence: UNKNOWN,
        error,
    }
}

/// Reads a packet. Returns `None` if it is undamaged but of the other direction.
fn open<'a, M: Message<'a>>(packet: &'a [u8]) -> Option<Result<Frame<M>, Refused>> {
    let Some((covered, &stored)) = packet.split_last_chunk::<CHECKSUM>() else {
        return Some(Err(lost(LinkError::Truncated)));
    };
    let Some((&[kind, l0, l1, s0, s1, s2, s3], message)) = covered.split_first_chunk::<HEADER>()
    else {
        return Some(Err(lost(LinkError::Truncated)));
    };
    let length = usize::from(u16::from_le_bytes([l0, l1]));
    if message.len() < length {
        return Some(Err(lost(LinkError::Truncated)));
    }
    if message.len() > length || crc32(&[covered]) != u32::from_le_bytes(stored) {
        return Some(Err(lost(LinkError::Damaged)));
    }
    if kind != M::KIND {
        return None;
    }
    let sequence = u32::from_le_bytes([s0, s1, s2, s3]);
    Some(match postcard::take_from_bytes(message) {
        Ok((message, [])) => Ok(Frame { sequence, message }),
        _ => Err(Refused {
            sequence,
            error: LinkError::Unknown,
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::{Reply, Request};
    use crate::network::{CHANNELS, HEIGHT, WIDTH};

    const INFO: [u8; 15] = [0, 3, 0x3e, 1, 2, 1, 1, 1, 1, 5, 0x22, 0xbc, 0x72, 0x6e, 0];

    /// Passes bytes to a receiver, and each result to `on` before the next byte.
    fn received(bytes: &[u8], mut on: impl FnMut(Result<Frame<Request<'_>>, Refused>)) {
        let mut receiver = Receiver::new();
        for &byte in bytes {
            if let Some(result) = receiver.push(byte) {
                on(result);
            }
        }
    }

    fn errors(bytes: &[u8]) -> Vec<LinkError, 4> {
        let mut errors = Vec::new();
        received(bytes, |result| {
            let _ = errors.push(result.expect_err("refused").error);
        });
        errors
    }

    #[test]
    fn frames_are_those_of_the_page() {
        let mut out = [0; MAX_FRAME];
        assert_eq!(encode(1, &Request::Info, &mut out), Ok(&INFO[..]));

        let page = Request::Activations {
            image: 257,
            layer: 0,
            offset: 196,
        };
        let bytes = [
            0, 3, 0x3e, 6, 2, 7, 1, 1, 4, 3, 0x81, 2, 7, 0xc4, 1, 0x5f, 0x18, 0x80, 0x87, 0,
        ];
        assert_eq!(encode(7, &page, &mut out), Ok(&bytes[..]));

        let bytes = [
            0, 3, 0x3c, 2, 1, 1, 1, 1, 1, 1, 5, 0x15, 0x20, 0x29, 0x6c, 0,
        ];
        let error = Reply::Error(LinkError::Damaged);
        assert_eq!(encode(UNKNOWN, &error, &mut out), Ok(&bytes[..]));
    }

    #[test]
    fn an_image_crosses_untouched() {
        let mut pixels = [[[255; WIDTH]; HEIGHT]; CHANNELS];
        pixels[0][3] = [0; WIDTH];
        let (mut out, mut count) = ([0; MAX_FRAME], 0);
        let bytes = encode(9, &Request::Classify(&pixels), &mut out).unwrap();
        received(bytes, |result| {
            let message = Request::Classify(&pixels);
            assert_eq!(
                result,
                Ok(Frame {
                    sequence: 9,
                    message
                })
            );
            count += 1;
        });
        assert_eq!(count, 1);
    }

    #[test]
    fn each_damage_has_its_name() {
        let mut cut = [0; 12];
        cut[..11].copy_from_slice(&INFO[..11]);
        assert_eq!(errors(&cut), [LinkError::Truncated]);

        let mut damaged = INFO;
        damaged[2] ^= 0x40;
        assert_eq!(errors(&damaged), [LinkError::Damaged]);

        let mut long = [1; 2 * MAX_FRAME];
        long[2 * MAX_FRAME - 1] = 0;
        assert_eq!(errors(&long), [LinkError::TooLong]);
    }

    #[test]
    fn an_unknown_message_is_refused_under_its_number() {
        let ninth = [0, 3, 0x3e, 1, 2, 5, 1, 1, 6, 9, 0x46, 0xa2, 0x2e, 0xe2, 0];
        let info_and_a_byte = [
            0, 3, 0x3e, 2, 2, 5, 1, 1, 1, 1, 5, 0x20, 0x99, 0x12, 0x12, 0,
        ];
        let three_pixels = [
            0, 3, 0x3e, 5, 2, 5, 1, 1, 10, 2, 3, 0x61, 0x62, 0x63, 0x26, 0xae, 0x1d, 0x1f, 0,
        ];
        for bytes in [&ninth[..], &info_and_a_byte, &three_pixels] {
            let mut count = 0;
            received(bytes, |result| {
                let error = LinkError::Unknown;
                assert_eq!(result, Err(Refused { sequence: 5, error }));
                count += 1;
            });
            assert_eq!(count, 1);
        }
    }

    #[test]
    fn the_frame_after_a_lost_one_is_read() {
        let mut bytes = [0; 9 + INFO.len()];
        bytes[..9].copy_from_slice(&INFO[..9]);
        bytes[9..].copy_from_slice(&INFO);
        let mut results = Vec::<_, 4>::new();
        received(&bytes, |result| {
            let _ = results.push(result.map(|frame| frame.sequence));
        });
        assert_eq!(results, [Err(lost(LinkError::Truncated)), Ok(1)]);
    }

    #[test]
    fn an_echo_is_passed_over() {
        let mut receiver = Receiver::new();
        for byte in INFO {
            assert_eq!(receiver.push::<Reply>(byte), None);
        }
    }
}
