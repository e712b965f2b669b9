//! The weights file: a postcard message that is read in place.
//!
//! `WEIGHTS.md` specifies the bytes, and this module implements them. [`view`] checks everything that can be wrong in a damaged
//! or foreign file, and then borrows the parameters from it. Nothing is copied to RAM, so the file can stay in flash.

use crate::checksum::crc32;
use crate::plan::{self, Description, MAX_NAME};
use crate::self_test;
use crate::{Network, Numbers};
use bytemuck::Zeroable;
use core::fmt;
use core::marker::PhantomData;
use serde::ser::{SerializeSeq, SerializeTuple};
use serde::{Deserialize, Serialize, Serializer};

/// The first bytes of every weights file.
pub const MAGIC: [u8; 4] = *b"LNET";
/// The version of the format that this build writes and reads.
pub const VERSION: u8 = 2;
/// The offset of the parameters in bytes. Before them are the magic, version, number format, two zeros, fingerprint, length and name.
pub const PARAMS_OFFSET: usize = 4 + 1 + 1 + 2 + 8 + 4 + MAX_NAME;

const CHECKSUM_LEN: usize = 4;

/// Returns the maximum length of a weights file of the network in bytes, so that you can reserve flash for it: the parameters
/// and about two kilobytes for the metadata, rounded up to a whole kilobyte.
pub const fn max_len<N: Network>() -> usize {
    let classes = N::LAYERS[N::LAYERS.len() - 1].output[0];
    let metadata = 1_808 + 24 * classes + 64 * (N::LAYERS.len().saturating_sub(5));
    (PARAMS_OFFSET + size_of::<N::Params>() + metadata).next_multiple_of(1024)
}

/// The origin of the parameters. The strings may have any length, as long as the file does not exceed [`max_len`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Provenance<'a> {
    /// The name of the data set, such as `fashion-mnist`.
    pub dataset: &'a str,
    /// The SHA-256 of two concatenated SHA-256 hashes, those of the uncompressed IDX files of the training images and of their labels.
    pub dataset_sha256: [u8; 32],
    /// The SHA-256 of the parameters as stored in the file, which identifies the model.
    pub params_sha256: [u8; 32],
    /// The seed of the initial parameters and of the order of images.
    pub seed: u64,
    /// The number of epochs trained.
    pub epochs: u32,
    /// The number of images per step.
    pub batch_size: u32,
    /// The learning rate of the first step.
    pub learning_rate: f32,
    /// The share of the test images that `forward` classifies correctly, in 0..=1; NaN if not measured.
    pub test_accuracy: f32,
    /// The training method as text, such as `adam`.
    pub recipe: &'a str,
}

/// The names of the classes in the order of the labels. There may be fewer names than classes, but not more.
#[derive(Clone, Copy)]
pub struct ClassNames<'a>(Names<'a>);

#[derive(Clone, Copy)]
enum Names<'a> {
    Listed(&'a [&'a str]),
    /// The names in a file that has been checked: `count` strings in postcard's encoding.
    Encoded {
        count: usize,
        bytes: &'a [u8],
    },
}

impl<'a> ClassNames<'a> {
    /// Borrows the names.
    pub const fn new(names: &'a [&'a str]) -> Self {
        Self(Names::Listed(names))
    }

    /// Returns the number of names. It is less than the number of classes if the data set has fewer.
    pub const fn len(&self) -> usize {
        match self.0 {
            Names::Listed(names) => names.len(),
            Names::Encoded { count, .. } => count,
        }
    }

    /// Returns whether there are no names.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the name of a class, or `""` if it has none.
    pub fn get(&self, class: usize) -> &'a str {
        self.iter().nth(class).unwrap_or_default()
    }

    /// Returns an iterator over the names in the order of the labels.
    pub fn iter(&self) -> impl Iterator<Item = &'a str> + Clone + use<'a> {
        let names = self.0;
        let mut rest = match names {
            Names::Listed(_) => &[],
            Names::Encoded { bytes, .. } => bytes,
        };
        (0..self.len()).map_while(move |class| match names {
            Names::Listed(names) => names.get(class).copied(),
            Names::Encoded { .. } => {
                let (name, after) = postcard::take_from_bytes(rest).ok()?;
                rest = after;
                Some(name)
            }
        })
    }
}

