//! RP2350: crystal, system PLL and UART0. The second core and the RISC-V cores stay asleep.
//!
//! Source: RP2350 Datasheet, chapters 7 (resets), 8 (clocks), 9 (GPIO), 12.1 (UART).

use super::BAUD;
use crate::link::ByteLink;
use crate::reg::Peripheral;

// SAFETY: the reset controller.
const RESETS: Peripheral = unsafe { Peripheral::at(0x4002_0000) };
// SAFETY: the clock generators.
const CLOCKS: Peripheral = unsafe { Peripheral::at(0x4001_0000) };
// SAFETY: the crystal oscillator.
const XOSC: Peripheral = unsafe { Peripheral::at(0x4004_8000) };
// SAFETY: the system PLL.
const PLL: Peripheral = unsafe { Peripheral::at(0x4005_0000) };
// SAFETY: the functions of the pins.
const IO: Peripheral = unsafe { Peripheral::at(0x4002_8000) };
// SAFETY: the pads.
const PADS: Peripheral = unsafe { Peripheral::at(0x4003_8000) };
// SAFETY: UART0, a PL011.
const UART: Peripheral = unsafe { Peripheral::at(0x4007_0000) };

const CLK_REF_CTRL: u16 = 0x30;
const CLK_REF_SELECTED: u16 = 0x38;
const CLK_SYS_CTRL: u16 = 0x3c;
const CLK_SYS_SELECTED: u16 = 0x44;
const CLK_PERI_CTRL: u16 = 0x48;

/// About what the ring oscillator gives after boot; it is not calibrated.
const ROSC_MHZ: u32 = 11;
const XOSC_MHZ: u32 = 12;
const PLL_MHZ: u32 = 150;

/// Runs the core at 150 MHz from the crystal, or says which clock did not start and goes on with the one before.
/// Returns the frequency in MHz.
pub fn start() -> u32 {
    XOSC.write(0x00, 0xaa0); // CTRL: 1 to 15 MHz
    XOSC.write(0x0c, 47 * 64); // STARTUP: 64 ms, for crystals that start slowly
    XOSC.write(0x00, 0xfab_aa0); // enable
    // The wait is longer than one `wait`: at the ring oscillator's speed each is some 100 ms.
    if !(0..4).any(|_| XOSC.wait(0x04, 1 << 31, 1 << 31)) {
        crate::info!(
            "the crystal did not start: going on with the ring oscillator, about {} MHz",
            ROSC_MHZ
        );
        return ROSC_MHZ;
    }
    CLOCKS.write(CLK_REF_CTRL, 2);
    CLOCKS.wait(CLK_REF_SELECTED, 0b1111, 1 << 2);

    release(1 << 14);
    PLL.write(0x00, 1); // reference divider
    PLL.write(0x08, 125); // VCO 1,500 MHz
    PLL.modify(0x04, 1 << 5 | 1, 0); // power to the PLL and its VCO
    if !PLL.wait(0x00, 1 << 31, 1 << 31) {
        crate::info!("the PLL did not lock: going on at {} MHz", XOSC_MHZ);
        return XOSC_MHZ;
    }
    PLL.write(0x0c, 5 << 16 | 2 << 12); // 1,500 / 5 / 2
    PLL.modify(0x04, 1 << 3, 0); // power to the dividers
    CLOCKS.modify(CLK_SYS_CTRL, 0b111 << 5, 0); // auxiliary source: the PLL
    CLOCKS.modify(CLK_SYS_CTRL, 1, 1); // take it
    if !CLOCKS.wait(CLK_SYS_SELECTED, 0b11, 1 << 1) {
        crate::info!("the PLL is not taken: going on at {} MHz", XOSC_MHZ);
        return XOSC_MHZ;
    }
    PLL_MHZ
}

/// Takes peripherals out of reset.
fn release(mask: u32) {
    RESETS.modify(0x00, mask, 0);
    RESETS.wait(0x08, mask, mask);
}

/// UART0.
pub struct Uart(());

impl Uart {
    /// Sets it up on GP0 (out) and GP1 (in), the pins of the debug probe's UART.
    pub fn new(mhz: u32) -> Self {
        CLOCKS.write(CLK_PERI_CTRL, 1 << 11); // on, from the system clock
        release(1 << 6 | 1 << 9 | 1 << 26);
        for pin in 0..2 {
            PADS.write(4 + 4 * pin, 1 << 6 | 1 << 4); // input on, 4 mA; no longer isolated
            IO.write(8 * pin + 4, 2); // UART
        }
        let divider = (mhz * 1_000_000 * 4 + BAUD / 2) / BAUD; // in 64ths of 16 clocks
        UART.write(0x24, divider >> 6);
        UART.write(0x28, divider & 0x3f);
        UART.write(0x2c, 0b11 << 5 | 1 << 4); // 8 bits, FIFOs on
        UART.write(0x30, 1 << 9 | 1 << 8 | 1); // receiver, transmitter, on
        Self(())
    }
}

impl ByteLink for Uart {
    fn read(&mut self) -> Option<u8> {
        (UART.read(0x18) & 1 << 4 == 0).then(|| UART.read(0x00) as u8)
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if !UART.wait(0x18, 1 << 5, 0) {
                return;
            }
            UART.write(0x00, byte.into());
        }
    }
}
