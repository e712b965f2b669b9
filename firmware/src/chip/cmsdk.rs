//! The UART of Arm's Cortex-M System Design Kit, in the MPS2 boards that QEMU emulates.
//!
//! Source: Arm DDI 0479, section 4.3.

use crate::link::ByteLink;
use crate::reg::Peripheral;

const DATA: u16 = 0x00;
const STATE: u16 = 0x04;
const CTRL: u16 = 0x08;
const BAUDDIV: u16 = 0x10;
const TX_FULL: u32 = 1;
const RX_FULL: u32 = 2;

/// A CMSDK UART.
pub struct Uart(Peripheral);

impl Uart {
    /// Sets up the UART at `registers`.
    pub fn new(registers: Peripheral) -> Self {
        registers.write(BAUDDIV, 16); // the smallest: emulated bytes take no time
        registers.write(CTRL, 0b11); // transmitter and receiver on
        Self(registers)
    }
}

impl ByteLink for Uart {
    fn read(&mut self) -> Option<u8> {
        (self.0.read(STATE) & RX_FULL != 0).then(|| self.0.read(DATA) as u8)
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if !self.0.wait(STATE, TX_FULL, 0) {
                return;
            }
            self.0.write(DATA, byte.into());
        }
    }
}
