//! ST NUCLEO-F446RE (Cortex-M4F). The board has a debug probe and a serial port.

use crate::chip::stm32f4::{self, Uart};

/// The board.
pub struct Board;

impl crate::board::Board for Board {
    type Uart = Uart;

    fn start() -> (u32, Uart) {
        stm32f4::start()
    }
}