impl fmt::Debug for ClassNames<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl PartialEq for ClassNames<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Serialize for ClassNames<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut names = serializer.serialize_seq(Some(self.len()))?;
        for name in self.iter() {
            names.serialize_element(name)?;
        }
        names.end()
    }
}

/// The class names and the provenance in a weights file.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Metadata<'a> {
    /// The names of the classes.
    pub classes: ClassNames<'a>,
    /// The origin of the parameters.
    pub provenance: Provenance<'a>,
}

/// A weights file of the network `N` that has passed every check. It borrows the bytes of the file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weights<'a, N: Network> {
    /// The parameters, in place in the file.
    pub params: &'a N::Params,
    /// The class names and the provenance.
    pub metadata: Metadata<'a>,
    /// The logits of the built-in test pattern that the writer of the file computed; see [`self_test::check`].
    pub self_test: N::Logits,
    /// The checksum of the file.
    pub crc: u32,
    file: &'a [u8],
    network: PhantomData<N>,
}

impl<'a, N: Network> Weights<'a, N> {
    /// Returns the name of the network as stored in the file.
    pub fn name(&self) -> &'a str {
        let field = self.file.get(PARAMS_OFFSET - MAX_NAME..PARAMS_OFFSET);
        field.map_or("?", name_in)
    }

    /// Returns the description of the network as text: see [`plan::Description`].
    pub fn description(&self) -> &'a str {
        let tail = self.file.get(PARAMS_OFFSET + size_of::<N::Params>()..);
        tail.and_then(|tail| postcard::from_bytes(tail).ok())
            .unwrap_or_default()
    }
}

/// The name of a network as stored in a file: UTF-8, padded with zeros.
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Name([u8; MAX_NAME]);

impl Name {
    /// Returns the name of `N`.
    pub const fn of<N: Network>() -> Self {
        let (mut name, mut i) = ([0; MAX_NAME], 0);
        while i < N::NAME.len() && i < MAX_NAME {
            name[i] = N::NAME.as_bytes()[i];
            i += 1;
        }
        Self(name)
    }

    /// Returns the name, or `"?"` if it is not valid text, as in a damaged file.
    pub fn as_str(&self) -> &str {
        name_in(&self.0)
    }
}

