//! Raspberry Pi Pico 2 (RP2350, Cortex-M33): needs a debug probe, whose serial port goes to GP0 and GP1.

use crate::chip::rp2350::{self, Uart};

/// Tells the boot ROM what this flash holds: an executable for the Arm cores in the secure state (RP2350 Datasheet,
/// chapter 5.9).
#[unsafe(link_section = ".start_block")]
#[used]
static IMAGE_DEFINITION: [u32; 5] = [
    0xffff_ded3, // start of a block
    0x1021_0142, // image type, one word: RP2350, Arm, secure, executable
    0x0000_01ff, // last item, after one word of items
    0,           // the next block is this one
    0xab12_3579, // end of the block
];

/// The board.
pub struct Board;

impl crate::board::Board for Board {
    type Uart = Uart;

    fn start() -> u32 {
        rp2350::start()
    }

    fn uart(mhz: u32) -> Uart {
        Uart::new(mhz)
    }
}
