//! Arm MPS2 with FPGA image AN500 (Cortex-M7), as QEMU emulates it: 25 MHz.

use crate::chip::cmsdk::Uart;
use crate::reg::Peripheral;

/// The board.
pub struct Board;

impl crate::board::Board for Board {
    type Uart = Uart;

    fn start() -> u32 {
        25
    }

    fn uart(_mhz: u32) -> Uart {
        // SAFETY: UART0 of this board, by QEMU's memory map.
        Uart::new(unsafe { Peripheral::at(0x4000_4000) })
    }
}
