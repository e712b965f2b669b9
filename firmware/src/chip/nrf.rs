//! Nordic nRF51 and nRF52: clock, access port and the plain UART, whose registers both families share.
//!
//! Source: nRF51 Reference Manual 3.0 and nRF52833/nRF52840 Product Specifications, chapters CLOCK, UART, NVMC, UICR.

use crate::link::ByteLink;
use crate::reg::Peripheral;

// SAFETY: CLOCK (and on nRF52 APPROTECT) of every chip of these families.
const CLOCK: Peripheral = unsafe { Peripheral::at(0x4000_0000) };
// SAFETY: UART0.
const UART: Peripheral = unsafe { Peripheral::at(0x4000_2000) };
// SAFETY: the flash controller.
const NVMC: Peripheral = unsafe { Peripheral::at(0x4001_e000) };
// SAFETY: factory information, read-only.
const FICR: Peripheral = unsafe { Peripheral::at(0x1000_0000) };
// SAFETY: user configuration, written only in `keep_debug_open`.
const UICR: Peripheral = unsafe { Peripheral::at(0x1000_1000) };

const HFCLKSTART: u16 = 0x000;
const HFCLKSTARTED: u16 = 0x100;

const STARTRX: u16 = 0x000;
const STARTTX: u16 = 0x008;
const RXDRDY: u16 = 0x108;
const TXDRDY: u16 = 0x11c;
const ERRORSRC: u16 = 0x480;
const ENABLE: u16 = 0x500;
const PSEL_TXD: u16 = 0x50c;
const PSEL_RXD: u16 = 0x514;
const RXD: u16 = 0x518;
const TXD: u16 = 0x51c;
const BAUDRATE: u16 = 0x524;

/// Frequency of an nRF52's core.
pub const NRF52_MHZ: u32 = 64;

/// Starts an nRF52: debug port, crystal, instruction cache. Returns the core's frequency in MHz, which is the same from
/// the crystal and from the internal oscillator; only the UART is better off with the crystal.
///
/// `sealed_since` is the build code from which the chip locks its debug port at reset: `B` for nRF52833, `F` for nRF52840.
pub fn start_nrf52(sealed_since: u8) -> u32 {
    if (FICR.read(0x104) >> 8) as u8 >= sealed_since {
        keep_debug_open();
    }
    CLOCK.write(HFCLKSTARTED, 0);
    CLOCK.write(HFCLKSTART, 1);
    if !CLOCK.wait(HFCLKSTARTED, 1, 1) {
        crate::info!("the crystal did not start: going on with the internal oscillator");
    }
    NVMC.write(0x540, 1); // ICACHECNF: off after reset, and flash has wait states
    NRF52_MHZ
}

/// Newer chips lock their debug port at every reset unless both the flash and the program say otherwise.
fn keep_debug_open() {
    const OPEN: u32 = 0x5a;
    const UICR_APPROTECT: u16 = 0x208;
    if UICR.read(UICR_APPROTECT) == u32::MAX {
        NVMC.write(0x504, 1); // CONFIG: write enable
        if NVMC.wait(0x400, 1, 1) {
            UICR.write(UICR_APPROTECT, 0xffff_ff00 | OPEN);
            NVMC.wait(0x400, 1, 1);
        }
        NVMC.write(0x504, 0);
    }
    CLOCK.write(0x558, OPEN); // APPROTECT.DISABLE
}

/// The UART without DMA.
pub struct Uart(());

impl Uart {
    /// Sets it up on two pins, numbered `32 * port + pin`.
    pub fn new(txd: u32, rxd: u32) -> Self {
        UART.write(PSEL_TXD, txd);
        UART.write(PSEL_RXD, rxd);
        UART.write(BAUDRATE, 0x01d7_e000); // 115,200
        UART.write(ENABLE, 4);
        UART.write(STARTRX, 1);
        UART.write(STARTTX, 1);
        Self(())
    }
}

impl ByteLink for Uart {
    fn read(&mut self) -> Option<u8> {
        UART.write(ERRORSRC, u32::MAX); // an overrun must not stop reception; the frame's checksum finds it
        if UART.read(RXDRDY) == 0 {
            return None;
        }
        UART.write(RXDRDY, 0);
        Some(UART.read(RXD) as u8)
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            UART.write(TXDRDY, 0);
            UART.write(TXD, byte.into());
            if !UART.wait(TXDRDY, 1, 1) {
                return;
            }
        }
    }
}
