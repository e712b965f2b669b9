//! Arm MPS2 with FPGA image AN505 (Cortex-M33), as QEMU emulates it: 20 MHz.

use crate::chip::cmsdk::Uart;
use crate::reg::Peripheral;

/// The board.
pub struct Board;

impl crate::board::Board for Board {
    type Uart = Uart;

    fn start() -> u32 {
        20
    }

    fn uart(_mhz: u32) -> Uart {
        // SAFETY: UART0 of this board, by QEMU's memory map.
        Uart::new(unsafe { Peripheral::at(0x5020_0000) })
    }
}
