//! Raspberry Pi Pico (RP2040, Cortex-M0+): needs a debug probe, whose serial port goes to GP0 and GP1.

use crate::chip::rp::{self, Uart};

/// The second stage of the boot loader, which the boot ROM copies to RAM and runs: it makes the flash readable in place.
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
