//! The weights file: a postcard message that is read in place.
//!
//! `WEIGHTS.md` defines the bytes; this module implements them. [`view`] checks everything a damaged or foreign file
//! could get wrong, then borrows the parameters from the file: no copy, no RAM, so the file can stay in flash.

use crate::arch::{self, CLASSES, FINGERPRINT, NUM_PARAMS, Params};
use crate::checksum::CRC;
use crate::network::Activations;
use crate::self_test;
use core::fmt;
use serde::{Deserialize, Serialize};

/// First bytes of every weights file.
pub const MAGIC: [u8; 4] = *b"LNET";
/// The format's version that this build writes and reads.
pub const VERSION: u8 = 1;
/// Where the parameters start, in bytes.
pub const PARAMS_OFFSET: usize = MAGIC.len() + 1 + 8 + PARAMS_PREFIX.len();
/// No file is longer than this, so that flash can be set aside for it: 176 KiB.
pub const MAX_LEN: usize = 176 * 1024;

const PARAMS_LEN: usize = size_of::<Params>();
const CHECKSUM_LEN: usize = 4;

/// Postcard's length in front of the parameters: a varint, seven bits a byte, least significant first.
const PARAMS_PREFIX: [u8; 3] = {
    assert!(
        PARAMS_LEN >= 1 << 14 && PARAMS_LEN < 1 << 21,
        "the length must take three bytes"
    );
    [
        PARAMS_LEN as u8 | 0x80,
        (PARAMS_LEN >> 7) as u8 | 0x80,
        (PARAMS_LEN >> 14) as u8,
    ]
};

const _: () = assert!(
    PARAMS_OFFSET.is_multiple_of(align_of::<Params>()),
    "the parameters must be aligned in the file"
);

/// Where the parameters come from. Strings may have any length that keeps the file within [`MAX_LEN`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Provenance<'a> {
    /// Name of the data set, such as `fashion-mnist`.
    pub dataset: &'a str,
    /// SHA-256 over two SHA-256: of the uncompressed IDX file of the training images, and of that of their labels.
    pub dataset_sha256: [u8; 32],
    /// SHA-256 of the parameters as they stand in the file: names this very model.
    pub params_sha256: [u8; 32],
    /// Seed of the initial parameters and of the order of images.
    pub seed: u64,
    /// Epochs trained.
    pub epochs: u32,
    /// Images a step.
    pub batch_size: u32,
    /// Learning rate of the first step.
    pub learning_rate: f32,
    /// Share of the test images classified correctly, by [`forward`](crate::network::forward); NaN if not measured.
    pub test_accuracy: f32,
    /// How it was trained, in words, such as `adam`.
    pub recipe: &'a str,
}

/// What a weights file says besides its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metadata<'a> {
    /// Names of the classes; empty where there are fewer than ten.
    #[serde(borrow)]
    pub classes: [&'a str; CLASSES],
    /// Where the parameters come from.
    pub provenance: Provenance<'a>,
}

/// A weights file that has passed every check, borrowed from its bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weights<'a> {
    /// The parameters, where they lie in the file.
    pub params: &'a Params,
    /// Class names and provenance.
    pub metadata: Metadata<'a>,
    /// Bits of the logits of the built-in test pattern, as the writer computed them; see [`self_test::check`].
    pub self_test: self_test::Vector,
    /// The file's checksum.
    pub crc: u32,
}

/// Why bytes are not a usable weights file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum WeightsError {
    /// The bytes end after `found`; the file goes on.
    Truncated {
        /// Bytes there are.
        found: usize,
    },
    /// The bytes are no weights file: it starts with other bytes.
    Magic {
        /// The first four bytes.
        found: [u8; 4],
    },
    /// Written in another version of the format.
    Version {
        /// That version.
        found: u8,
    },
    /// Trained for another architecture than [`arch`] describes.
    Architecture {
        /// The fingerprint of that architecture.
        found: u64,
    },
    /// Another number of bytes of parameters than [`Params`] has.
    Length {
        /// The bytes announced.
        found: usize,
    },
    /// The buffer does not start on a multiple of four bytes, so the parameters cannot be read in place.
    Alignment,
    /// Class names or provenance cannot be decoded.
    Metadata,
    /// The checksum differs: the file is damaged.
    Checksum {
        /// As stored at the end of the file.
        stored: u32,
        /// As computed over the file.
        computed: u32,
    },
    /// Bytes follow the checksum.
    TrailingBytes {
        /// How many.
        count: usize,
    },
    /// A parameter is NaN or infinite.
    NotFinite {
        /// Its index in [`Params::as_flat`]; [`arch::locate`] names the tensor.
        index: usize,
    },
}

