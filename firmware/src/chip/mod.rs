//! Clocks and UARTs of the chips, one file a family; a board says which and with which pins.

pub mod cmsdk;
pub mod nrf;
pub mod rp2350;
pub mod stm32f4;

/// Bits per second of every UART; 8 data bits, no parity, 1 stop bit.
pub const BAUD: u32 = 115_200;
