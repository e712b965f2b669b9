//! Raspberry Pi Pico 2 (RP2350, Cortex-M33): needs a debug probe, whose serial port goes to GP0 and GP1.

use crate::chip::rp2350::{self, Uart};

/// The board.
pub struct Board;

impl crate::board::Board for Board {
    type Uart = Uart;

    fn start() -> u32 {
        rp2350::start()
    }

    fn uart(mhz: u32) -> Uart {
        Uart::new(mhz)
    }
}