impl fmt::Display for WeightsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Truncated { found } => write!(f, "truncated: ends after {found} bytes"),
            Self::Magic {
                found: [a, b, c, d],
            } => {
                write!(
                    f,
                    "not a LeNet weights file (starts with {a:02x} {b:02x} {c:02x} {d:02x})"
                )
            }
            Self::Version { found } => {
                write!(f, "file format {found}, this program reads {VERSION}")
            }
            Self::Architecture { found } => {
                write!(
                    f,
                    "trained for another architecture ({found:016x}, this program is {FINGERPRINT:016x})"
                )
            }
            Self::Length { found } => {
                write!(f, "{found} bytes of parameters, expected {PARAMS_LEN}")
            }
            Self::Alignment => write!(f, "does not start on a multiple of four bytes"),
            Self::Metadata => write!(f, "class names or provenance cannot be decoded"),
            Self::Checksum { stored, computed } => {
                write!(f, "damaged: checksum {computed:08x}, stored {stored:08x}")
            }
            Self::TrailingBytes { count } => write!(f, "{count} bytes follow the end of the file"),
            Self::NotFinite { index } => match arch::locate(index) {
                Some((tensor, element)) => {
                    write!(f, "{}[{element}] is NaN or infinite", tensor.name)
                }
                None => write!(f, "parameter {index} is NaN or infinite"),
            },
        }
    }
}

impl core::error::Error for WeightsError {}

/// Reads a weights file in place.
///
/// # Errors
/// See [`WeightsError`]: each damage by its name, found before any parameter is used.
pub fn view(bytes: &[u8]) -> Result<Weights<'_>, WeightsError> {
    match view_prefix(bytes)? {
        (weights, []) => Ok(weights),
        (_, rest) => Err(WeightsError::TrailingBytes { count: rest.len() }),
    }
}

/// As [`view`], of a file at the start of a larger region such as a section of flash; also returns what follows it.
///
/// # Errors
/// As [`view`], but for `TrailingBytes`.
#[inline(never)] // its stack is free again when the network runs
pub fn view_prefix(bytes: &[u8]) -> Result<(Weights<'_>, &[u8]), WeightsError> {
    let truncated = WeightsError::Truncated { found: bytes.len() };

    let (&magic, rest) = bytes.split_first_chunk().ok_or(truncated)?;
    if magic != MAGIC {
        return Err(WeightsError::Magic { found: magic });
    }
    let (&version, rest) = rest.split_first().ok_or(truncated)?;
    if version != VERSION {
        return Err(WeightsError::Version { found: version });
    }
    let (&fingerprint, rest) = rest.split_first_chunk().ok_or(truncated)?;
    let fingerprint = u64::from_le_bytes(fingerprint);
    if fingerprint != FINGERPRINT {
        return Err(WeightsError::Architecture { found: fingerprint });
    }
    if rest.len() < PARAMS_PREFIX.len() {
        return Err(truncated);
    }
    let (found, rest) = postcard::take_from_bytes::<u32>(rest)
        .map_err(|_| WeightsError::Length { found: usize::MAX })?;
    if found as usize != PARAMS_LEN {
        return Err(WeightsError::Length {
            found: found as usize,
        });
    }
    let (params, rest) = rest.split_at_checked(PARAMS_LEN).ok_or(truncated)?;
    // Piece by piece, as the fields stand: deserialising the structs whole would take three times the code and the stack.
    let mut rest = rest;
    let mut classes = [""; CLASSES];
    for class in &mut classes {
        *class = take(&mut rest, truncated)?;
    }
    let metadata = Metadata {
        classes,
        provenance: Provenance {
            dataset: take(&mut rest, truncated)?,
            dataset_sha256: take_bytes(&mut rest, truncated)?,
            params_sha256: take_bytes(&mut rest, truncated)?,
            seed: take(&mut rest, truncated)?,
            epochs: take(&mut rest, truncated)?,
            batch_size: take(&mut rest, truncated)?,
            learning_rate: take(&mut rest, truncated)?,
            test_accuracy: take(&mut rest, truncated)?,
            recipe: take(&mut rest, truncated)?,
        },
    };
    let self_test: self_test::Vector =
        bytemuck::must_cast(take_bytes::<{ 4 * CLASSES }>(&mut rest, truncated)?);

    let covered = bytes.get(..bytes.len() - rest.len()).ok_or(truncated)?;
    let (&stored, rest) = rest.split_first_chunk().ok_or(truncated)?;
    let (stored, computed) = (u32::from_le_bytes(stored), CRC.checksum(covered));
    if stored != computed {
        return Err(WeightsError::Checksum { stored, computed });
    }

    let params: &Params = bytemuck::try_from_bytes(params).map_err(|_| WeightsError::Alignment)?;
    if let Some(index) = first_not_finite(params) {
        return Err(WeightsError::NotFinite { index });
    }
    Ok((
        Weights {
            params,
            metadata,
            self_test,
            crc: computed,
        },
        rest,
    ))
}

