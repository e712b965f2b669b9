//! Raspberry Pi RP2040 and RP2350, with `rp2040-hal` and `rp235x-hal`: crystal, PLLs, UART0. The second core stays asleep.

use crate::wire::{BAUD, Wire};
#[cfg(feature = "rp235x")]
use rp235x_hal as hal;
#[cfg(feature = "rp2040")]
use rp2040_hal as hal;

use hal::Clock;
use hal::clocks::init_clocks_and_plls;
use hal::fugit::RateExtU32;
use hal::gpio::bank0::{Gpio0, Gpio1};
use hal::gpio::{FunctionUart, Pin, Pins, PullNone, PullUp};
use hal::uart::{DataBits, Enabled, StopBits, UartConfig, UartPeripheral};
use hal::{Sio, Watchdog, pac};

/// The frequency of the crystal on both boards.
const XTAL_HZ: u32 = 12_000_000;

type Wires = (
    Pin<Gpio0, FunctionUart, PullNone>,
    Pin<Gpio1, FunctionUart, PullUp>,
);

/// Starts the chip at its nominal frequency, 125 MHz or 150 MHz, from the crystal, and UART0 on GP0 (output) and GP1 (input),
/// the pins for the debug probe's UART. Returns the frequency in MHz and the UART.
///
/// # Panics
/// Panics if it is called twice.
pub fn start() -> (u32, Uart) {
    let mut chip = pac::Peripherals::take().expect("called once");
    let mut watchdog = Watchdog::new(chip.WATCHDOG);
    let clocks = init_clocks_and_plls(
        XTAL_HZ,
        chip.XOSC,
        chip.CLOCKS,
        chip.PLL_SYS,
        chip.PLL_USB,
        &mut chip.RESETS,
        &mut watchdog,
    );
    let clocks = clocks.expect("the crystal's rate suits both PLLs");
    let pins = Pins::new(
        chip.IO_BANK0,
        chip.PADS_BANK0,
        Sio::new(chip.SIO).gpio_bank0,
        &mut chip.RESETS,
    );
    // The input has a pull-up, so that noise is not mistaken for bytes if nothing is connected.
    let wires = (pins.gpio0.reconfigure(), pins.gpio1.reconfigure());
    let config = UartConfig::new(BAUD.Hz(), DataBits::Eight, None, StopBits::One);
    let uart = UartPeripheral::new(chip.UART0, wires, &mut chip.RESETS)
        .enable(config, clocks.peripheral_clock.freq())
        .expect("the clock divides into this rate");
    (clocks.system_clock.freq().to_MHz(), Uart(uart))
}

/// UART0.
pub struct Uart(UartPeripheral<Enabled, pac::UART0, Wires>);

impl Wire for Uart {
    fn read(&mut self) -> Option<u8> {
        let mut byte = [0];
        // An overrun or a bit error loses a byte, which the frame's checksum detects.
        matches!(self.0.read_raw(&mut byte), Ok(1)).then_some(byte[0])
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        self.0
            .write_raw(bytes)
            .map_or(0, |rest| bytes.len() - rest.len())
    }
}
