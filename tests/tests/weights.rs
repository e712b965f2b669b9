//! Checks that weights files that are truncated, damaged or made for another network are rejected with the right error.
//!
//! That every change of a single byte is rejected is shown in two ways. First, `view` itself is called: for
//! all 255 changes of each byte before the parameters, for nine changes of each byte after them, and for one change of every eighth
//! parameter. Second, an argument covers all 45 million
//! changes of a byte. A CRC is linear over GF(2), so changing byte `p` by `d` changes the checksum by a value that depends only
//! on `p` and `d`, and that is the exclusive or of the values for the bits of `d`. If the values for the eight bits are linearly
//! independent at each position, every change of a byte changes the checksum.

use crc::{CRC_32_ISO_HDLC, Crc};
use lenet_core::network::{FINGERPRINT, NAME, NUM_PARAMS, Net, Params, TENSORS};
use lenet_core::weights::{PARAMS_OFFSET, WeightsError, encode, max_len, view};
use lenet_test_support::generate::{Kind, METADATA, array};
use rand_chacha::rand_core::Rng;
use rayon::prelude::*;
use trainer::dataset::generator;

const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);
const MAX_LEN: usize = max_len::<Net>();
const PARAMS_END: usize = PARAMS_OFFSET + size_of::<Params>();

#[derive(Clone)]
#[repr(align(4))]
struct Aligned([u8; MAX_LEN]);

/// Returns a file in an aligned buffer, and its length.
fn file() -> (Box<Aligned>, usize) {
    let mut buffer = Box::new(Aligned([0; MAX_LEN]));
    let params = array::<Params>(Kind::Random, 0);
    let len = encode::<Net>(&params, &METADATA, &mut buffer.0)
        .unwrap()
        .len();
    (buffer, len)
}

/// Returns the error for the file after `change`. If `seal` is set, the checksum is corrected first.
fn refusal(seal: bool, change: impl FnOnce(&mut [u8])) -> String {
    let (mut buffer, len) = file();
    change(&mut buffer.0[..len]);
    if seal {
        let crc = CRC.checksum(&buffer.0[..len - 4]).to_le_bytes();
        buffer.0[len - 4..len].copy_from_slice(&crc);
    }
    view::<Net>(&buffer.0[..len]).unwrap_err().to_string()
}

#[test]
fn the_first_bytes_are_literal() {
    let (buffer, _) = file();
    assert_eq!(buffer.0[..8], *b"LNET\x02\0\0\0");
    assert_eq!(buffer.0[8..16], FINGERPRINT.to_le_bytes());
    assert_eq!(buffer.0[16..20], (4 * NUM_PARAMS as u32).to_le_bytes());
    let (name, rest) = buffer.0[20..PARAMS_OFFSET].split_at(NAME.len());
    assert_eq!(name, NAME.as_bytes());
    assert!(rest.iter().all(|&byte| byte == 0));
    let first = array::<Params>(Kind::Random, 0).as_flat()[0];
    assert_eq!(buffer.0[PARAMS_OFFSET..][..4], first.to_le_bytes());
    let text = String::from_utf8_lossy(&buffer.0[PARAMS_END..]);
    assert!(text.contains("\x02\x01a\nankle boot\x07letters"), "{text}");
}

#[test]
fn each_fault_has_its_own_message() {
    let (buffer, len) = file();
    let refused = |bytes: &[u8]| view::<Net>(bytes).unwrap_err().to_string();

    assert_eq!(refused(b""), "truncated: ends after 0 bytes");
    assert_eq!(
        refused(&buffer.0[..len - 1]),
        format!("truncated: ends after {} bytes", len - 1)
    );
    assert_eq!(
        refused(b"{\"a\": 1}"),
        "not a LeNet weights file (starts with 7b 22 61 22)"
    );
    assert_eq!(
        refusal(true, |file| file[4] = 1),
        "file format 1, this program reads 2"
    );
    assert_eq!(
        refusal(true, |file| file[5] = 9),
        "its parameters are numbers of kind 9, this program reads f32"
    );
    assert_eq!(
        refusal(true, |file| file[8] ^= 0xff),
        format!(
            "its layers are not those of this program's network `{NAME}`, although the name is the same: \
             the file is damaged, or the description has changed since"
        )
    );
    let other = refusal(true, |file| {
        file[8] ^= 0xff;
        file[20..52].fill(0);
        file[20..25].copy_from_slice(b"other");
    });
    assert_eq!(
        other,
        format!(
            "a file of the network `other`, this program is built for `{NAME}`; build it with LENET_NETWORK=other (or the path of its description)"
        )
    );
    assert_eq!(
        refusal(true, |file| file[16] ^= 1),
        format!(
            "{} bytes of parameters, expected {}",
            4 * NUM_PARAMS + 1,
            4 * NUM_PARAMS
        )
    );
    // The first byte of the description is no longer valid UTF-8.
    assert_eq!(
        refusal(true, |file| file[PARAMS_END + 2] = 0xff),
        "class names or provenance cannot be decoded"
    );
    let bias = &TENSORS[1];
    assert_eq!(
        refusal(true, |file| file[PARAMS_OFFSET + 4 * (bias.offset + 1)..]
            [..4]
            .copy_from_slice(&f32::NAN.to_le_bytes())),
        format!("{}[1] is NaN or infinite", bias.name)
    );
    assert_eq!(
        refused(&buffer.0[..len + 2]),
        "2 bytes follow the end of the file"
    );

    let mut shifted = buffer.clone();
    shifted.0.copy_within(..len, 1);
    assert_eq!(
        refused(&shifted.0[1..][..len]),
        "does not start on a multiple of four bytes"
    );

    let stored = u32::from_le_bytes(buffer.0[len - 4..len].try_into().unwrap());
    assert_eq!(
        refusal(false, |file| file[len - 4..].fill(0)),
        format!("damaged: checksum {stored:08x}, stored 00000000")
    );
}

