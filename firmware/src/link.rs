//! Bytes to and from a host: the wire only, without frames.

#[cfg(not(emulated))]
use rtt_target::{ChannelMode, DownChannel, UpChannel};

/// A wire to a host.
pub trait ByteLink {
    /// The next byte received, if there is one. Never waits.
    fn read(&mut self) -> Option<u8>;

    /// Sends bytes. When the host takes none for some ten milliseconds the rest is dropped: the wire never hangs.
    fn write(&mut self, bytes: &[u8]);
}

/// The link of this build: a UART in QEMU, UART or RTT on a real board.
#[cfg(emulated)]
pub type Host = <crate::board::Selected as crate::board::Board>::Uart;
/// The link of this build: a UART in QEMU, UART or RTT on a real board.
#[cfg(not(emulated))]
pub type Host = Either<<crate::board::Selected as crate::board::Board>::Uart, Rtt>;

/// RTT channels 1 through the debug probe.
#[cfg(not(emulated))]
pub struct Rtt {
    /// To the host.
    pub up: UpChannel,
    /// From the host.
    pub down: DownChannel,
}

#[cfg(not(emulated))]
impl ByteLink for Rtt {
    fn read(&mut self) -> Option<u8> {
        let mut byte = [0];
        (self.down.read(&mut byte) == 1).then_some(byte[0])
    }

    fn write(&mut self, mut bytes: &[u8]) {
        // The host may have asked for blocking, and gone.
        self.up.set_mode(ChannelMode::NoBlockTrim);
        let mut patience = 200_000u32;
        while !bytes.is_empty() && patience > 0 {
            let sent = self.up.write(bytes);
            bytes = bytes.get(sent..).unwrap_or_default();
            patience -= 1;
        }
    }
}

/// Two wires; answers go where the last byte came from.
#[cfg(not(emulated))]
pub struct Either<A, B> {
    first: A,
    second: B,
    second_heard: bool,
}

#[cfg(not(emulated))]
impl<A, B> Either<A, B> {
    /// Listens to both.
    pub fn new(first: A, second: B) -> Self {
        Self {
            first,
            second,
            second_heard: false,
        }
    }
}

#[cfg(not(emulated))]
impl<A: ByteLink, B: ByteLink> ByteLink for Either<A, B> {
    fn read(&mut self) -> Option<u8> {
        let (byte, second) = match self.first.read() {
            Some(byte) => (byte, false),
            None => (self.second.read()?, true),
        };
        self.second_heard = second;
        Some(byte)
    }

    fn write(&mut self, bytes: &[u8]) {
        if self.second_heard {
            self.second.write(bytes);
        } else {
            self.first.write(bytes);
        }
    }
}
