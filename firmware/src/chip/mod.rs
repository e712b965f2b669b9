//! How each family of chips starts its clocks and a UART; a board names the family and the pins.
//!
//! For real chips this is the work of their hardware abstraction layers. `boards/README.md` says which, and why.

#[cfg(feature = "cmsdk")]
pub mod cmsdk;
#[cfg(feature = "nrf52")]
pub mod nrf52;
#[cfg(any(feature = "rp2040", feature = "rp235x"))]
pub mod rp;
#[cfg(feature = "stm32f4")]
pub mod stm32f4;
