//! Tests the link: compares frames with those of a simple encoder, and damages frames in every way.

use lenet_core::link::{
    Bench, Frame, Info, LinkError, MAX_FRAME, Memory, Message, PAGE, Receiver, Refused, Reply,
    Request, Unit, Values, encode,
};
use lenet_core::network::{CHANNELS, CLASSES, HEIGHT, Pixels, WIDTH};
use lenet_test_support::link::{INFO, any_bytes, frame};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng};

/// Returns a deterministic generator of random numbers.
fn random(seed: u8) -> TestRng {
    TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32])
}

fn below(rng: &mut TestRng, bound: usize) -> usize {
    rng.next_u32() as usize % bound
}

/// Returns an image with long runs of zeros and long runs without zeros.
fn pixels() -> Pixels {
    let mut pixels = [[[200; WIDTH]; HEIGHT]; CHANNELS];
    let rows = pixels.as_flattened_mut();
    let middle = rows.len() / 2;
    rows[middle] = [0; WIDTH];
    for (x, pixel) in rows[middle + 1].iter_mut().enumerate() {
        *pixel = (x % 3) as u8;
    }
    pixels
}

/// Returns a frame of each kind, from the host and from the board.
fn one_of_each() -> Vec<Vec<u8>> {
    fn bytes<'m>(sequence: u32, message: &impl Message<'m>) -> Vec<u8> {
        encode(sequence, message, &mut [0; MAX_FRAME])
            .expect("it fits")
            .to_vec()
    }
    let pixels = pixels();
    let values: Vec<f32> = (0..PAGE).map(|i| i as f32 * 0.1 - 3.0).collect();
    let logits = std::array::from_fn(|i| i as f32 - 4.5);
    let layers = std::array::from_fn(|i| [1, 200, 30_000, 4_000_000, 0][i % 5]);
    vec![
        bytes(1, &Request::Info),
        bytes(2, &Request::SelfTest),
        bytes(3, &Request::Classify(&pixels)),
        bytes(
            0x0100_0000,
            &Request::Activations {
                image: 3,
                layer: 1,
                offset: 196,
            },
        ),
        bytes(5, &Request::Bench),
        bytes(6, &Request::Memory),
        bytes(0, &Reply::Error(LinkError::Damaged)),
        bytes(1, &Reply::Info(INFO)),
        bytes(
            3,
            &Reply::Logits {
                logits,
                ticks: 1_153_000,
            },
        ),
        bytes(4, &Reply::Activations(Values::of(&values))),
        bytes(
            5,
            &Reply::Bench(Bench {
                unit: Unit::Cycles,
                layers,
                total: 0,
            }),
        ),
        bytes(
            6,
            &Reply::Memory(Memory {
                statics: 17_240,
                stack: 832,
            }),
        ),
    ]
}

/// Returns the sequence numbers and messages that the receivers of both ends decode from a stream, as text.
fn understood(stream: &[u8]) -> Vec<String> {
    let (mut board, mut host) = (Receiver::new(), Receiver::new());
    let mut all = Vec::new();
    for &byte in stream {
        if let Some(Ok(frame)) = board.push::<Request>(byte) {
            all.push(format!("{frame:?}"));
        }
        if let Some(Ok(frame)) = host.push::<Reply>(byte) {
            all.push(format!("{frame:?}"));
        }
    }
    all
}

#[test]
fn every_single_bit_flip_is_refused() {
    let follower = frame(b'>', 99, &[0]);
    let expected = understood(&follower);
    assert_eq!(expected.len(), 1);
    let mut flips = 0;
    for sound in one_of_each() {
        assert_eq!(understood(&sound).len(), 1);
        for bit in 0..8 * sound.len() {
            let mut stream = sound.clone();
            stream[bit / 8] ^= 1 << (bit % 8);
            stream.extend(&follower);
            assert_eq!(understood(&stream), expected, "bit {bit} of {sound:02x?}");
            flips += 1;
        }
    }
    assert!(flips > 10_000);
}

#[test]
fn every_truncation_is_rejected_and_affects_no_other_frame() {
    let follower = frame(b'>', 99, &[0]);
    let expected = understood(&follower);
    for sound in one_of_each() {
        for len in 0..sound.len() - 1 {
            let stream = [&sound[..len], &follower].concat();
            assert_eq!(understood(&stream), expected, "cut to {len} bytes");
        }
    }
}

#[test]
fn random_frames_are_rejected() {
    let mut rng = random(1);
    let (mut board, mut host) = (Receiver::new(), Receiver::new());
    let (mut frames, mut refused) = (0, 0);
    let mut chunk = [0; 4096];
    // One byte in sixteen is a zero, so that frames are short and many of them are rejected only by the checksum.
    while frames < 200_000 {
        rng.fill_bytes(&mut chunk);
        for byte in chunk {
            let byte = if byte < 16 { 0 } else { byte >> (byte % 7) };
            if let Some(result) = board.push::<Request>(byte) {
                frames += 1;
                refused += u32::from(result.is_err());
            }
            if let Some(result) = host.push::<Reply>(byte) {
                assert!(result.is_err(), "{result:?}");
            }
        }
    }
    assert_eq!(refused, frames);
}

