//! Questions and answers over a wire that may lose, damage or double frames.
//!
//! A question that gets no whole answer is asked again under the same number: every request may be repeated, and a late
//! answer to an earlier try is as good as any. Each try waits twice as long as the one before it. Answers under other
//! numbers are old ones and are passed over.

use super::{DeviceError, Wire};
use lenet_core::Numbers;
use lenet_core::link::{
    Bench, Frame, LinkError, MAX_FRAME, Memory, Receiver, Refused, Reply, Request, UNKNOWN,
    VERSION, encode,
};
use lenet_core::network::{LAYERS, Logits, Pixels};
use std::time::{Duration, Instant};

/// A question is asked again so often.
const RETRIES: u32 = 3;
/// The first try waits for an answer at least so long.
const SHORTEST_PATIENCE: Duration = Duration::from_secs(1);
/// So many bytes are quoted where no answer is among them.
const HEARD_START: usize = 16;

/// Who a board says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Name of the board.
    pub board: String,
    /// Version of the firmware.
    pub firmware: String,
    /// Format version of its weights file.
    pub weights_version: u8,
    /// Fingerprint of its architecture.
    pub fingerprint: u64,
    /// Checksum of its weights file.
    pub weights_crc: u32,
    /// SHA-256 of its parameters.
    pub params_sha256: [u8; 32],
    /// Ticks a second of its clock.
    pub clock_hz: u32,
    /// Name of the network that its firmware was built for.
    pub network: String,
}

/// What a board makes of an image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Classified {
    /// The logits, bit for bit.
    pub logits: Logits,
    /// Time of the forward pass by the board's clock.
    pub time: Duration,
    /// Names the image for [`Client::layer`].
    pub image: u32,
}

/// What happened on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Traffic {
    /// Questions.
    pub asked: u32,
    /// Times a question was asked again.
    pub retried: u32,
    /// Questions that arrived damaged, by the board's word.
    pub damaged_requests: u32,
    /// Answers that arrived damaged.
    pub damaged_replies: u32,
    /// Tries without an answer.
    pub unanswered: u32,
    /// Whole answers that came twice, or too late.
    pub stale: u32,
}

/// A board that answers.
pub struct Client<W> {
    wire: W,
    receiver: Receiver,
    identity: Identity,
    sequence: u32,
    /// The first try waits so long.
    patience: Duration,
    /// No try waits longer.
    timeout: Duration,
    traffic: Traffic,
    heard: Heard,
}

/// All that came over the wire, whether or not it makes sense.
struct Heard {
    bytes: usize,
    /// The first bytes, at most [`HEARD_START`].
    start: Vec<u8>,
    /// Finds this program's own questions.
    questions: Receiver,
    echoed: bool,
}

impl Heard {
    fn listen(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len();
        let room = HEARD_START - self.start.len();
        self.start.extend(bytes.iter().take(room));
        for &byte in bytes {
            self.echoed |= matches!(self.questions.push::<Request>(byte), Some(Ok(_)));
        }
    }
}

/// How one try ended, where it did not end with an answer.
enum Try {
    Damaged,
    Silence,
}

