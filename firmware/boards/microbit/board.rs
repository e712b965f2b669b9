//! BBC micro:bit v1 (nRF51822, Cortex-M0 without FPU, 256 KB of flash, 16 KB of RAM), as QEMU emulates it, at 16 MHz.

use crate::wire::Wire;
use nrf51_pac::{Peripherals, UART0};

/// The board.
pub struct Board;

impl crate::board::Board for Board {
    type Uart = Uart;

    /// The UART uses P0.24 (output) and P0.25 (input).
    fn start() -> (u32, Uart) {
        let uart = Peripherals::take().expect("called once").UART0;
        // SAFETY: this is a pin of the chip, and nothing else uses it.
        uart.pseltxd.write(|w| unsafe { w.bits(24) });
        // SAFETY: as above.
        uart.pselrxd.write(|w| unsafe { w.bits(25) });
        uart.baudrate.write(|w| w.baudrate().baud115200());
        uart.enable.write(|w| w.enable().enabled());
        // SAFETY: writing 1 to a task's register starts the task.
        uart.tasks_startrx.write(|w| unsafe { w.bits(1) });
        // SAFETY: as above.
        uart.tasks_starttx.write(|w| unsafe { w.bits(1) });
        (16, Uart { uart, idle: true })
    }
}

/// The UART without DMA.
pub struct Uart {
    uart: UART0,
    /// Whether nothing has been sent yet. The event that signals a ready transmitter occurs only after the first byte.
    idle: bool,
}

impl Wire for Uart {
    fn read(&mut self) -> Option<u8> {
        if self.uart.events_rxdrdy.read().bits() == 0 {
            return None;
        }
        self.uart.events_rxdrdy.reset();
        Some(self.uart.rxd.read().rxd().bits())
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        let [byte, ..] = bytes else { return 0 };
        if !self.idle && self.uart.events_txdrdy.read().bits() == 0 {
            return 0;
        }
        self.idle = false;
        self.uart.events_txdrdy.reset();
        // SAFETY: every byte is a valid value of this register.
        self.uart.txd.write(|w| unsafe { w.bits((*byte).into()) });
        1
    }
}
