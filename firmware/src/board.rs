//! The trait that a board implements, and the board of this build.

use crate::wire::Wire;

/// A board. The type `Board` in `boards/NAME/board.rs` implements this trait.
pub trait Board {
    /// The board's UART to a host.
    type Uart: Wire;

    /// Starts the clocks and the UART. Returns the frequency of the core and SysTick in MHz, and the UART. Called once.
    fn start() -> (u32, Self::Uart);
}

include!(concat!(env!("OUT_DIR"), "/board.rs"));
