//! The IDX files of MNIST and its kin, plain or gzipped.
//!
//! Strict: everything the header promises is compared with what this network can use before any memory is asked for,
//! and a file must have exactly the bytes that its header promises.
//! Format: LeCun, Cortes, Burges: The MNIST database, <http://yann.lecun.com/exdb/mnist/> (big-endian header).

use super::{Split, network_size};
use flate2::read::MultiGzDecoder;
use lenet_core::network::{CHANNELS, CLASSES, HEIGHT, Pixels, WIDTH};
use sha2::{Digest, Sha256};
use std::io::Read;

/// The last byte is the number of dimensions.
const IMAGES_MAGIC: u32 = if CHANNELS == 1 { 0x0803 } else { 0x0804 };
const LABELS_MAGIC: u32 = 0x0801;
/// More images than any data set of this kind has; fewer than an allocation that hurts (800 MB).
const MAX_COUNT: u32 = 1 << 20;

/// The content of an IDX file.
#[derive(Debug, PartialEq, Eq)]
pub struct Idx {
    /// The records without the header: `(N, CHANNELS, HEIGHT, WIDTH)` values, or `(N)` labels.
    pub bytes: Vec<u8>,
    /// Of the uncompressed file.
    pub sha256: [u8; 32],
}

/// Reads images of the network's size: three dimensions, `(N, H, W)`, for a network of one channel, four, `(N, 3, H, W)`, for
/// one of three.
///
/// # Errors
/// A sentence that says what was found and what was expected.
pub fn read_images(bytes: &[u8]) -> Result<Idx, String> {
    let mut file = Content::open(bytes)?;
    let [magic, count] = file.header()?;
    expect_magic(magic, IMAGES_MAGIC)?;
    let channels = match CHANNELS {
        1 => 1,
        _ => file.header::<1>()?[0],
    };
    let [rows, columns] = file.header()?;
    if [channels, rows, columns] != [CHANNELS, HEIGHT, WIDTH].map(|side| side as u32) {
        let of_channels = match CHANNELS {
            1 => String::new(),
            _ => format!("{channels}x"),
        };
        return Err(format!(
            "images of {of_channels}{rows}x{columns} pixels; this network takes {}",
            network_size()
        ));
    }
    let bytes = file.rest(count, size_of::<Pixels>())?;
    Ok(Idx {
        bytes,
        sha256: file.hash.finalize().into(),
    })
}

/// Reads labels, which must be classes of the network.
///
/// # Errors
/// A sentence that says what was found and what was expected.
pub fn read_labels(bytes: &[u8]) -> Result<Idx, String> {
    let mut file = Content::open(bytes)?;
    let [magic, count] = file.header()?;
    expect_magic(magic, LABELS_MAGIC)?;
    let bytes = file.rest(count, 1)?;
    if let Some(index) = bytes
        .iter()
        .position(|&label| usize::from(label) >= CLASSES)
    {
        return Err(format!(
            "label {} at index {index}; classes are 0-{}",
            bytes[index],
            CLASSES - 1
        ));
    }
    Ok(Idx {
        bytes,
        sha256: file.hash.finalize().into(),
    })
}

/// SHA-256 of the images and of the labels, each as the IDX file that it would be: [`Idx::sha256`] of those files.
pub fn sha256(split: &Split) -> [[u8; 32]; 2] {
    let count = split.len() as u32;
    let hash = |header: &[u32], bytes: &[u8]| {
        let mut hash = Sha256::new();
        header
            .iter()
            .for_each(|word| hash.update(word.to_be_bytes()));
        hash.update(bytes);
        hash.finalize().into()
    };
    let shape = [CHANNELS, HEIGHT, WIDTH].map(|side| side as u32);
    let header = match CHANNELS {
        1 => vec![IMAGES_MAGIC, count, shape[1], shape[2]],
        _ => vec![IMAGES_MAGIC, count, shape[0], shape[1], shape[2]],
    };
    [
        hash(&header, bytemuck::cast_slice(split.images())),
        hash(&[LABELS_MAGIC, count], split.labels()),
    ]
}

fn expect_magic(found: u32, expected: u32) -> Result<(), String> {
    let kind = |magic| match magic {
        IMAGES_MAGIC => ", an image file",
        LABELS_MAGIC => ", a label file",
        _ => "",
    };
    if found != expected {
        let (found_kind, expected_kind) = (kind(found), kind(expected));
        return Err(format!(
            "magic {found:#010x}{found_kind}; expected {expected:#010x}{expected_kind}"
        ));
    }
    Ok(())
}

/// The bytes of a file, uncompressed on the way.
struct Content<'a> {
    reader: Box<dyn Read + 'a>,
    hash: Sha256,
    read: u64,
}

impl<'a> Content<'a> {
    /// Gzip is recognised by its first two bytes; what is neither gzip nor IDX is refused with its beginning.
    fn open(bytes: &'a [u8]) -> Result<Self, String> {
        let reader: Box<dyn Read> = match bytes {
            [] => return Err("empty; expected an IDX file".to_owned()),
            [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(bytes)),
            [0, 0, ..] => Box::new(bytes),
            _ => {
                let start: String = String::from_utf8_lossy(&bytes[..bytes.len().min(16)])
                    .escape_debug()
                    .collect();
                return Err(format!("neither gzip nor IDX (starts with \"{start}\")"));
            }
        };
        Ok(Self {
            reader,
            hash: Sha256::new(),
            read: 0,
        })
    }

