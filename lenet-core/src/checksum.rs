//! The checksum of weights files and frames: CRC-32 as in zip and PNG.

use crate::ops::SMALL;
use crc::{CRC_32_ISO_HDLC, Crc, Table};

/// The number of lookup tables, each of 1 KB. A microcontroller has none, because flash is scarce there. Without a table the
/// checksum takes more instructions per byte, but a program checks its weights once.
const TABLES: usize = if SMALL { 0 } else { 1 };

/// The CRC. It is a static, so that a program holds only one copy of the table.
pub(crate) static CRC: Crc<u32, Table<TABLES>> = Crc::<u32, Table<TABLES>>::new(&CRC_32_ISO_HDLC);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_do_not_affect_the_checksum() {
        // The value that the catalogue of checksums states for these bytes.
        let (bytes, expected) = (b"123456789", 0xcbf4_3926);
        assert_eq!(CRC.checksum(bytes), expected);
        let without = Crc::<u32, Table<0>>::new(&CRC_32_ISO_HDLC);
        assert_eq!(without.checksum(bytes), expected);
        let all: [u8; 256] = core::array::from_fn(|n| n as u8);
        assert_eq!(CRC.checksum(&all), without.checksum(&all));
    }
}
