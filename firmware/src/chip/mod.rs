//! Starts the clocks and a UART of each family of chips. A board selects the family and the pins.
//!
//! Real chips use a hardware abstraction layer (HAL). `boards/README.md` lists the HALs and the reasons for them.

#[cfg(feature = "cmsdk")]
pub mod cmsdk;
#[cfg(feature = "nrf52")]
pub mod nrf52;
#[cfg(any(feature = "rp2040", feature = "rp235x"))]
pub mod rp;
#[cfg(feature = "stm32f4")]
pub mod stm32f4;
