//! ST STM32F4DISCOVERY (STM32F407VG, Cortex-M4F). The board has a debug probe; PA2 and PA3 can connect to a serial adapter.

use crate::chip::stm32f4::{self, Uart};

/// The board.
pub struct Board;

impl crate::board::Board for Board {
    type Uart = Uart;

    fn start() -> (u32, Uart) {
        stm32f4::start()
    }
}
