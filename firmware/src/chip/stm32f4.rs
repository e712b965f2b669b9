//! ST STM32F405, F407 and F446, with `stm32f4xx-hal`: PLL, flash wait states and caches, USART2.

use crate::wire::{BAUD, Wire};
use stm32f4xx_hal::gpio::Pull;
use stm32f4xx_hal::pac::{Peripherals, USART2};
use stm32f4xx_hal::prelude::*;
use stm32f4xx_hal::rcc::Config;
use stm32f4xx_hal::serial;

/// Starts the chip at 168 MHz from its internal oscillator, and USART2 on PA2 (output) and PA3 (input). Returns the frequency in
/// MHz and the UART. 168 MHz is the highest frequency that all three chips support without over-drive.
///
/// # Panics
/// Panics if it is called twice.
pub fn start() -> (u32, Uart) {
    let chip = Peripherals::take().expect("called once");
    let mut rcc = chip.RCC.freeze(Config::hsi().sysclk(168.MHz()));
    let pins = chip.GPIOA.split(&mut rcc);
    let txd = pins.pa2.into_alternate();
    // The pull-up keeps noise from being mistaken for bytes if nothing is connected.
    let rxd = pins.pa3.into_alternate().internal_resistor(Pull::Up);
    let config = serial::Config::default().baudrate(BAUD.bps());
    let uart = chip.USART2.serial((txd, rxd), config, &mut rcc);
    let uart = uart.expect("the clock divides into this rate");
    (rcc.clocks.sysclk().to_MHz(), Uart(uart))
}

/// USART2.
pub struct Uart(serial::Serial<USART2>);

impl Wire for Uart {
    fn read(&mut self) -> Option<u8> {
        // An overrun or a bit error loses a byte, which the frame's checksum detects.
        self.0.read().ok()
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        match bytes {
            [byte, ..] if self.0.write(*byte).is_ok() => 1,
            _ => 0,
        }
    }
}
