//! The board's side: one reply per frame. It is independent of the wire and the clock, so tests on a host can run it.

use super::PAGE;
use super::{
    Bench, Frame, FrameBuffer, Info, LinkError, Memory, Refused, Reply, Request, Values, encode,
};
use crate::Network;
use crate::network::{Logits, Net, Pixels};

/// The network that the crate is built for, in f32 or in int8. Both take the same images and return the same type of logits.
pub trait Served: Network<Pixels = Pixels, Logits = Logits> {}

impl<N: Network<Pixels = Pixels, Logits = Logits>> Served for N {}

/// Measures time and memory on a board that runs `N`.
pub trait Meter<N: Served = Net> {
    /// Returns the time in ticks of [`Info::clock_hz`]. It may wrap around.
    fn ticks(&mut self) -> u32;

    /// Measures the forward pass and its layers, and may overwrite `act`.
    fn bench(&mut self, params: &N::Params, act: &mut N::Activations) -> Bench;

    /// Returns the memory used since the start, or `None` if the board does not measure it.
    fn memory(&mut self) -> Option<Memory> {
        None
    }
}

/// The memory that a [`Responder`] needs.
pub type Scratch<N = Net> = crate::Scratch<N>;

/// Writes a reply as a frame.
///
/// This is not generic, so it is compiled with this crate and its optimization level. If a program that is optimized for size
/// compiled it, the compiler would not recognize that postcard's loops over a number's bytes stay in range.
fn frame<'b>(sequence: u32, reply: &Reply<'_>, out: &'b mut FrameBuffer) -> &'b [u8] {
    // A reply can be too long only if the names in `info` are too long.
    encode(sequence, reply, out).unwrap_or_default()
}

/// Processes requests on a board.
pub struct Responder<'a, M, N: Served = Net> {
    info: Info<'a>,
    params: &'a N::Params,
    scratch: &'a mut Scratch<N>,
    meter: M,
    /// The sequence number of the request whose image is in `scratch`.
    classified: Option<u32>,
}

impl<'a, N: Served, M: Meter<N>> Responder<'a, M, N> {
    /// Returns a responder for a board with this identity and these parameters.
    pub fn new(
        info: Info<'a>,
        params: &'a N::Params,
        scratch: &'a mut Scratch<N>,
        meter: M,
    ) -> Self {
        Self {
            info,
            params,
            scratch,
            meter,
            classified: None,
        }
    }

