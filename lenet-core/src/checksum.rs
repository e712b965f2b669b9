//! The checksum of weights files and frames: CRC-32 as in zip and PNG.

use crc::{CRC_32_ISO_HDLC, Crc};

/// The CRC with its table. It is a static, so that flash holds only one copy of the table.
pub(crate) static CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);