#[test]
fn every_truncation_is_refused() {
    let (buffer, len) = file();
    (0..len).into_par_iter().for_each(|end| {
        assert_eq!(
            view::<Net>(&buffer.0[..end]),
            Err(WeightsError::Truncated { found: end })
        );
    });
}

/// Calls `check` for each position, with a generator seeded by the position and a copy of the file, which it may change but must
/// restore.
fn for_positions(
    positions: impl IndexedParallelIterator<Item = usize>,
    check: impl Fn(usize, &mut [u8]) + Sync,
) {
    let (buffer, len) = file();
    positions.for_each_init(
        || buffer.clone(),
        |buffer, position| check(position, &mut buffer.0[..len]),
    );
}

#[test]
fn a_change_of_a_byte_around_the_parameters_is_refused() {
    let (_, len) = file();
    let around: Vec<usize> = (0..PARAMS_OFFSET).chain(PARAMS_END..len).collect();
    for_positions(around.into_par_iter(), |position, file| {
        let every: Vec<u8> = (1..=255).collect();
        let flips = [1, 2, 4, 8, 16, 32, 64, 128, 255];
        let changes = if position < PARAMS_OFFSET {
            &every[..]
        } else {
            &flips
        };
        for &change in changes {
            file[position] ^= change;
            assert!(
                view::<Net>(file).is_err(),
                "byte {position} ^ {change:#04x}"
            );
            file[position] ^= change;
        }
    });
}

#[test]
fn a_change_of_a_parameter_is_refused() {
    let parameters: Vec<usize> = (PARAMS_OFFSET..PARAMS_END).step_by(8 * 4).collect();
    for_positions(parameters.into_par_iter(), |position, file| {
        let random = generator(1, position as u64).next_u32();
        let (position, change) = (position + (random >> 30) as usize, (random % 255 + 1) as u8);
        file[position] ^= change;
        assert!(
            matches!(view::<Net>(file), Err(WeightsError::Checksum { .. })),
            "byte {position} ^ {change:#04x}"
        );
        file[position] ^= change;
    });
}

/// For each bit of a byte, the change of the checksum if this bit is flipped and a number of bytes follow.
struct Syndromes {
    table: [u32; 256],
    bits: [u32; 8],
}

impl Syndromes {
    fn at_the_end() -> Self {
        // The table of the CRC, derived from the checksums of single bytes.
        let table = std::array::from_fn(|byte| CRC.checksum(&[byte as u8]) ^ CRC.checksum(&[0]));
        let bits = std::array::from_fn(|bit| table[1 << bit]);
        Self { table, bits }
    }

    /// Moves one byte further away from the end of the file.
    fn step(&mut self) {
        for bits in &mut self.bits {
            *bits = self.table[(*bits & 0xff) as usize] ^ (*bits >> 8);
        }
    }

    /// Returns the change of the checksum for any change of the byte.
    fn of(&self, change: u8) -> u32 {
        (0..8)
            .filter(|bit| change >> bit & 1 == 1)
            .fold(0, |sum, bit| sum ^ self.bits[bit])
    }

    /// Returns whether the eight values are linearly independent, by elimination over GF(2).
    fn are_independent(&self) -> bool {
        let mut rows = self.bits;
        for i in 0..rows.len() {
            if rows[i] == 0 {
                return false;
            }
            let pivot = 1 << rows[i].trailing_zeros();
            for j in i + 1..rows.len() {
                if rows[j] & pivot != 0 {
                    rows[j] ^= rows[i];
                }
            }
        }
        true
    }
}

/// Covers all 255 changes of each byte of the file, which include all single-bit flips.
#[test]
fn every_change_of_a_byte_changes_the_checksum() {
    let (mut buffer, len) = file();
    let covered = len - 4;
    let mut syndromes = Syndromes::at_the_end();
    let (mut positions, mut flips) = (0, 0);
    for position in (0..covered).rev() {
        assert!(syndromes.are_independent(), "byte {position}");
        positions += 1;
        if (PARAMS_OFFSET..PARAMS_END).contains(&position) {
            assert!(syndromes.bits.iter().all(|&bits| bits != 0));
            flips += syndromes.bits.len();
        }
        // Verify the argument with the real checksum at some positions.
        if position % 499 == 0 && (PARAMS_OFFSET..PARAMS_END).contains(&position) {
            let change = (generator(2, position as u64).next_u32() % 255 + 1) as u8;
            buffer.0[position] ^= change;
            match view::<Net>(&buffer.0[..len]) {
                Err(WeightsError::Checksum { stored, computed }) => {
                    assert_eq!(stored ^ computed, syndromes.of(change), "byte {position}");
                }
                other => panic!("byte {position} ^ {change:#04x}: {other:?}"),
            }
            buffer.0[position] ^= change;
        }
        syndromes.step();
    }
    assert_eq!((positions, flips), (covered, 8 * size_of::<Params>()));
}
