//! The one checksum of this crate, for weights files and frames: CRC-32 as in zip and PNG.

use crc::{CRC_32_ISO_HDLC, Crc};

/// A static, so that its table is in flash once.
pub(crate) static CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);