    /// Writes the reply to a result of a [`Receiver`](super::Receiver) into `out`, and returns its frame.
    pub fn answer<'b>(
        &mut self,
        received: Result<Frame<Request<'_>>, Refused>,
        out: &'b mut FrameBuffer,
    ) -> &'b [u8] {
        let (sequence, reply) = match received {
            Ok(Frame { sequence, message }) => (sequence, self.reply(sequence, message)),
            Err(Refused { sequence, error }) => (sequence, Reply::Error(error)),
        };
        frame(sequence, &reply, out)
    }

    fn reply(&mut self, sequence: u32, request: Request<'_>) -> Reply<'_> {
        match request {
            Request::Info => Reply::Info(self.info),
            Request::SelfTest => {
                self.scratch.image = *N::TEST_IMAGE;
                self.classify(sequence)
            }
            Request::Classify(pixels) => {
                N::write_image(pixels, &mut self.scratch.image);
                self.classify(sequence)
            }
            Request::Activations {
                image,
                layer,
                offset,
            } => {
                if self.classified != Some(image) {
                    return Reply::Error(LinkError::NotReady);
                }
                let outputs = N::outputs(&self.scratch.act, usize::from(layer));
                match outputs.and_then(|outputs| outputs.page(usize::from(offset), PAGE)) {
                    None => Reply::Error(LinkError::NoSuchElement),
                    Some(bytes) => Reply::Activations(Values(bytes)),
                }
            }
            Request::Bench => {
                self.classified = None;
                Reply::Bench(self.meter.bench(self.params, &mut self.scratch.act))
            }
            Request::Memory => match self.meter.memory() {
                Some(memory) => Reply::Memory(memory),
                None => Reply::Error(LinkError::Unknown),
            },
        }
    }

    /// Classifies the image in `scratch` for the request of this number.
    fn classify(&mut self, sequence: u32) -> Reply<'static> {
        let Scratch { image, act } = &mut *self.scratch;
        let start = self.meter.ticks();
        let logits = *N::forward(self.params, image, act);
        let ticks = self.meter.ticks().wrapping_sub(start);
        self.classified = Some(sequence);
        Reply::Logits { logits, ticks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::{MAX_FRAME, Receiver, Unit, VERSION};
    use crate::network::{
        Activations, CHANNELS, CLASSES, HEIGHT, LAYERS, NUM_PARAMS, Params, WIDTH,
    };

    const INFO: Info = Info {
        version: VERSION,
        weights_version: 1,
        fingerprint: 2,
        weights_crc: 3,
        params_sha256: [4; 32],
        clock_hz: 64_000_000,
        board: "bench",
        firmware: "0.1.0",
        network: "network",
    };

    /// A clock that counts how often it is read.
    struct Readings(u32);

    impl Meter for Readings {
        fn ticks(&mut self) -> u32 {
            self.0 += 1;
            self.0
        }

        fn bench(&mut self, _: &Params, _: &mut Activations) -> Bench {
            Bench {
                unit: Unit::Ticks,
                layers: core::array::from_fn(|layer| layer as u32 + 1),
                total: 15,
            }
        }
    }

    /// Sends these requests, numbered from 1, to a new board, and calls `look` with the last reply.
    fn ask(requests: &[Request<'_>], look: impl FnOnce(Reply<'_>)) {
        let mut params = Params::ZERO;
        params.as_flat_mut()[NUM_PARAMS - 1] = 0.25;
        let mut scratch = Scratch::new();
        let mut board = Responder::new(INFO, &params, &mut scratch, Readings(0));
        let mut out = [0; MAX_FRAME];
        let mut sequence = 0;
        for &message in requests {
            sequence += 1;
            board.answer(Ok(Frame { sequence, message }), &mut out);
        }
        let (mut receiver, mut look) = (Receiver::new(), Some(look));
        for byte in out {
            if let Some(result) = receiver.push::<Reply>(byte) {
                let frame = result.unwrap();
                assert_eq!(frame.sequence, sequence);
                look.take().unwrap()(frame.message);
                return;
            }
        }
        panic!("no answer");
    }

    #[test]
    fn an_image_is_classified_and_timed() {
        ask(
            &[Request::Classify(&[[[9; WIDTH]; HEIGHT]; CHANNELS])],
            |reply| {
                let mut logits = [0.0; CLASSES];
                logits[CLASSES - 1] = 0.25;
                assert_eq!(reply, Reply::Logits { logits, ticks: 1 });
            },
        );
    }

    #[test]
    fn activations_come_in_pages() {
        let page = |image, layer, offset| {
            [
                Request::SelfTest,
                Request::Activations {
                    image,
                    layer,
                    offset,
                },
            ]
        };
        let count = |expected| {
            move |reply: Reply<'_>| match reply {
                Reply::Activations(values) => assert_eq!(values.iter().count(), expected),
                other => panic!("{other:?}"),
            }
        };
        let error = |error| move |reply: Reply<'_>| assert_eq!(reply, Reply::Error(error));
        let first = LAYERS[0].output_len();
        let last_page = (first - 1) / PAGE * PAGE;
        ask(&page(1, 0, 0), count(PAGE.min(first)));
        ask(&page(1, 0, last_page as u16), count(first - last_page));
        let (last, classes) = (LAYERS.len() as u8 - 1, CLASSES as u16);
        ask(&page(1, last, classes - 1), count(1));
        ask(&page(1, last, classes), error(LinkError::NoSuchElement));
        ask(&page(1, last, classes + 1), error(LinkError::NoSuchElement));
        ask(&page(1, last + 1, 0), error(LinkError::NoSuchElement));
        ask(&page(7, 0, 0), error(LinkError::NotReady));
    }

    #[test]
    fn bench_forgets_the_image() {
        let after = [
            Request::SelfTest,
            Request::Bench,
            Request::Activations {
                image: 1,
                layer: 0,
                offset: 0,
            },
        ];
        ask(&after, |reply| {
            assert_eq!(reply, Reply::Error(LinkError::NotReady));
        });
        ask(&after[..2], |reply| {
            assert!(matches!(reply, Reply::Bench(bench) if bench.total == 15));
        });
    }

    #[test]
    fn a_board_that_does_not_measure_memory_does_not_know_the_message() {
        ask(&[Request::Memory], |reply| {
            assert_eq!(reply, Reply::Error(LinkError::Unknown));
        });
    }

    #[test]
    fn a_board_says_who_it_is() {
        ask(&[Request::Info], |reply| {
            assert_eq!(reply, Reply::Info(INFO));
        });
    }

    #[test]
    fn a_lost_frame_is_answered_with_its_error() {
        let params: &Params = &Params::ZERO;
        let mut scratch = Scratch::new();
        let mut board = Responder::new(INFO, params, &mut scratch, Readings(0));
        let lost = Refused {
            sequence: 0,
            error: LinkError::Damaged,
        };
        let bytes = [
            0, 3, 0x3c, 2, 1, 1, 1, 1, 1, 1, 5, 0x15, 0x20, 0x29, 0x6c, 0,
        ];
        assert_eq!(board.answer(Err(lost), &mut [0; MAX_FRAME]), bytes);
    }
}