/// Returns the name in a field that is padded with zeros, or `"?"` if it is not valid text.
fn name_in(field: &[u8]) -> &str {
    let len = field.iter().position(|&byte| byte == 0);
    let bytes = field.get(..len.unwrap_or(field.len())).unwrap_or_default();
    match core::str::from_utf8(bytes) {
        Ok(name) if !name.is_empty() && !name.contains(char::is_control) => name,
        _ => "?",
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// The error returned when bytes are not a usable weights file of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum WeightsError {
    /// The file is incomplete, because the bytes end too early.
    Truncated {
        /// The number of bytes.
        found: usize,
    },
    /// The bytes are not a weights file, which would start with [`MAGIC`].
    Magic {
        /// The first four bytes.
        found: [u8; 4],
    },
    /// The file has another version of the format.
    Version {
        /// The version of the file.
        found: u8,
    },
    /// The file belongs to another network.
    Network {
        /// The name of the file's network.
        found: Name,
        /// The name of the network of this program.
        expected: &'static str,
    },
    /// The parameters have another number format.
    Numbers {
        /// The number format of the file.
        found: u8,
        /// The number format that this program reads.
        expected: u8,
    },
    /// The parameters in the file have another length than those of the network.
    Length {
        /// The length that the file states, in bytes.
        found: usize,
        /// The length of the network's parameters in bytes.
        expected: usize,
    },
    /// The buffer does not start on a multiple of four bytes, so the parameters cannot be read in place.
    Alignment,
    /// The class names or the provenance cannot be decoded.
    Metadata,
    /// The checksum differs: the file is damaged.
    Checksum {
        /// The checksum at the end of the file.
        stored: u32,
        /// The checksum computed from the bytes.
        computed: u32,
    },
    /// Bytes follow the checksum.
    TrailingBytes {
        /// The number of these bytes.
        count: usize,
    },
    /// A parameter is NaN or infinite.
    NotFinite {
        /// The tensor's name.
        tensor: &'static str,
        /// The index of the element in the tensor.
        element: usize,
    },
    /// The parameters of an output of an int8 network are out of range: with them a sum could overflow.
    OutOfRange {
        /// The layer's name.
        layer: &'static str,
        /// The index of the output.
        output: usize,
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
            Self::Network { found, expected } if found.as_str() == expected => write!(
                f,
                "its layers are not those of this program's network `{found}`, although the name is the same: the file is damaged, or the description has changed since"
            ),
            Self::Network { found, expected } => write!(
                f,
                "a file of the network `{found}`, this program is built for `{expected}`; build it with LENET_NETWORK={found} (or the path of its description)"
            ),
            Self::Numbers { found, expected } => {
                let (found, expected) = (NumbersText(found), NumbersText(expected));
                write!(
                    f,
                    "its parameters are {found}, this program reads {expected}"
                )
            }
            Self::Length { found, expected } => {
                write!(f, "{found} bytes of parameters, expected {expected}")
            }
            Self::Alignment => write!(f, "does not start on a multiple of four bytes"),
            Self::Metadata => write!(f, "class names or provenance cannot be decoded"),
            Self::Checksum { stored, computed } => {
                write!(f, "damaged: checksum {computed:08x}, stored {stored:08x}")
            }
            Self::TrailingBytes { count } => write!(f, "{count} bytes follow the end of the file"),
            Self::NotFinite { tensor, element } => {
                write!(f, "{tensor}[{element}] is NaN or infinite")
            }
            Self::OutOfRange { layer, output } => write!(
                f,
                "the numbers of output {output} of {layer} are out of range"
            ),
        }
    }
}

impl core::error::Error for WeightsError {}

/// Displays a number format, including one that this build does not know.
struct NumbersText(u8);

impl fmt::Display for NumbersText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => write!(f, "{}", Numbers::F32),
            1 => write!(f, "{}", Numbers::Int8),
            other => write!(f, "numbers of kind {other}"),
        }
    }
}

/// Returns the number format that the first bytes of a weights file state, and checks nothing else. Returns `None` if they are
/// not those of a weights file, or if its version or number format is unknown.
pub fn numbers(bytes: &[u8]) -> Option<Numbers> {
    match bytes {
        [a, b, c, d, VERSION, numbers, ..] if [*a, *b, *c, *d] == MAGIC => match numbers {
            0 => Some(Numbers::F32),
            1 => Some(Numbers::Int8),
            _ => None,
        },
        _ => None,
    }
}

/// Reads a weights file in place.
///
/// # Errors
/// Returns a [`WeightsError`], which has a variant for each kind of damage. All checks come before any parameter is used.
pub fn view<N: Network>(bytes: &[u8]) -> Result<Weights<'_, N>, WeightsError> {
    match view_prefix(bytes)? {
        (weights, []) => Ok(weights),
        (_, rest) => Err(WeightsError::TrailingBytes { count: rest.len() }),
    }
}

