//! Raspberry Pi Pico (RP2040, Cortex-M0+). It needs a debug probe, whose serial port you connect to GP0 and GP1.

use crate::chip::rp::{self, Uart};

/// The second stage of the boot loader. The boot ROM copies it to RAM and runs it. It enables execution from flash.
#[unsafe(link_section = ".boot2")]
#[used]
static BOOT2: [u8; 256] = rp2040_boot2::BOOT_LOADER_W25Q080;

/// The board.
pub struct Board;

impl crate::board::Board for Board {
    type Uart = Uart;

    fn start() -> (u32, Uart) {
        rp::start()
    }
}
