//! STM32VLDISCOVERY (STM32F100, Cortex-M3 without FPU, 128 KB of flash, 8 KB of RAM), as QEMU emulates it: at 24 MHz from the
//! start, without a clock tree.
//!
//! Source of the UART's registers: ST RM0041, section 23.6.

use crate::wire::{BAUD, Wire};
use core::ptr::with_exposed_provenance;
use vcell::VolatileCell;

const MHZ: u32 = 24;
const USART1: usize = 0x4001_3800;
const RECEIVED: u32 = 1 << 5;
const TRANSMITTER_EMPTY: u32 = 1 << 7;
/// Enables the UART, its transmitter and its receiver.
const ON: u32 = 1 << 13 | 1 << 3 | 1 << 2;

/// The board.
pub struct Board;

impl crate::board::Board for Board {
    type Uart = Uart;

    fn start() -> (u32, Uart) {
        // SAFETY: these are device registers of this board, and `start` is called once.
        let uart = unsafe { &*with_exposed_provenance::<Registers>(USART1) };
        uart.divider.set(MHZ * 1_000_000 / BAUD);
        uart.control.set(ON);
        (MHZ, Uart(uart))
    }
}

#[repr(C)]
struct Registers {
    status: VolatileCell<u32>,
    data: VolatileCell<u32>,
    divider: VolatileCell<u32>,
    control: VolatileCell<u32>,
}

/// USART1.
pub struct Uart(&'static Registers);

impl Wire for Uart {
    fn read(&mut self) -> Option<u8> {
        (self.0.status.get() & RECEIVED != 0).then(|| self.0.data.get() as u8)
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        match bytes {
            [byte, ..] if self.0.status.get() & TRANSMITTER_EMPTY != 0 => {
                self.0.data.set((*byte).into());
                1
            }
            _ => 0,
        }
    }
}
