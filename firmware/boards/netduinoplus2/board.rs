//! Netduino Plus 2 (STM32F405, Cortex-M4F), as QEMU emulates it, at 168 MHz from the start and without a clock tree.
//!
//! The HAL would wait for clocks that never start, so this board accesses the chip's registers directly.

use crate::wire::{BAUD, Wire};
use stm32f4xx_hal::pac::{Peripherals, USART1};

const MHZ: u32 = 168;

/// The board.
pub struct Board;

impl crate::board::Board for Board {
    type Uart = Uart;

    fn start() -> (u32, Uart) {
        let uart = Peripherals::take().expect("called once").USART1;
        // SAFETY: any divider is valid. The clock of this USART is half of the core's, the highest possible.
        uart.brr()
            .write(|w| unsafe { w.bits((MHZ * 1_000_000 / 2 / BAUD) as u16) });
        uart.cr1()
            .write(|w| w.ue().enabled().te().enabled().re().enabled());
        (MHZ, Uart(uart))
    }
}

/// USART1.
pub struct Uart(USART1);

impl Wire for Uart {
    fn read(&mut self) -> Option<u8> {
        let received = self.0.sr().read().rxne().bit_is_set();
        received.then(|| self.0.dr().read().dr().bits() as u8)
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        match bytes {
            [byte, ..] if self.0.sr().read().txe().bit_is_set() => {
                self.0.dr().write(|w| w.dr().set((*byte).into()));
                1
            }
            _ => 0,
        }
    }
}
