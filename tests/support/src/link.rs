//! Both ends of the link without a wire: a simple encoder of frames, with which the real one is compared, and a check that holds
//! for any bytes.
//!
//! The fuzz target `link` includes this file, so it uses no other part of this crate.

use lenet_core::link::{
    Bench, Frame, Info, LinkError, MAX_FRAME, MAX_MESSAGE, Message, Meter, Receiver, Refused,
    Reply, Request, Responder, Scratch, UNKNOWN, Unit, VERSION, encode,
};
use lenet_core::network::{Activations, LAYERS, Params};

/// Returns the frame with these bytes as its message, encoded as LINK.md describes.
pub fn frame(kind: u8, sequence: u32, message: &[u8]) -> Vec<u8> {
    let mut packet = vec![kind];
    packet.extend((message.len() as u16).to_le_bytes());
    packet.extend(sequence.to_le_bytes());
    packet.extend(message);
    packet.extend(crc32(&packet).to_le_bytes());

    let mut frame = vec![0];
    let mut rest = &packet[..];
    loop {
        let run = rest.iter().take(254).take_while(|&&byte| byte != 0).count();
        frame.push(run as u8 + 1);
        frame.extend(&rest[..run]);
        // After a zero, another run follows, even if it is empty; after 254 bytes, only if there are more bytes.
        match rest.get(run) {
            None => break,
            Some(_) if run == 254 => rest = &rest[run..],
            Some(_) => rest = &rest[run + 1..],
        }
    }
    frame.push(0);
    frame
}

/// Computes CRC-32 by long division, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

/// The identity of the board in the tests.
pub const INFO: Info = Info {
    version: VERSION,
    weights_version: 1,
    fingerprint: 0x0102_0304_0506_0708,
    weights_crc: 0x00ff_00ff,
    params_sha256: [0xa5; 32],
    clock_hz: 64_000_000,
    board: "bench",
    firmware: "0.1.0",
    network: "network",
};

/// The clock of a board that never advances.
pub struct Stopped;

impl Meter for Stopped {
    fn ticks(&mut self) -> u32 {
        0
    }

    fn bench(&mut self, _: &Params, _: &mut Activations) -> Bench {
        Bench {
            unit: Unit::Ticks,
            layers: [0; LAYERS.len()],
            total: 0,
        }
    }
}

/// Passes any bytes to the receivers of both ends, as a stream and as the message of a valid frame. This is the body of the fuzz
/// target `link`.
///
/// # Panics
/// If the board does not send exactly one reply to each frame, or a decoded message cannot be encoded again.
pub fn any_bytes(bytes: &[u8]) {
    let params: Box<Params> = bytemuck::zeroed_box();
    let mut scratch = Scratch::new();
    let mut board = Responder::new(INFO, &*params, &mut scratch, Stopped);
    let mut out = [0; MAX_FRAME];

    let message = &bytes[..bytes.len().min(MAX_MESSAGE)];
    for stream in [bytes, &frame(b'>', 7, message), &frame(b'<', 7, message)] {
        let (mut from_host, mut from_board) = (Receiver::new(), Receiver::new());
        for &byte in stream {
            if let Some(result) = from_host.push::<Request>(byte) {
                let asked = check(result);
                let answer = board.answer(result, &mut out);
                let mut host = Receiver::new();
                let mut replies = answer.iter().filter_map(|&byte| {
                    Some(host.push::<Reply>(byte)?.map(|frame| frame.sequence))
                });
                assert_eq!(replies.next(), Some(Ok(asked)));
                assert_eq!(replies.next(), None, "one answer a frame");
            }
            if let Some(result) = from_board.push::<Reply>(byte) {
                check(result);
            }
        }
    }
}

/// Checks the result of a receiver, and returns its sequence number.
fn check<'a, M: Message<'a>>(result: Result<Frame<M>, Refused>) -> u32 {
    match result {
        Ok(Frame { sequence, message }) => {
            encode(sequence, &message, &mut [0; MAX_FRAME]).expect("it came in a frame");
            sequence
        }
        Err(Refused { sequence, error }) => {
            assert!(sequence == UNKNOWN || error == LinkError::Unknown);
            sequence
        }
    }
}
