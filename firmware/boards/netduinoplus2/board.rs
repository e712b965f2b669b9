//! Netduino Plus 2 (STM32F405, Cortex-M4F), as QEMU emulates it: at 168 MHz from the start, without a clock tree.

use crate::chip::stm32f4::Uart;

/// The board.
pub struct Board;

impl crate::board::Board for Board {
    type Uart = Uart;

    fn start() -> u32 {
        168
    }

    fn uart(mhz: u32) -> Uart {
        Uart::usart1(mhz)
    }
}
