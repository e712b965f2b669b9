//! Requests and replies over a wire that may lose, damage or duplicate frames.
//!
//! A request without a complete reply is sent again under the same number. Every request may be repeated, so a late reply to an
//! earlier try is valid. Each try waits twice as long as the one before. Replies under other numbers are old, and are ignored.

use super::{DeviceError, Wire};
use lenet_core::Numbers;
use lenet_core::link::{
    Bench, Frame, LinkError, MAX_FRAME, Memory, Receiver, Refused, Reply, Request, UNKNOWN,
    VERSION, encode,
};
use lenet_core::network::{FINGERPRINT, LAYERS, Logits, NAME, Pixels};
use std::time::{Duration, Instant};

/// The number of times that a request is sent again.
const RETRIES: u32 = 3;
/// The shortest time that the first try waits for a reply.
const SHORTEST_PATIENCE: Duration = Duration::from_secs(1);
/// The number of bytes that a message quotes if they contain no reply.
const HEARD_START: usize = 16;

/// The identity of a board, as it reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The board's name.
    pub board: String,
    /// The version of the firmware.
    pub firmware: String,
    /// The format version of its weights file.
    pub weights_version: u8,
    /// The fingerprint of its network.
    pub fingerprint: u64,
    /// The checksum of its weights file.
    pub weights_crc: u32,
    /// The SHA-256 of its parameters.
    pub params_sha256: [u8; 32],
    /// The frequency of its clock, in ticks per second.
    pub clock_hz: u32,
    /// The name of the network that its firmware was built for.
    pub network: String,
}

/// A board's result for an image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Classified {
    /// The logits, bit for bit.
    pub logits: Logits,
    /// The time of the forward pass, by the board's clock.
    pub time: Duration,
    /// Identifies the image for [`Client::layer`].
    pub image: u32,
}

/// Statistics of the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Traffic {
    /// The number of requests.
    pub asked: u32,
    /// The number of times that a request was sent again.
    pub retried: u32,
    /// The number of requests that arrived damaged, as the board reports it.
    pub damaged_requests: u32,
    /// The number of replies that arrived damaged.
    pub damaged_replies: u32,
    /// The number of tries without a reply.
    pub unanswered: u32,
    /// The number of complete replies that came twice, or too late.
    pub stale: u32,
}

/// A connection to a board that replies.
pub struct Client<W> {
    wire: W,
    receiver: Receiver,
    identity: Identity,
    sequence: u32,
    /// The time that the first try waits.
    patience: Duration,
    /// The longest time that a try waits.
    timeout: Duration,
    traffic: Traffic,
    heard: Heard,
}

/// All bytes received, valid or not.
struct Heard {
    bytes: usize,
    /// The first bytes, at most [`HEARD_START`].
    start: Vec<u8>,
    /// Finds this program's own requests, if the wire echoes them.
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

/// The outcome of a try without a reply.
enum Try {
    Damaged,
    Silence,
}

impl<W: Wire> Client<W> {
    /// Asks for the board's identity until it replies. `name` is the wire's name, for messages. `timeout` is how long a board
    /// may take to start, and later to reply to one try of a request.
    ///
    /// # Errors
    /// * `Silent`, `Noise`: no board replies in this time
    /// * `Version`: the board speaks another version of the link
    /// * `Network`: the board's firmware was built for another network
    /// * `Wire`: the wire failed
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
            // All tries together, each twice as long as the one before, take no longer than the time left.
            client.patience = SHORTEST_PATIENCE.min(left / ((2 << RETRIES) - 1));
            match client.ask(&Request::Info, "the first question", identity) {
                Ok(identity) => break identity?,
                Err(DeviceError::Lost { .. }) => {}
                Err(error) => return Err(error),
            }
        };
        client.identity = identity;
        // A slow board takes longer than the shortest patience. The first image shows how long.
        client.patience = timeout;
        let asked = Instant::now();
        client.ask(&Request::SelfTest, "the self-test", logits)?;
        client.patience = SHORTEST_PATIENCE.max(asked.elapsed() * 10).min(timeout);
        // Errors from before the board was ready do not count.
        client.traffic = Traffic::default();
        Ok(client)
    }

    /// Returns the board's identity.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Returns the statistics of the wire.
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// Lets the board classify an image. `at` names the image, for messages.
    ///
    /// # Errors
    /// * `Lost`: no complete reply
    /// * `Refused`, `Unexpected`: an error, or a reply of another kind
    /// * `Wire`: the wire failed
    pub fn classify(&mut self, pixels: &Pixels, at: &str) -> Result<Classified, DeviceError> {
        let (logits, ticks) = self.ask(&Request::Classify(pixels), at, logits)?;
        let seconds = f64::from(ticks) / f64::from(self.identity.clock_hz.max(1));
        Ok(Classified {
            logits,
            time: Duration::from_secs_f64(seconds),
            image: self.sequence,
        })
    }

    /// Returns the outputs of a layer for the last classified image, with `layer` counted as in [`LAYERS`]. `numbers` is the
    /// kind of the board's parameters. The bytes of an int8 network are returned as integers.
    ///
    /// # Errors
    /// Those of [`classify`](Self::classify).
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

    /// Lets the board measure each layer.
    ///
    /// # Errors
    /// Those of [`classify`](Self::classify).
    pub fn bench(&mut self) -> Result<Bench, DeviceError> {
        self.ask(&Request::Bench, "bench", |reply| match reply {
            Reply::Bench(bench) => Some(bench),
            _ => None,
        })
    }

    /// Returns how many bytes of statics and of stack the board's program has used; `None` if it does not measure them.
    ///
    /// # Errors
    /// Those of [`classify`](Self::classify).
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

    /// Lets the board classify the built-in pattern of the self-test.
    ///
    /// # Errors
    /// Those of [`classify`](Self::classify).
    pub fn self_test(&mut self) -> Result<Logits, DeviceError> {
        let (logits, _) = self.ask(&Request::SelfTest, "the self-test", logits)?;
        Ok(logits)
    }

    /// Sends a request until there is a complete reply, which `read` decodes; `None` from `read` means a reply of another kind.
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
            // Each try gets more time, in case the wire or the emulator is busy.
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

    /// Waits for the reply to the last request.
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
            // All bytes are read, so that no part of a duplicated reply is left for the next request.
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

/// Returns the identity in a reply, or an error if the board speaks another version or runs another network.
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
    // The sizes of all further messages depend on the network.
    if info.fingerprint != FINGERPRINT {
        return Some(Err(DeviceError::Network {
            found: info.network.to_owned(),
            expected: NAME,
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
