//! BBC micro:bit v2 (nRF52833, Cortex-M4F): probe and serial port on the board.

use crate::chip::nrf::{Uart, start_nrf52};

/// The board.
pub struct Board;

impl crate::board::Board for Board {
    type Uart = Uart;

    fn start() -> u32 {
        start_nrf52(b'B')
    }

    /// P0.06 out, P1.08 in: to the interface chip.
    fn uart(_mhz: u32) -> Uart {
        Uart::new(6, 32 + 8)
    }
}
