//! The UART of Arm's Cortex-M System Design Kit (CMSDK), which the MPS2 boards that QEMU emulates have.
//!
//! Source: Arm DDI 0479, section 4.3.

use crate::wire::Wire;
use core::ptr::with_exposed_provenance;
use vcell::VolatileCell;

const TX_FULL: u32 = 1;
const RX_FULL: u32 = 2;

#[repr(C)]
struct Registers {
    data: VolatileCell<u32>,
    state: VolatileCell<u32>,
    ctrl: VolatileCell<u32>,
    interrupts: VolatileCell<u32>,
    bauddiv: VolatileCell<u32>,
}

/// A CMSDK UART.
pub struct Uart(&'static Registers);

impl Uart {
    /// Sets up the UART whose registers start at an address.
    ///
    /// # Safety
    /// The machine must have a CMSDK UART at this address, and nothing else may use it.
    pub unsafe fn new(address: usize) -> Self {
        // SAFETY: the caller guarantees that these are the registers of a UART.
        let registers = unsafe { &*with_exposed_provenance::<Registers>(address) };
        registers.bauddiv.set(16); // the smallest divider, since emulated bytes take no time
        registers.ctrl.set(0b11); // transmitter and receiver on
        Self(registers)
    }
}

impl Wire for Uart {
    fn read(&mut self) -> Option<u8> {
        (self.0.state.get() & RX_FULL != 0).then(|| self.0.data.get() as u8)
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        match bytes {
            [byte, ..] if self.0.state.get() & TX_FULL == 0 => {
                self.0.data.set((*byte).into());
                1
            }
            _ => 0,
        }
    }
}
