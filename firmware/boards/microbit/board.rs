//! BBC micro:bit v1 (nRF51822, Cortex-M0 without FPU, 256 KB of flash, 16 KB of RAM), as QEMU emulates it.

use crate::chip::nrf::Uart;

/// The board.
pub struct Board;

impl crate::board::Board for Board {
    type Uart = Uart;

    fn start() -> u32 {
        16
    }

    /// P0.24 out, P0.25 in.
    fn uart(_mhz: u32) -> Uart {
        Uart::new(24, 25)
    }
}