/// Takes a value off the front of `rest`.
fn take<'a, T: Deserialize<'a>>(
    rest: &mut &'a [u8],
    truncated: WeightsError,
) -> Result<T, WeightsError> {
    let (value, after) = postcard::take_from_bytes(rest).map_err(|error| match error {
        postcard::Error::DeserializeUnexpectedEnd => truncated,
        _ => WeightsError::Metadata,
    })?;
    *rest = after;
    Ok(value)
}

/// Takes `N` bytes off the front of `rest`.
fn take_bytes<const N: usize>(
    rest: &mut &[u8],
    truncated: WeightsError,
) -> Result<[u8; N], WeightsError> {
    let (&bytes, after) = rest.split_first_chunk().ok_or(truncated)?;
    *rest = after;
    Ok(bytes)
}

/// Why parameters cannot be written as a weights file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncodeError {
    /// Names and provenance are too long: the file would not fit into `out`, or into [`MAX_LEN`].
    TooLong,
    /// A parameter is NaN or infinite.
    NotFinite {
        /// Its index in [`Params::as_flat`].
        index: usize,
    },
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::TooLong => write!(
                f,
                "class names and provenance do not fit into a file of {MAX_LEN} bytes"
            ),
            Self::NotFinite { index } => write!(f, "{}", WeightsError::NotFinite { index }),
        }
    }
}

impl core::error::Error for EncodeError {}

/// Writes a weights file into `out` and returns the part used. The self-test's logits are computed here.
///
/// # Errors
/// * `TooLong`: `out` or [`MAX_LEN`] is too small for the names and the provenance
/// * `NotFinite`: a parameter is NaN or infinite, so no reader would accept the file
pub fn encode<'b>(
    params: &Params,
    metadata: &Metadata<'_>,
    out: &'b mut [u8],
) -> Result<&'b [u8], EncodeError> {
    if let Some(index) = first_not_finite(params) {
        return Err(EncodeError::NotFinite { index });
    }
    let limit = out.len().min(MAX_LEN - CHECKSUM_LEN);
    let self_test = self_test::compute(params, &mut Activations::new()).map(f32::from_bits);
    let message = Message {
        magic: MAGIC,
        version: VERSION,
        fingerprint: FINGERPRINT,
        params: bytemuck::bytes_of(params),
        tail: Tail {
            metadata: *metadata,
            self_test,
        },
    };
    let used = postcard::to_slice(&message, &mut out[..limit])
        .map_err(|_| EncodeError::TooLong)?
        .len();
    let crc = CRC.checksum(&out[..used]).to_le_bytes();
    out.get_mut(used..used + CHECKSUM_LEN)
        .ok_or(EncodeError::TooLong)?
        .copy_from_slice(&crc);
    Ok(&out[..used + CHECKSUM_LEN])
}

/// The whole message but its checksum, as postcard writes it. [`view_prefix`] reads its parts one by one, so that each
/// has an error of its own.
#[derive(Serialize)]
struct Message<'a> {
    magic: [u8; 4],
    version: u8,
    #[serde(with = "postcard::fixint::le")]
    fingerprint: u64,
    params: &'a [u8],
    tail: Tail<'a>,
}

