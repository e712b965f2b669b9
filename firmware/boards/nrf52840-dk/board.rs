//! Nordic nRF52840-DK (Cortex-M4F). The board has a debug probe and a serial port.

use crate::chip::nrf52::{self, Uart};

/// The board.
pub struct Board;

impl crate::board::Board for Board {
    type Uart = Uart;

    /// The UART uses P0.06 (output) and P0.08 (input), which are connected to the probe.
    fn start() -> (u32, Uart) {
        let p = nrf52::start();
        let ppi = (p.PPI_CH0, p.PPI_CH1, p.PPI_GROUP0);
        let uart = Uart::new(p.UARTE0, p.TIMER0, ppi, p.P0_06.into(), p.P0_08.into());
        (nrf52::MHZ, uart)
    }
}
