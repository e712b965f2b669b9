//! RTT: buffers in RAM that a debug probe reads and writes while the program runs.
//!
//! Channel 0 carries the log, channel 1 the link. The log's channel is handed over to defmt's logger, which is its only
//! user from then on. The probe chooses whether a full log buffer blocks: `probe-rs run` asks for blocking, so its log is
//! complete, and takes that back when it ends. Without a probe the log never blocks, and what does not fit is dropped.

use crate::wire::Wire;
use rtt_target::{ChannelMode, DownChannel, UpChannel};

/// Bytes of RAM that the log's buffer takes.
pub const LOG_BYTES: usize = 4096;
/// Bytes of RAM that each direction of the link takes.
const LINK_BYTES: usize = 1024;

/// The link's channels.
pub struct Rtt {
    up: UpChannel,
    down: DownChannel,
}

/// Sets both channels up. To be called once.
pub(crate) fn start() -> Rtt {
    let channels = rtt_target::rtt_init! {
        up: {
            0: { size: LOG_BYTES, name: "defmt" }
            1: { size: LINK_BYTES, name: "lenet" }
        }
        down: {
            0: { size: 16, name: "unused" }
            1: { size: LINK_BYTES, name: "lenet" }
        }
    };
    rtt_target::set_defmt_channel(channels.up.0);
    Rtt {
        up: channels.up.1,
        down: channels.down.1,
    }
}

impl Wire for Rtt {
    fn read(&mut self) -> Option<u8> {
        let mut byte = [0];
        (self.down.read(&mut byte) == 1).then_some(byte[0])
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        // A probe may have asked for blocking, but a wire never waits.
        self.up.set_mode(ChannelMode::NoBlockTrim);
        self.up.write(bytes)
    }
}