/// What follows the parameters.
#[derive(Serialize)]
struct Tail<'a> {
    metadata: Metadata<'a>,
    /// As f32, because postcard gives those a fixed width.
    self_test: [f32; CLASSES],
}

fn first_not_finite(params: &Params) -> Option<usize> {
    let flat: &[f32; NUM_PARAMS] = params.as_flat();
    flat.iter().position(|value| !value.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytemuck::Zeroable;

    #[repr(align(4))]
    struct Aligned([u8; MAX_LEN]);

    const METADATA: Metadata = Metadata {
        classes: ["a", "b", "c", "d", "e", "f", "g", "h", "i", "ankle boot"],
        provenance: Provenance {
            dataset: "letters",
            dataset_sha256: [1; 32],
            params_sha256: [2; 32],
            seed: 300,
            epochs: 5,
            batch_size: 256,
            learning_rate: 0.001,
            test_accuracy: 0.75,
            recipe: "adam",
        },
    };

    fn params() -> Params {
        let mut params = Params::zeroed();
        params
            .as_flat_mut()
            .iter_mut()
            .zip(0u8..=255)
            .for_each(|(p, i)| *p = f32::from(i) / 16.0);
        params
    }

    #[test]
    fn what_is_written_is_read() {
        let (params, mut file) = (params(), Aligned([0; MAX_LEN]));
        let bytes = encode(&params, &METADATA, &mut file.0).unwrap();
        let weights = view(bytes).unwrap();
        assert_eq!(weights.params, &params);
        assert_eq!(weights.metadata, METADATA);
        assert_eq!(
            self_test::check(weights.params, &weights.self_test, &mut Activations::new()),
            Ok(())
        );
        assert!(core::ptr::eq(
            bytemuck::bytes_of(weights.params).as_ptr(),
            &bytes[PARAMS_OFFSET]
        ));
    }

    #[test]
    fn the_first_bytes_are_those_of_the_page() {
        let mut file = Aligned([0; MAX_LEN]);
        let bytes = encode(&params(), &METADATA, &mut file.0).unwrap();
        assert_eq!(bytes[..5], *b"LNET\x01");
        assert_eq!(bytes[5..13], FINGERPRINT.to_le_bytes());
        assert_eq!(bytes[13..16], [0xa8, 0xec, 0x0a]);
        assert_eq!(bytes[16..24], [0, 0, 0, 0, 0, 0, 0x80, 0x3d]);
    }

    #[test]
    fn not_finite_is_neither_written_nor_read() {
        let (mut bad, mut file) = (params(), Aligned([0; MAX_LEN]));
        bad.conv1_bias[3] = f32::NAN;
        assert_eq!(
            encode(&bad, &METADATA, &mut file.0),
            Err(EncodeError::NotFinite { index: 153 })
        );

        let len = encode(&params(), &METADATA, &mut file.0).unwrap().len();
        file.0[PARAMS_OFFSET + 4 * 153..][..4].copy_from_slice(&f32::NEG_INFINITY.to_le_bytes());
        let crc = CRC.checksum(&file.0[..len - 4]).to_le_bytes();
        file.0[len - 4..len].copy_from_slice(&crc);
        assert_eq!(
            view(&file.0[..len]),
            Err(WeightsError::NotFinite { index: 153 })
        );
    }

    #[test]
    fn an_unaligned_buffer_is_refused() {
        let mut file = Aligned([0; MAX_LEN]);
        let len = encode(&params(), &METADATA, &mut file.0).unwrap().len();
        file.0.copy_within(..len, 1);
        assert_eq!(view(&file.0[1..][..len]), Err(WeightsError::Alignment));
    }

    #[test]
    fn long_names_are_refused() {
        let text = [b'x'; 4096];
        let recipe = core::str::from_utf8(&text).unwrap();
        let metadata = Metadata {
            provenance: Provenance {
                recipe,
                ..METADATA.provenance
            },
            ..METADATA
        };
        let mut file = Aligned([0; MAX_LEN]);
        assert_eq!(
            encode(&params(), &metadata, &mut file.0),
            Err(EncodeError::TooLong)
        );
        assert_eq!(
            encode(&params(), &METADATA, &mut [0; 1000]),
            Err(EncodeError::TooLong)
        );
    }
}
