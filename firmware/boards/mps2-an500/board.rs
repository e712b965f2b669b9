//! Arm MPS2 with FPGA image AN500 (Cortex-M7), as QEMU emulates it, at 25 MHz.

use crate::chip::cmsdk::Uart;

/// The board.
pub struct Board;

impl crate::board::Board for Board {
    type Uart = Uart;

    fn start() -> (u32, Uart) {
        // SAFETY: UART0 is at this address in QEMU's memory map, and `start` is called only once.
        let uart = unsafe { Uart::new(0x4000_4000) };
        (25, uart)
    }
}