#[test]
fn damaged_frames_are_never_decoded_to_another_message() {
    let sound: Vec<_> = one_of_each()
        .into_iter()
        .filter(|frame| frame.len() < 100)
        .collect();
    let messages: Vec<_> = sound.iter().map(|frame| understood(frame)).collect();
    let mut rng = random(2);
    for round in 0..200_000 {
        let which = below(&mut rng, sound.len());
        let mut stream = sound[which].clone();
        for _ in 0..=below(&mut rng, 3) {
            let at = below(&mut rng, stream.len());
            match below(&mut rng, 4) {
                0 => stream[at] = rng.next_u32() as u8,
                1 => stream[at] ^= 1 << below(&mut rng, 8),
                2 => {
                    stream.remove(at);
                }
                _ => stream.insert(at, rng.next_u32() as u8),
            }
        }
        let found = understood(&stream);
        assert!(
            found.is_empty() || found == messages[which],
            "round {round}: {stream:02x?} from {:02x?}",
            sound[which]
        );
    }
}

#[test]
fn random_messages_in_valid_frames_get_a_reply() {
    let mut rng = random(3);
    for _ in 0..20_000 {
        let mut bytes = vec![0; below(&mut rng, 900)];
        rng.fill_bytes(&mut bytes);
        if let [first, ..] = &mut bytes[..] {
            *first %= 6;
        }
        any_bytes(&bytes);
    }
}

proptest! {
    #[test]
    fn requests_are_framed_as_by_the_simple_encoder(
        sequence: u32, image: u32, layer: u8, offset: u16, pixels: Vec<u8>, which in 0..6usize,
    ) {
        let mut padded = pixels;
        padded.resize(size_of::<Pixels>(), 0);
        let pixels: &Pixels = bytemuck::from_bytes(&padded);
        let varint = |mut value: u32| {
            let mut bytes = Vec::new();
            while value >= 0x80 {
                bytes.push(value as u8 | 0x80);
                value >>= 7;
            }
            bytes.push(value as u8);
            bytes
        };
        let (request, message) = match which {
            0 => (Request::Info, vec![0]),
            1 => (Request::SelfTest, vec![1]),
            2 => (
                Request::Classify(pixels),
                [vec![2], varint(padded.len() as u32), padded.clone()].concat(),
            ),
            3 => (
                Request::Activations { image, layer, offset },
                [vec![3], varint(image), vec![layer], varint(offset.into())].concat(),
            ),
            4 => (Request::Bench, vec![4]),
            _ => (Request::Memory, vec![5]),
        };
        let mut out = [0; MAX_FRAME];
        let bytes = encode(sequence, &request, &mut out).expect("it fits");
        prop_assert_eq!(bytes, &frame(b'>', sequence, &message)[..]);

        let mut receiver = Receiver::new();
        let mut results = 0;
        for &byte in bytes {
            if let Some(result) = receiver.push::<Request>(byte) {
                prop_assert_eq!(result, Ok(Frame { sequence, message: request }));
                results += 1;
            }
        }
        prop_assert_eq!(results, 1);
    }

    #[test]
    fn replies_arrive_bit_for_bit(sequence: u32, bits in vec(any::<u32>(), CLASSES), ticks: u32, board in ".{0,60}") {
        let bits: [u32; CLASSES] = bits.try_into().expect("as many");
        let logits = bits.map(f32::from_bits);
        let info = Info { board: &board, ..INFO };
        let mut receiver = Receiver::new();
        let mut out = [0; MAX_FRAME];
        for &byte in encode(sequence, &Reply::Logits { logits, ticks }, &mut out).expect("it fits") {
            if let Some(result) = receiver.push::<Reply>(byte) {
                let Ok(Frame { message: Reply::Logits { logits, ticks: arrived }, .. }) = result else {
                    panic!("{result:?}");
                };
                prop_assert_eq!(logits.map(f32::to_bits), bits);
                prop_assert_eq!(arrived, ticks);
            }
        }
        for &byte in encode(sequence, &Reply::Info(info), &mut out).expect("it fits") {
            if let Some(result) = receiver.push::<Reply>(byte) {
                prop_assert_eq!(result, Ok(Frame { sequence, message: Reply::Info(info) }));
            }
        }
    }

    #[test]
    fn a_frame_is_read_after_any_noise(noise: Vec<u8>, sequence: u32) {
        let mut receiver = Receiver::new();
        let mut last = None;
        for byte in noise.into_iter().chain(frame(b'>', sequence, &[4])) {
            if let Some(result) = receiver.push::<Request>(byte) {
                last = Some(result.map(|frame| (frame.sequence, frame.message == Request::Bench)));
            }
        }
        prop_assert_eq!(last, Some(Ok::<_, Refused>((sequence, true))));
    }

    #[test]
    fn any_bytes_are_answered(bytes: Vec<u8>) {
        any_bytes(&bytes);
    }
}