/// Reads a weights file like [`view`], but at the start of a larger region such as a section of flash. Also returns the rest of
/// the region.
///
/// # Errors
/// Those of [`view`], except for `TrailingBytes`.
#[inline(never)] // so that its stack is free again when the network runs
pub fn view_prefix<N: Network>(bytes: &[u8]) -> Result<(Weights<'_, N>, &[u8]), WeightsError> {
    // The functions that this one calls return the small `Unread`, so that a `WeightsError` is on the stack only once.
    let named = |error| match error {
        Unread::Truncated => WeightsError::Truncated { found: bytes.len() },
        Unread::Metadata => WeightsError::Metadata,
    };
    let rest = &mut &bytes[..];

    let magic = take_bytes(rest).map_err(named)?;
    if magic != MAGIC {
        return Err(WeightsError::Magic { found: magic });
    }
    let [version] = take_bytes(rest).map_err(named)?;
    if version != VERSION {
        return Err(WeightsError::Version { found: version });
    }
    let [numbers, _, _] = take_bytes(rest).map_err(named)?;
    let fingerprint = u64::from_le_bytes(take_bytes(rest).map_err(named)?);
    let length = u32::from_le_bytes(take_bytes(rest).map_err(named)?) as usize;
    let name = Name(take_bytes(rest).map_err(named)?);
    if fingerprint != N::FINGERPRINT {
        return Err(WeightsError::Network {
            found: name,
            expected: N::NAME,
        });
    }
    if numbers != N::NUMBERS as u8 {
        return Err(WeightsError::Numbers {
            found: numbers,
            expected: N::NUMBERS as u8,
        });
    }
    let expected = size_of::<N::Params>();
    if length != expected {
        return Err(WeightsError::Length {
            found: length,
            expected,
        });
    }
    let (params, after) = rest
        .split_at_checked(length)
        .ok_or(Unread::Truncated)
        .map_err(named)?;
    *rest = after;
    // Reads the fields one by one, because deserializing whole structs would take three times the code and the stack.
    take::<&str>(rest).map_err(named)?;
    let classes = take_names(rest, N::LAYERS).map_err(named)?;
    let metadata = Metadata {
        classes,
        provenance: Provenance {
            dataset: take(rest).map_err(named)?,
            dataset_sha256: take_bytes(rest).map_err(named)?,
            params_sha256: take_bytes(rest).map_err(named)?,
            seed: take(rest).map_err(named)?,
            epochs: take(rest).map_err(named)?,
            batch_size: take(rest).map_err(named)?,
            learning_rate: take(rest).map_err(named)?,
            test_accuracy: take(rest).map_err(named)?,
            recipe: take(rest).map_err(named)?,
        },
    };
    let mut self_test = N::Logits::zeroed();
    // Copies the logits one by one. A copy of the whole array would call a library function that takes 1.3 KB of flash.
    let (logits, _) = bytemuck::bytes_of_mut(&mut self_test).as_chunks_mut::<4>();
    for logit in logits {
        *logit = take_bytes(rest).map_err(named)?;
    }

    let covered = bytes
        .get(..bytes.len() - rest.len())
        .ok_or(Unread::Truncated)
        .map_err(named)?;
    let stored = u32::from_le_bytes(take_bytes(rest).map_err(named)?);
    let computed = crc32(&[covered]);
    if stored != computed {
        return Err(WeightsError::Checksum { stored, computed });
    }

    let params: &N::Params =
        bytemuck::try_from_bytes(params).map_err(|_| WeightsError::Alignment)?;
    if let Some((name, index)) = N::unusable(params) {
        return Err(match N::NUMBERS {
            Numbers::F32 => WeightsError::NotFinite {
                tensor: name,
                element: index,
            },
            Numbers::Int8 => WeightsError::OutOfRange {
                layer: name,
                output: index,
            },
        });
    }
    Ok((
        Weights {
            params,
            metadata,
            self_test,
            crc: computed,
            file: covered,
            network: PhantomData,
        },
        rest,
    ))
}

/// The reason why a part of the file cannot be read.
#[derive(Clone, Copy)]
enum Unread {
    Truncated,
    Metadata,
}

/// Removes the class names from the front of `rest` and returns them. There may be at most as many as the last layer has outputs.
fn take_names<'a>(rest: &mut &'a [u8], layers: &[plan::Layer]) -> Result<ClassNames<'a>, Unread> {
    let count = take::<u32>(rest)? as usize;
    if layers.last().is_none_or(|layer| count > layer.output[0]) {
        return Err(Unread::Metadata);
    }
    let start = *rest;
    for _ in 0..count {
        take::<&str>(rest)?;
    }
    let bytes = start
        .get(..start.len() - rest.len())
        .ok_or(Unread::Truncated)?;
    Ok(ClassNames(Names::Encoded { count, bytes }))
}

/// Removes a value from the front of `rest` and returns it.
fn take<'a, T: Deserialize<'a>>(rest: &mut &'a [u8]) -> Result<T, Unread> {
    let (value, after) = postcard::take_from_bytes(rest).map_err(|error| match error {
        postcard::Error::DeserializeUnexpectedEnd => Unread::Truncated,
        _ => Unread::Metadata,
    })?;
    *rest = after;
    Ok(value)
}

