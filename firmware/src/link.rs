//! The wires of this build to a host: a UART, and on a real board RTT through the debug probe as well.

use crate::board::{Board, Selected};
use crate::clock::Clock;
#[cfg(not(emulated))]
use crate::rtt::Rtt;
use crate::wire::Wire;

/// The number of wires. Each needs a receiver of its own: noise on one must not spoil a frame on the other.
pub const WIRES: usize = if cfg!(emulated) { 1 } else { 2 };
/// What a host does not take is dropped when it has taken nothing for this long. The host asks again.
const PATIENCE_US: u32 = 100_000;

/// Every wire to a host.
pub struct Host {
    pub(crate) uart: <Selected as Board>::Uart,
    #[cfg(not(emulated))]
    pub(crate) rtt: Rtt,
}

impl Host {
    /// Returns the wires one by one.
    pub fn wires(&mut self) -> [&mut dyn Wire; WIRES] {
        [
            &mut self.uart,
            #[cfg(not(emulated))]
            &mut self.rtt,
        ]
    }
}

/// Sends bytes, and drops the rest if the host takes none for a tenth of a second.
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
