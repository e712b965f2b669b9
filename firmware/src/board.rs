//! What a board must say, and the board of this build.

use crate::link::ByteLink;

/// A board: implemented by a type `Board` in `boards/NAME/board.rs`.
pub trait Board {
    /// The wire to a host.
    type Uart: ByteLink;

    /// Sets the clocks up and returns the core's frequency in MHz, which is SysTick's. If a clock does not start, says so
    /// and goes on with the one there is.
    fn start() -> u32;

    /// Sets the wire up, after [`start`](Self::start) returned `mhz`.
    fn uart(mhz: u32) -> Self::Uart;
}

include!(concat!(env!("OUT_DIR"), "/board.rs"));
