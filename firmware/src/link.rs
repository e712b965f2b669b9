//! The wires to a host: a UART and, on a real board, also RTT through the debug probe.

use crate::board::{Board, Selected};
use crate::clock::Clock;
#[cfg(not(emulated))]
use crate::rtt::Rtt;
use crate::wire::Wire;

/// The number of wires. Each needs its own receiver, so that noise on one wire does not damage a frame on the other.
pub const WIRES: usize = if cfg!(emulated) { 1 } else { 2 };
/// The time after which [`send`] gives up if the host accepts no bytes. The host then repeats its request.
const PATIENCE_US: u32 = 100_000;

/// All wires to a host.
pub struct Host {
    pub(crate) uart: <Selected as Board>::Uart,
    #[cfg(not(emulated))]
    pub(crate) rtt: Rtt,
}

impl Host {
    /// Returns all wires.
    pub fn wires(&mut self) -> [&mut dyn Wire; WIRES] {
        [
            &mut self.uart,
            #[cfg(not(emulated))]
            &mut self.rtt,
        ]
    }
}

/// Sends bytes. Drops the rest if the host accepts none for a tenth of a second.
pub fn send(wire: &mut dyn Wire, mut bytes: &[u8], clock: Clock) {
    while !bytes.is_empty() {
        let mut sent = 0;
        let taken = clock.within(PATIENCE_US, || {
            sent = wire.write(bytes);
            sent > 0
        });
        if !taken {
            return;
        }
        bytes = bytes.get(sent..).unwrap_or_default();
    }
}
