//! The UART of Arm's Cortex-M System Design Kit, in the MPS2 boards that QEMU emulates.
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
    /// The machine has a CMSDK UART there, and nothing else uses it.
    pub unsafe fn new(address: usize) -> Self {
        // SAFETY: these are device registers, by the contract of this function.
        let registers = unsafe { &*with_exposed_provenance::<Registers>(address) };
        registers.bauddiv.set(16); // the smallest: emulated bytes take no time
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
