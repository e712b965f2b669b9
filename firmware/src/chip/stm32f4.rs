//! STM32F405, F407 and F446: the PLL and a USART.
//!
//! Source: ST RM0090 and RM0390, chapters RCC, FLASH, GPIO, USART.

use super::BAUD;
use crate::link::ByteLink;
use crate::reg::Peripheral;

// SAFETY: the reset and clock controller.
const RCC: Peripheral = unsafe { Peripheral::at(0x4002_3800) };
// SAFETY: the flash interface; only its wait states and caches are set.
const FLASH: Peripheral = unsafe { Peripheral::at(0x4002_3c00) };
// SAFETY: port A; only the UART's pins are set.
const GPIOA: Peripheral = unsafe { Peripheral::at(0x4002_0000) };
// SAFETY: USART2.
const USART2: Peripheral = unsafe { Peripheral::at(0x4000_4400) };
// SAFETY: USART1.
const USART1: Peripheral = unsafe { Peripheral::at(0x4001_1000) };

const CR: u16 = 0x00;
const PLLCFGR: u16 = 0x04;
const CFGR: u16 = 0x08;
const AHB1ENR: u16 = 0x30;
const APB1ENR: u16 = 0x40;
const APB2ENR: u16 = 0x44;
const PLLON: u32 = 1 << 24;
const PLLRDY: u32 = 1 << 25;

/// Frequency after reset, from the internal oscillator.
const HSI_MHZ: u32 = 16;
/// What the PLL makes of it: the most that all three chips run at without over-drive.
const PLL_MHZ: u32 = 168;

/// Sets the PLL up from the internal oscillator, 168 MHz, or says that it did not lock and stays at 16. Returns the
/// frequency in MHz.
pub fn start() -> u32 {
    // M = 16, N = 336, P = 2, Q = 7; R = 2 matters only on the F446.
    RCC.write(PLLCFGR, 2 << 28 | 7 << 24 | 336 << 6 | 16);
    RCC.modify(CR, PLLON, PLLON);
    if !RCC.wait(CR, PLLRDY, PLLRDY) {
        RCC.modify(CR, PLLON, 0);
        crate::info!("the PLL did not lock: going on at {} MHz", HSI_MHZ);
        return HSI_MHZ;
    }
    FLASH.write(0x00, 0b111 << 8 | 5); // prefetch, both caches, 5 wait states
    RCC.modify(CFGR, 0xfcf0, 0b100 << 13 | 0b101 << 10); // APB2 / 2, APB1 / 4, AHB / 1
    RCC.modify(CFGR, 0b11, 0b10); // the PLL
    if !RCC.wait(CFGR, 0b1100, 0b1000) {
        crate::info!("the PLL is not taken: going on at {} MHz", HSI_MHZ);
        return HSI_MHZ;
    }
    PLL_MHZ
}

const SR: u16 = 0x00;
const DR: u16 = 0x04;
const BRR: u16 = 0x08;
const CR1: u16 = 0x0c;
const RXNE: u32 = 1 << 5;
const TXE: u32 = 1 << 7;

/// A USART.
pub struct Uart(Peripheral);

impl Uart {
    /// USART2 on PA2 (out) and PA3 (in), which the Nucleo's probe carries.
    pub fn usart2(mhz: u32) -> Self {
        RCC.modify(AHB1ENR, 1, 1);
        RCC.modify(APB1ENR, 1 << 17, 1 << 17);
        GPIOA.modify(0x00, 0b1111 << 4, 0b1010 << 4); // MODER: alternate function
        GPIOA.modify(0x20, 0xff << 8, 0x77 << 8); // AFRL: AF7
        Self::set_up(USART2, if mhz == PLL_MHZ { mhz / 4 } else { mhz })
    }

    /// USART1 without pins, for an emulator.
    pub fn usart1(mhz: u32) -> Self {
        RCC.modify(APB2ENR, 1 << 4, 1 << 4);
        Self::set_up(USART1, if mhz == PLL_MHZ { mhz / 2 } else { mhz })
    }

    fn set_up(usart: Peripheral, bus_mhz: u32) -> Self {
        usart.write(BRR, (bus_mhz * 1_000_000 + BAUD / 2) / BAUD);
        usart.write(CR1, 1 << 13 | 1 << 3 | 1 << 2); // on, transmitter, receiver
        Self(usart)
    }
}

impl ByteLink for Uart {
    fn read(&mut self) -> Option<u8> {
        // Reading SR, then DR, also clears an overrun; the frame's checksum finds it.
        (self.0.read(SR) & RXNE != 0).then(|| self.0.read(DR) as u8)
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if !self.0.wait(SR, TXE, TXE) {
                return;
            }
            self.0.write(DR, byte.into());
        }
    }
}