    /// The next big-endian words.
    fn header<const N: usize>(&mut self) -> Result<[u32; N], String> {
        let mut words = [[0; 4]; N];
        let header = words.as_flattened_mut();
        let mut filled = 0;
        while filled < header.len() {
            match self
                .reader
                .read(&mut header[filled..])
                .map_err(broken_gzip)?
            {
                0 => {
                    let read = self.read as usize + filled;
                    return Err(format!("ends within its header, after {read} bytes"));
                }
                n => filled += n,
            }
        }
        self.hash.update(&*header);
        self.read += header.len() as u64;
        Ok(words.map(u32::from_be_bytes))
    }

    /// Exactly `count` records of `size` bytes, and then the end of the file.
    fn rest(&mut self, count: u32, size: usize) -> Result<Vec<u8>, String> {
        if count == 0 {
            return Err("holds 0 records".to_owned());
        }
        if count > MAX_COUNT {
            return Err(format!(
                "promises {count} records; at most {MAX_COUNT} are read"
            ));
        }
        let promised = count as usize * size;
        let mut bytes = Vec::with_capacity(promised);
        let limit = promised as u64 + 1;
        self.reader
            .by_ref()
            .take(limit)
            .read_to_end(&mut bytes)
            .map_err(broken_gzip)?;
        if bytes.len() != promised {
            let total = self.read + promised as u64;
            let found = match bytes.len() > promised {
                true => "has more".to_owned(),
                false => format!("has {}", self.read + bytes.len() as u64),
            };
            return Err(format!("promises {total} bytes ({count} records), {found}"));
        }
        self.hash.update(&bytes);
        Ok(bytes)
    }
}

fn broken_gzip(error: std::io::Error) -> String {
    format!("broken gzip: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write;

    fn images(count: u32, rows: u32, columns: u32, bytes: usize) -> Vec<u8> {
        let mut file: Vec<u8> = [IMAGES_MAGIC, count, rows, columns]
            .into_iter()
            .flat_map(u32::to_be_bytes)
            .collect();
        file.extend((0..bytes).map(|i| i as u8));
        file
    }

    fn labels(labels: &[u8]) -> Vec<u8> {
        let mut file: Vec<u8> = [LABELS_MAGIC, labels.len() as u32]
            .into_iter()
            .flat_map(u32::to_be_bytes)
            .collect();
        file.extend(labels);
        file
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn plain_and_gzipped_files_read_alike() {
        let file = images(3, 28, 28, 3 * 784);
        let plain = read_images(&file).unwrap();
        assert_eq!(plain.bytes.len(), 3 * 784);
        assert_eq!(plain.bytes[784..][..3], [16, 17, 18]);
        assert_eq!(read_images(&gzip(&file)).unwrap(), plain);
        assert_eq!(read_labels(&labels(&[9, 0, 3])).unwrap().bytes, [9, 0, 3]);
    }

    #[test]
    fn a_split_hashes_as_its_files_would() {
        let (images, labels) = (images(3, 28, 28, 3 * 784), labels(&[9, 0, 3]));
        let (images, labels) = (read_images(&images).unwrap(), read_labels(&labels).unwrap());
        let hashes = [images.sha256, labels.sha256];
        assert_eq!(sha256(&Split::new(images.bytes, labels.bytes)), hashes);
    }

    #[test]
    fn each_fault_has_its_sentence() {
        let refused = |file: &[u8]| read_images(file).unwrap_err();
        assert_eq!(refused(b""), "empty; expected an IDX file");
        assert_eq!(
            refused(b"<!DOCTYPE html>"),
            "neither gzip nor IDX (starts with \"<!DOCTYPE html>\")"
        );
        assert_eq!(
            refused(&images(1, 28, 28, 784)[..9]),
            "ends within its header, after 9 bytes"
        );
        assert_eq!(
            refused(&labels(&[0; 20])),
            "magic 0x00000801, a label file; expected 0x00000803, an image file"
        );
        assert_eq!(
            refused(&[0, 0, 9, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            "magic 0x00000909; expected 0x00000803, an image file"
        );
        assert_eq!(
            refused(&images(1, 32, 28, 896)),
            "images of 32x28 pixels; this network takes 28x28"
        );
        assert_eq!(refused(&images(0, 28, 28, 0)), "holds 0 records");
        assert_eq!(
            refused(&images(u32::MAX, 28, 28, 0)),
            "promises 4294967295 records; at most 1048576 are read"
        );
        assert_eq!(
            refused(&images(2, 28, 28, 784)),
            "promises 1584 bytes (2 records), has 800"
        );
        assert_eq!(
            refused(&images(1, 28, 28, 785)),
            "promises 800 bytes (1 records), has more"
        );
        assert_eq!(
            read_labels(&labels(&[3, 37])).unwrap_err(),
            "label 37 at index 1; classes are 0-9"
        );
        assert!(
            read_labels(&images(1, 28, 28, 784))
                .unwrap_err()
                .starts_with("magic 0x00000803, an image file")
        );
    }

    #[test]
    fn damaged_gzip_is_refused() {
        let mut file = gzip(&images(3, 28, 28, 3 * 784));
        let len = file.len();
        assert!(
            read_images(&file[..len - 1])
                .unwrap_err()
                .starts_with("broken gzip")
        );
        file[len - 6] ^= 1;
        assert!(read_images(&file).unwrap_err().starts_with("broken gzip"));
    }
}
