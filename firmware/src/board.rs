//! What a board must say, and the board of this build.

use crate::wire::Wire;

/// A board: implemented by a type `Board` in `boards/NAME/board.rs`.
pub trait Board {
    /// The board's UART to a host.
    type Uart: Wire;

    /// Starts the clocks and the UART. Returns the core's frequency in MHz, which is SysTick's, and the UART. Called once.
    fn start() -> (u32, Self::Uart);
}

include!(concat!(env!("OUT_DIR"), "/board.rs"));