impl<W: Wire> Client<W> {
    /// Asks who is there until somebody answers; `name` is the wire's, for messages. `timeout` is how long a board may take
    /// to start, and later to answer one try of a question.
    ///
    /// # Errors
    /// * `Silent`, `Noise`: nobody does in this time
    /// * `Version`: somebody who speaks another version
    /// * `Wire`: the wire broke
    pub fn connect(wire: W, name: &str, timeout: Duration) -> Result<Self, DeviceError> {
        let mut client = Self {
            wire,
            receiver: Receiver::new(),
            identity: Identity {
                board: name.to_owned(),
                firmware: String::new(),
                weights_version: 0,
                fingerprint: 0,
                weights_crc: 0,
                params_sha256: [0; 32],
                clock_hz: 1,
                network: String::new(),
            },
            sequence: UNKNOWN,
            patience: SHORTEST_PATIENCE,
            timeout,
            traffic: Traffic::default(),
            heard: Heard {
                bytes: 0,
                start: Vec::new(),
                questions: Receiver::new(),
                echoed: false,
            },
        };
        let start = Instant::now();
        let identity = loop {
            let left = timeout.saturating_sub(start.elapsed());
            if left.is_zero() {
                let (wire, waited) = (name.to_owned(), timeout);
                let heard = client.heard;
                return Err(match heard.bytes {
                    0 => DeviceError::Silent { wire, waited },
                    bytes => DeviceError::Noise {
                        wire,
                        waited,
                        bytes,
                        start: heard.start,
                        echoed: heard.echoed,
                    },
                });
            }
            // All tries together, each twice as long as the one before it, take no longer than what is left.
            client.patience = SHORTEST_PATIENCE.min(left / ((2 << RETRIES) - 1));
            match client.ask(&Request::Info, "the first question", identity) {
                Ok(identity) => break identity?,
                Err(DeviceError::Lost { .. }) => {}
                Err(error) => return Err(error),
            }
        };
        client.identity = identity;
        // A slow board takes longer than the shortest patience; the first image shows how long.
        client.patience = timeout;
        let asked = Instant::now();
        client.ask(&Request::SelfTest, "the self-test", logits)?;
        client.patience = SHORTEST_PATIENCE.max(asked.elapsed() * 10).min(timeout);
        // What went wrong before the board was ready is of no interest.
        client.traffic = Traffic::default();
        Ok(client)
    }

    /// Who it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What happened on the wire.
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// Has an image classified; `at` says which, for messages.
    ///
    /// # Errors
    /// * `Lost`: no whole answer
    /// * `Refused`, `Unexpected`: an answer that is none
    /// * `Wire`: the wire broke
    pub fn classify(&mut self, pixels: &Pixels, at: &str) -> Result<Classified, DeviceError> {
        let (logits, ticks) = self.ask(&Request::Classify(pixels), at, logits)?;
        let seconds = f64::from(ticks) / f64::from(self.identity.clock_hz.max(1));
        Ok(Classified {
            logits,
            time: Duration::from_secs_f64(seconds),
            image: self.sequence,
        })
    }

    /// The outputs of a layer for the image just classified, `layer` counted as in [`LAYERS`]. `numbers` is the kind of the
    /// board's parameters; the bytes of an int8 network come as the integers that they are.
    ///
    /// # Errors
    /// As [`classify`](Self::classify).
    pub fn layer(
        &mut self,
        image: u32,
        layer: usize,
        numbers: Numbers,
        at: &str,
    ) -> Result<Vec<f32>, DeviceError> {
        let len = LAYERS[layer].output_len();
        let mut values = Vec::with_capacity(len);
        while values.len() < len {
            let request = Request::Activations {
                image,
                layer: layer as u8,
                offset: values.len() as u16,
            };
            let page = self.ask(&request, at, |reply| match reply {
                Reply::Activations(values) => Some(match numbers {
                    Numbers::Int8 if layer + 1 < LAYERS.len() => {
                        values.bytes().iter().copied().map(f32::from).collect()
                    }
                    _ => values.iter().collect::<Vec<_>>(),
                }),
                _ => None,
            })?;
            if page.is_empty() {
                return Err(DeviceError::Unexpected { at: at.to_owned() });
            }
            values.extend(page);
        }
        values.truncate(len);
        Ok(values)
    }

    /// Has each layer measured.
    ///
    /// # Errors
    /// As [`classify`](Self::classify).
    pub fn bench(&mut self) -> Result<Bench, DeviceError> {
        self.ask(&Request::Bench, "bench", |reply| match reply {
            Reply::Bench(bench) => Some(bench),
            _ => None,
        })
    }

