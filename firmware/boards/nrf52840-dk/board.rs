//! Nordic nRF52840-DK (Cortex-M4F): probe and serial port on the board.

use crate::chip::nrf::{Uart, start_nrf52};

/// The board.
pub struct Board;

impl crate::board::Board for Board {
    type Uart = Uart;

    fn start() -> u32 {
        start_nrf52(b'F')
    }

    /// P0.06 out, P0.08 in: to the probe.
    fn uart(_mhz: u32) -> Uart {
        Uart::new(6, 8)
    }
}
