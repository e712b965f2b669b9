//! ST STM32F4DISCOVERY (STM32F407VG, Cortex-M4F): probe on the board; a serial adapter can sit on PA2 and PA3.

use crate::chip::stm32f4::{self, Uart};

/// The board.
pub struct Board;

impl crate::board::Board for Board {
    type Uart = Uart;

    fn start() -> (u32, Uart) {
        stm32f4::start()
    }
}