    /// Returns the bytes of statics and of stack that the board's program has used; `None` if it does not measure them.
    ///
    /// # Errors
    /// As [`classify`](Self::classify).
    pub fn memory(&mut self) -> Result<Option<Memory>, DeviceError> {
        let answer = self.ask(&Request::Memory, "memory", |reply| match reply {
            Reply::Memory(memory) => Some(memory),
            _ => None,
        });
        match answer {
            Ok(memory) => Ok(Some(memory)),
            Err(DeviceError::Refused {
                error: LinkError::Unknown,
                ..
            }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Has the built-in pattern of the self-test classified.
    ///
    /// # Errors
    /// As [`classify`](Self::classify).
    pub fn self_test(&mut self) -> Result<Logits, DeviceError> {
        let (logits, _) = self.ask(&Request::SelfTest, "the self-test", logits)?;
        Ok(logits)
    }

    /// Asks until there is a whole answer, and reads it with `read`; `None` from it is an answer of another kind.
    fn ask<T>(
        &mut self,
        request: &Request<'_>,
        at: &str,
        read: impl Fn(Reply<'_>) -> Option<T>,
    ) -> Result<T, DeviceError> {
        self.sequence += 1;
        self.traffic.asked += 1;
        let heard_before = self.heard.bytes;
        let mut out = [0; MAX_FRAME];
        let frame = encode(self.sequence, request, &mut out).expect("every request fits a frame");
        for tried in 0..=RETRIES {
            self.traffic.retried += u32::from(tried > 0);
            self.wire.send(frame).map_err(|error| self.broken(error))?;
            // A busy wire or emulator is given more time with each try.
            match self.hear(at, (self.patience * (1 << tried)).min(self.timeout), &read)? {
                Ok(answer) => return Ok(answer),
                Err(Try::Damaged) => {}
                Err(Try::Silence) => self.traffic.unanswered += 1,
            }
        }
        Err(DeviceError::Lost {
            at: at.to_owned(),
            tries: RETRIES + 1,
            heard: self.heard.bytes - heard_before,
        })
    }

    /// Listens for the answer to the last question.
    fn hear<T>(
        &mut self,
        at: &str,
        patience: Duration,
        read: impl Fn(Reply<'_>) -> Option<T>,
    ) -> Result<Result<T, Try>, DeviceError> {
        let deadline = Instant::now() + patience;
        let mut buffer = [0; 1024];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Err(Try::Silence));
            }
            let count = self
                .wire
                .receive(&mut buffer, left)
                .map_err(|error| self.broken(error))?;
            if count == 0 {
                return Ok(Err(Try::Silence));
            }
            self.heard.listen(&buffer[..count]);
            // All that came is looked at, so that no part of a doubled answer stays for the next question.
            let (mut answer, mut damaged) = (None, false);
            for &byte in &buffer[..count] {
                match self.receiver.push::<Reply>(byte) {
                    None => {}
                    Some(Ok(Frame { sequence, message }))
                        if sequence == self.sequence && answer.is_none() =>
                    {
                        answer = Some(match message {
                            Reply::Error(error) => Err(DeviceError::Refused {
                                at: at.to_owned(),
                                error,
                            }),
                            message => read(message)
                                .ok_or_else(|| DeviceError::Unexpected { at: at.to_owned() }),
                        });
                    }
                    Some(Ok(Frame {
                        sequence: UNKNOWN,
                        message: Reply::Error(_),
                    })) => {
                        self.traffic.damaged_requests += 1;
                        damaged = true;
                    }
                    Some(Ok(_)) => self.traffic.stale += 1,
                    Some(Err(Refused { sequence, .. })) if sequence == self.sequence => {
                        return Err(DeviceError::Unexpected { at: at.to_owned() });
                    }
                    Some(Err(_)) => {
                        self.traffic.damaged_replies += 1;
                        damaged = true;
                    }
                }
            }
            if let Some(answer) = answer {
                return answer.map(Ok);
            }
            if damaged {
                return Ok(Err(Try::Damaged));
            }
        }
    }

    fn broken(&self, source: std::io::Error) -> DeviceError {
        DeviceError::Wire {
            wire: self.identity.board.clone(),
            source,
            hint: "",
        }
    }
}

/// Who answered; an error inside if it speaks another version.
fn identity(reply: Reply<'_>) -> Option<Result<Identity, DeviceError>> {
    let Reply::Info(info) = reply else {
        return None;
    };
    if info.version != VERSION {
        return Some(Err(DeviceError::Version {
            found: info.version,
            expected: VERSION,
        }));
    }
    Some(Ok(Identity {
        board: info.board.to_owned(),
        firmware: info.firmware.to_owned(),
        weights_version: info.weights_version,
        fingerprint: info.fingerprint,
        weights_crc: info.weights_crc,
        params_sha256: info.params_sha256,
        clock_hz: info.clock_hz,
        network: info.network.to_owned(),
    }))
}

fn logits(reply: Reply<'_>) -> Option<(Logits, u32)> {
    match reply {
        Reply::Logits { logits, ticks } => Some((logits, ticks)),
        _ => None,
    }
}
