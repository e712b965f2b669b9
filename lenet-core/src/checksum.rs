//! The checksum of weights files and frames: CRC-32 as in zip and PNG.

use crate::ops::SMALL;
use crc::{CRC_32_ISO_HDLC, Crc, Table};

/// The number of lookup tables, each of 1 KB. A microcontroller has none, because flash is scarce there. Without a table the
/// checksum takes more instructions per byte, but a program checks its weights once.
const TABLES: usize = if SMALL { 0 } else { 1 };

static CRC: Crc<u32, Table<TABLES>> = Crc::<u32, Table<TABLES>>::new(&CRC_32_ISO_HDLC);

/// Returns the checksum of the bytes of all parts, one after another.
// A program contains the loop over the bytes once, because this is not inlined.
#[inline(never)]
pub(crate) fn crc32(parts: &[&[u8]]) -> u32 {
    let mut digest = CRC.digest();
    for part in parts {
        digest.update(part);
    }
    digest.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_do_not_affect_the_checksum() {
        // The value that the catalogue of checksums states for these bytes.
        assert_eq!(crc32(&[b"123456789"]), 0xcbf4_3926);
        assert_eq!(crc32(&[b"1234", b"", b"56789"]), 0xcbf4_3926);
        let without = Crc::<u32, Table<0>>::new(&CRC_32_ISO_HDLC);
        let all: [u8; 256] = core::array::from_fn(|n| n as u8);
        assert_eq!(crc32(&[&all]), without.checksum(&all));
    }
}