/// Removes `N` bytes from the front of `rest` and returns them.
fn take_bytes<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Unread> {
    let (&bytes, after) = rest.split_first_chunk().ok_or(Unread::Truncated)?;
    *rest = after;
    Ok(bytes)
}

/// The error returned when parameters cannot be written as a weights file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum EncodeError {
    /// The names and the provenance are too long: the file would not fit into `out`, or would exceed [`max_len`].
    TooLong {
        /// The maximum length of the file in bytes.
        limit: usize,
    },
    /// There are more names than classes.
    TooManyClasses {
        /// The number of names.
        found: usize,
        /// The number of classes.
        expected: usize,
    },
    /// A parameter is NaN or infinite.
    NotFinite {
        /// The tensor's name.
        tensor: &'static str,
        /// The index of the element in the tensor.
        element: usize,
    },
    /// The parameters of an output of an int8 network are out of range: with them a sum could overflow.
    OutOfRange {
        /// The layer's name.
        layer: &'static str,
        /// The index of the output.
        output: usize,
    },
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::TooLong { limit } => write!(
                f,
                "class names and provenance do not fit into a file of {limit} bytes"
            ),
            Self::TooManyClasses { found, expected } => {
                write!(f, "{found} class names, the network has {expected} classes")
            }
            Self::NotFinite { tensor, element } => {
                write!(f, "{}", WeightsError::NotFinite { tensor, element })
            }
            Self::OutOfRange { layer, output } => {
                write!(f, "{}", WeightsError::OutOfRange { layer, output })
            }
        }
    }
}

impl core::error::Error for EncodeError {}

/// Writes a weights file into `out` and returns the part of `out` that it occupies. Computes the logits of the self-test.
///
/// # Errors
/// * `TooLong`: `out` or [`max_len`] is too small for the names and the provenance
/// * `TooManyClasses`: there are more names than classes
/// * `NotFinite`, `OutOfRange`: a parameter is invalid, so that no reader would accept the file
pub fn encode<'b, N: Network>(
    params: &N::Params,
    metadata: &Metadata<'_>,
    out: &'b mut [u8],
) -> Result<&'b [u8], EncodeError> {
    if let Some((name, index)) = N::unusable(params) {
        return Err(match N::NUMBERS {
            Numbers::F32 => EncodeError::NotFinite {
                tensor: name,
                element: index,
            },
            Numbers::Int8 => EncodeError::OutOfRange {
                layer: name,
                output: index,
            },
        });
    }
    let self_test = self_test::compute::<N>(params, &mut N::Activations::zeroed());
    let (found, expected) = (metadata.classes.len(), self_test.as_ref().len());
    if found > expected {
        return Err(EncodeError::TooManyClasses { found, expected });
    }
    let limit = out.len().min(max_len::<N>());
    let too_long = EncodeError::TooLong { limit };
    let message = Message {
        magic: MAGIC,
        version: VERSION,
        numbers: [N::NUMBERS as u8, 0, 0],
        fingerprint: N::FINGERPRINT,
        length: size_of::<N::Params>() as u32,
        name: Name::of::<N>().0,
        params: Bytes(bytemuck::bytes_of(params)),
        description: Description(N::LAYERS),
        metadata: *metadata,
        self_test: Bytes(bytemuck::bytes_of(&self_test)),
    };
    let used = postcard::to_slice(&message, &mut out[..limit])
        .map_err(|_| too_long)?
        .len();
    let crc = crc32(&[&out[..used]]).to_le_bytes();
    let end = used + CHECKSUM_LEN;
    if end > limit {
        return Err(too_long);
    }
    out[used..end].copy_from_slice(&crc);
    Ok(&out[..end])
}

