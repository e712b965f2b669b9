//! RTT (Real-Time Transfer): a debug probe reads and writes buffers in RAM while the program runs.
//!
//! Channel 0 carries the log, and channel 1 carries the link. Only defmt's logger uses the log's channel. The probe decides
//! whether writing to a full log buffer blocks: `probe-rs run` enables blocking while it runs, so its log is
//! complete. Without a probe the log never blocks, and messages that do not fit are dropped.

use crate::wire::Wire;
use rtt_target::{ChannelMode, DownChannel, UpChannel};

/// The size of the log's buffer in bytes of RAM.
pub const LOG_BYTES: usize = 4096;
/// The size of the link's buffer for each direction, in bytes of RAM.
const LINK_BYTES: usize = 1024;

/// The link's channels.
pub struct Rtt {
    up: UpChannel,
    down: DownChannel,
}

/// Sets up both channels. Call this function once.
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
        // The probe may have enabled blocking, but a wire must never wait.
        self.up.set_mode(ChannelMode::NoBlockTrim);
        self.up.write(bytes)
    }
}
