//! Raspberry Pi Pico 2 (RP2350, Cortex-M33). It needs a debug probe, whose serial port you connect to GP0 and GP1.

use crate::chip::rp::{self, Uart};
use rp235x_hal::block::ImageDef;

/// Tells the boot ROM that this flash holds an executable for the Arm cores in the secure state.
#[unsafe(link_section = ".start_block")]
#[used]
static IMAGE_DEFINITION: ImageDef = ImageDef::secure_exe();

/// The board.
pub struct Board;

impl crate::board::Board for Board {
    type Uart = Uart;

    fn start() -> (u32, Uart) {
        rp::start()
    }
}