/// The whole file except for its checksum, as postcard encodes it. [`view_prefix`] reads the parts one by one, so that each has
/// its own error.
#[derive(Serialize)]
struct Message<'a> {
    magic: [u8; 4],
    version: u8,
    numbers: [u8; 3],
    #[serde(with = "postcard::fixint::le")]
    fingerprint: u64,
    #[serde(with = "postcard::fixint::le")]
    length: u32,
    name: [u8; MAX_NAME],
    params: Bytes<'a>,
    #[serde(serialize_with = "display")]
    description: Description<'a>,
    metadata: Metadata<'a>,
    self_test: Bytes<'a>,
}

/// Bytes that are serialized without a length before them.
struct Bytes<'a>(&'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut bytes = serializer.serialize_tuple(self.0.len())?;
        for byte in self.0 {
            bytes.serialize_element(byte)?;
        }
        bytes.end()
    }
}

fn display<S: Serializer>(text: &impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    network! {
        name: "two",
        input: [1, 6, 6],
        conv1: conv2d { maps: 2, kernel: 3, pool: Max(2), activation: Relu },
        fc1: linear { outputs: 40 },
    }

    mod other {
        network! {
            name: "another",
            input: [1, 6, 6],
            fc1: linear { outputs: 40 },
        }
    }

    const MAX_LEN: usize = max_len::<Net>();

    #[repr(align(4))]
    struct Aligned([u8; MAX_LEN]);

    impl Aligned {
        fn new() -> Self {
            Self([0; MAX_LEN])
        }
    }

    const METADATA: Metadata = Metadata {
        classes: ClassNames::new(&["a", "b", "ankle boot"]),
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
        let mut params = Params::ZERO;
        let values = params.as_flat_mut().iter_mut();
        values
            .zip((0u8..=255).cycle())
            .for_each(|(p, i)| *p = f32::from(i) / 16.0);
        params
    }

    #[test]
    fn what_is_written_is_read() {
        let (params, mut file) = (params(), Aligned::new());
        let bytes = encode::<Net>(&params, &METADATA, &mut file.0).unwrap();
        let weights = view::<Net>(bytes).unwrap();
        assert_eq!(weights.params, &params);
        assert_eq!(weights.metadata, METADATA);
        assert_eq!(weights.name(), "two");
        assert_eq!(
            weights.description(),
            "1x6x6; conv1: conv2d 3x3, max pool 2, relu -> 2x2x2; fc1: linear -> 40"
        );
        let mut act = Activations::new();
        assert_eq!(
            self_test::check::<Net>(weights.params, &weights.self_test, &mut act),
            Ok(())
        );
        assert!(core::ptr::eq(
            bytemuck::bytes_of(weights.params).as_ptr(),
            &bytes[PARAMS_OFFSET]
        ));
    }

    /// The header has 52 bytes and the parameters 1,520. The metadata may take 1,808 bytes and 24 for each of the 40 classes. The
    /// sum, 4,340, is rounded up to a multiple of 1,024.
    #[test]
    fn the_flash_to_reserve_is_the_documented_one() {
        assert_eq!(max_len::<Net>(), 5 * 1024);
    }

    #[test]
    fn the_first_bytes_state_the_number_format() {
        let begin = |numbers| [b'L', b'N', b'E', b'T', VERSION, numbers, 0, 0];
        assert_eq!(numbers(&begin(0)), Some(Numbers::F32));
        assert_eq!(numbers(&begin(1)), Some(Numbers::Int8));
        assert_eq!(numbers(&begin(2)), None);
        assert_eq!(numbers(&begin(0)[..5]), None);
        let mut other = begin(0);
        other[4] = VERSION + 1;
        assert_eq!(numbers(&other), None);
        other[..5].copy_from_slice(&[b'X', b'N', b'E', b'T', VERSION]);
        assert_eq!(numbers(&other), None);
    }

    #[test]
    fn a_name_is_displayed_as_text() {
        assert_eq!(std::format!("{0} {0:?}", Name::of::<Net>()), "two \"two\"");
        let mut damaged = Name::of::<Net>();
        damaged.0[1] = b'\n';
        assert_eq!(damaged.as_str(), "?");
        assert_eq!(Name([0; MAX_NAME]).as_str(), "?");
        assert_eq!(Name([b'x'; MAX_NAME]).as_str().len(), MAX_NAME);
    }

    #[test]
    fn class_names_are_read_where_they_lie() {
        let mut file = Aligned::new();
        let bytes = encode::<Net>(&params(), &METADATA, &mut file.0).unwrap();
        let classes = view::<Net>(bytes).unwrap().metadata.classes;
        assert_eq!(classes.len(), 3);
        assert!(classes.iter().eq(["a", "b", "ankle boot"]));
        assert_eq!((classes.get(2), classes.get(3)), ("ankle boot", ""));
    }

    #[test]
    fn the_first_bytes_are_those_of_the_page() {
        let mut file = Aligned::new();
        let bytes = encode::<Net>(&params(), &METADATA, &mut file.0).unwrap();
        assert_eq!(bytes[..8], *b"LNET\x02\0\0\0");
        assert_eq!(bytes[8..16], FINGERPRINT.to_le_bytes());
        assert_eq!(bytes[16..20], (4 * NUM_PARAMS as u32).to_le_bytes());
        assert_eq!(bytes[20..24], *b"two\0");
        assert_eq!(bytes[24..52], [0; 28]);
        assert_eq!(bytes[52..60], [0, 0, 0, 0, 0, 0, 0x80, 0x3d]);
    }

    #[test]
    fn a_file_of_another_network_is_refused_by_both_names() {
        let mut file = Aligned::new();
        let len = encode::<Net>(&params(), &METADATA, &mut file.0)
            .unwrap()
            .len();
        let error = view::<other::Net>(&file.0[..len]).unwrap_err();
        assert_eq!(
            std::string::ToString::to_string(&error),
            "a file of the network `two`, this program is built for `another`; build it with LENET_NETWORK=two (or the path of its description)"
        );
    }

    #[test]
    fn not_finite_is_neither_written_nor_read() {
        let (mut bad, mut file) = (params(), Aligned::new());
        bad.fc1.bias[3] = f32::NAN;
        let (tensor, element) = ("fc1_bias", 3);
        assert_eq!(
            encode::<Net>(&bad, &METADATA, &mut file.0),
            Err(EncodeError::NotFinite { tensor, element })
        );

        let len = encode::<Net>(&params(), &METADATA, &mut file.0)
            .unwrap()
            .len();
        let at = PARAMS_OFFSET + 4 * (TENSORS[3].offset + element);
        file.0[at..][..4].copy_from_slice(&f32::NEG_INFINITY.to_le_bytes());
        let crc = crc32(&[&file.0[..len - 4]]).to_le_bytes();
        file.0[len - 4..len].copy_from_slice(&crc);
        assert_eq!(
            view::<Net>(&file.0[..len]),
            Err(WeightsError::NotFinite { tensor, element })
        );
    }

    #[test]
    fn an_unaligned_buffer_is_refused() {
        let mut file = Aligned::new();
        let len = encode::<Net>(&params(), &METADATA, &mut file.0)
            .unwrap()
            .len();
        file.0.copy_within(..len, 1);
        assert_eq!(
            view::<Net>(&file.0[1..][..len]),
            Err(WeightsError::Alignment)
        );
    }

    #[test]
    fn other_numbers_and_too_many_names_are_refused() {
        let mut file = Aligned::new();
        let len = encode::<Net>(&params(), &METADATA, &mut file.0)
            .unwrap()
            .len();
        file.0[5] = 7;
        assert_eq!(
            view::<Net>(&file.0[..len]),
            Err(WeightsError::Numbers {
                found: 7,
                expected: 0
            })
        );
        let metadata = Metadata {
            classes: ClassNames::new(&[""; 41]),
            ..METADATA
        };
        assert_eq!(
            encode::<Net>(&params(), &metadata, &mut file.0),
            Err(EncodeError::TooManyClasses {
                found: 41,
                expected: 40
            })
        );
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
        let mut file = Aligned::new();
        assert_eq!(
            encode::<Net>(&params(), &metadata, &mut file.0),
            Err(EncodeError::TooLong { limit: MAX_LEN })
        );
        assert_eq!(
            encode::<Net>(&params(), &METADATA, &mut [0; 1000]),
            Err(EncodeError::TooLong { limit: 1000 })
        );
    }
}
