//! Reads IDX files, the format of MNIST and its relatives, plain or gzipped.
//!
//! The reader is strict: it checks the header against the network before it allocates memory, and the file must have exactly
//! the number of bytes that its header promises. Nothing is held in memory twice: the content is read into its final place, and
//! hashed on the way.
//! Format: LeCun, Cortes, Burges: The MNIST database, <http://yann.lecun.com/exdb/mnist/> (big-endian header).

use crate::gunzip::Content;
use crate::{MAX_COUNT, Shape, beginning};
use sha2::{Digest, Sha256};
use std::io::{BufRead, Read};

/// The magic number of bytes in one dimension.
const LABELS_MAGIC: u32 = 0x0801;
/// The magic number of bytes in three dimensions: images of one channel.
const IMAGES_MAGIC: u32 = 0x0803;
/// The magic number of bytes in four dimensions: images, channels, rows, columns.
const CHANNELS_MAGIC: u32 = 0x0804;
/// The largest number of bytes that Deflate can make from one.
const MAX_RATIO: u64 = 1032;
/// The number of bytes that are read, and then hashed, at a time.
const CHUNK: u64 = 1 << 18;

/// The content of an IDX file.
#[derive(Debug, PartialEq, Eq)]
pub struct Idx {
    /// The records without the header: pixel values `(N, C, H, W)`, or labels `(N)`.
    pub bytes: Vec<u8>,
    /// The hash of the uncompressed file.
    pub sha256: [u8; 32],
}

/// Checks that labels are in `0..classes`, where `classes` is at least 1. The message adds `first` to each label, so that it shows
/// the numbers in the file.
///
/// # Errors
/// A sentence that names the first such label.
pub fn check_labels(labels: &[u8], first: u8, classes: usize) -> Result<(), String> {
    let is_class = |label: u8| usize::from(label) < classes;
    let Some(index) = labels.iter().position(|&label| !is_class(label)) else {
        return Ok(());
    };
    let of_file = |label: u8| usize::from(label) + usize::from(first);
    let others = labels.iter().filter(|&&label| !is_class(label)).count() - 1;
    let more = match others {
        0 => String::new(),
        _ => {
            let largest = labels.iter().max().expect("one is too large");
            format!(
                ". {others} more are too large, up to {}: it takes a program that is built for a network with so many \
                 classes",
                of_file(*largest)
            )
        }
    };
    Err(format!(
        "label {} at index {index}; this network has {classes} classes, {first} to {}{more}",
        of_file(labels[index]),
        of_file((classes - 1) as u8)
    ))
}

/// Reads images of the given shape. `len` is the file's length.
///
/// # Errors
/// A sentence that says what was found and what was expected.
pub fn images(file: impl BufRead, len: u64, shape: Shape) -> Result<Idx, String> {
    let mut file = File::open(file, len)?;
    let [magic] = file.header()?;
    let count;
    let found = match magic {
        IMAGES_MAGIC => {
            let [n, height, width] = file.header()?;
            count = n;
            [1, height, width]
        }
        CHANNELS_MAGIC => {
            let [n, channels, height, width] = file.header()?;
            count = n;
            [channels, height, width]
        }
        _ => return Err(other_magic(magic, IMAGES_MAGIC)),
    };
    let [channels, height, width] = found;
    if found.map(|side| side as usize) != [shape.channels, shape.height, shape.width] {
        let size = |channels: u32, height: u32, width: u32| match (channels, shape.channels) {
            (1, 1) => format!("{height}x{width} pixels"),
            (1, _) => format!("{height}x{width} pixels in one channel"),
            _ => format!("{height}x{width} pixels in {channels} channels"),
        };
        let hint = match [height as usize, width as usize] == [shape.width, shape.channels] {
            true => "; the channels come before the rows: (N, C, H, W)",
            false => "",
        };
        return Err(format!(
            "images of {}; this network takes {shape}{hint}",
            size(channels, height, width)
        ));
    }
    file.rest(count, shape.len())
}

/// Reads labels of any class. `len` is the file's length.
///
/// # Errors
/// A sentence that says what was found and what was expected.
pub fn labels(file: impl BufRead, len: u64) -> Result<Idx, String> {
    let mut file = File::open(file, len)?;
    let [magic] = file.header()?;
    if magic != LABELS_MAGIC {
        return Err(other_magic(magic, LABELS_MAGIC));
    }
    let [count] = file.header()?;
    file.rest(count, 1)
}

/// Returns the SHA-256 of a file's uncompressed content, whatever it is.
///
/// # Errors
/// A sentence that says why it cannot be read.
pub fn content_sha256(file: impl BufRead) -> Result<[u8; 32], String> {
    let mut content = Content::new(file).map_err(broken_gzip)?;
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK as usize];
    loop {
        match content.read(&mut chunk).map_err(broken_gzip)? {
            0 => return Ok(hash.finalize().into()),
            len => hash.update(&chunk[..len]),
        }
    }
}

/// Returns two hashes: the SHA-256 of an IDX file with these images, which have the given shape, and that of an IDX file with these
/// labels. [`Idx::sha256`] is the same hash of a file that was read.
pub fn sha256(images: &[u8], labels: &[u8], shape: Shape) -> [[u8; 32]; 2] {
    let count = labels.len() as u32;
    let hash = |header: &[u32], bytes: &[u8]| {
        let mut hash = Sha256::new();
        header
            .iter()
            .for_each(|word| hash.update(word.to_be_bytes()));
        hash.update(bytes);
        hash.finalize().into()
    };
    let [channels, height, width] = [shape.channels, shape.height, shape.width].map(|n| n as u32);
    let header: &[u32] = match channels {
        1 => &[IMAGES_MAGIC, count, height, width],
        _ => &[CHANNELS_MAGIC, count, channels, height, width],
    };
    [hash(header, images), hash(&[LABELS_MAGIC, count], labels)]
}

fn other_magic(found: u32, expected: u32) -> String {
    let kind = |magic| match magic {
        IMAGES_MAGIC | CHANNELS_MAGIC => ", an image file",
        LABELS_MAGIC => ", a label file",
        _ => match magic >> 8 {
            0x09 | 0x0b | 0x0c => ", integers that are no unsigned bytes",
            0x0d | 0x0e => ", floating-point numbers",
            _ => "",
        },
    };
    let (found_kind, expected_kind) = (kind(found), kind(expected));
    format!("magic {found:#010x}{found_kind}; expected {expected:#010x}{expected_kind}")
}

/// A file that is decompressed while it is read.
struct File<R> {
    content: Content<R>,
    /// The length of the file on the disk.
    len: u64,
    hash: Sha256,
    read: u64,
}

impl<R: BufRead> File<R> {
    /// Opens a file, and refuses it if it begins neither like gzip nor like IDX.
    fn open(mut file: R, len: u64) -> Result<Self, String> {
        let unreadable = |error| format!("cannot be read: {error}");
        match file.fill_buf().map_err(unreadable)? {
            [] => return Err("empty; expected an IDX file".to_owned()),
            [0x1f, 0x8b, ..] | [0, 0, ..] => {}
            start => return Err(format!("neither gzip nor IDX ({})", beginning(start))),
        }
        Ok(Self {
            content: Content::new(file).map_err(broken_gzip)?,
            len,
            hash: Sha256::new(),
            read: 0,
        })
    }

    /// Reads the next big-endian words.
    fn header<const N: usize>(&mut self) -> Result<[u32; N], String> {
        let mut words = [[0; 4]; N];
        let header = words.as_flattened_mut();
        let mut filled = 0;
        while filled < header.len() {
            match self
                .content
                .read(&mut header[filled..])
                .map_err(|error| self.broken(error))?
            {
                0 => {
                    let read = self.read + filled as u64;
                    return Err(format!("ends within its header, after {read} bytes"));
                }
                n => filled += n,
            }
        }
        self.hash.update(&*header);
        self.read += header.len() as u64;
        Ok(words.map(u32::from_be_bytes))
    }

    /// Reads exactly `count` records of `size` bytes, after which the file must end.
    fn rest(mut self, count: u32, size: usize) -> Result<Idx, String> {
        if count == 0 {
            return Err("holds 0 records".to_owned());
        }
        if count > MAX_COUNT {
            return Err(format!(
                "promises {count} records; at most {MAX_COUNT} are read"
            ));
        }
        let promised = count as usize * size;
        let total = self.read + promised as u64;
        let wrong = |found: String| format!("promises {total} bytes ({count} records), {found}");
        // Refuse a file that is too short before allocating memory for it.
        match self.content {
            Content::Plain(_) if self.len < total => {
                return Err(wrong(format!("has {}", self.len)));
            }
            Content::Plain(_) if self.len > total => return Err(wrong("has more".to_owned())),
            Content::Gzip(_) if self.len.saturating_mul(MAX_RATIO) < total => {
                return Err(wrong(format!(
                    "and {} gzipped bytes cannot hold them",
                    self.len
                )));
            }
            _ => {}
        }
        let mut bytes = Vec::new();
        if bytes.try_reserve_exact(promised).is_err() {
            return Err(wrong("for which there is not enough memory".to_owned()));
        }
        while bytes.len() < promised {
            let before = bytes.len();
            let limit = CHUNK.min((promised - before) as u64);
            let read = self.content.by_ref().take(limit).read_to_end(&mut bytes);
            read.map_err(|error| self.broken(error))?;
            if bytes.len() == before {
                return Err(wrong(format!("has {}", self.read + before as u64)));
            }
            self.hash.update(&bytes[before..]);
        }
        match self.content.read(&mut [0]) {
            Ok(0) => Ok(Idx {
                bytes,
                sha256: self.hash.finalize().into(),
            }),
            Ok(_) => Err(wrong("has more".to_owned())),
            Err(error) => Err(self.broken(error)),
        }
    }

    fn broken(&self, error: std::io::Error) -> String {
        match self.content {
            Content::Plain(_) => format!("cannot be read: {error}"),
            Content::Gzip(_) => broken_gzip(error),
        }
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

    const CLASSES: usize = 10;
    /// One more than the largest label.
    const END: u8 = CLASSES as u8;

    const GREY: Shape = Shape {
        channels: 1,
        height: 28,
        width: 28,
    };

    fn read(file: &[u8]) -> Result<Idx, String> {
        super::images(file, file.len() as u64, GREY)
    }

    fn read_labels(file: &[u8]) -> Result<Idx, String> {
        let idx = super::labels(file, file.len() as u64)?;
        check_labels(&idx.bytes, 0, CLASSES)?;
        Ok(idx)
    }

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
        let plain = read(&file).unwrap();
        assert_eq!(plain.bytes.len(), 3 * 784);
        assert_eq!(plain.bytes[784..][..3], [16, 17, 18]);
        assert_eq!(read(&gzip(&file)).unwrap(), plain);
        let values = [END - 1, 0, 1];
        assert_eq!(read_labels(&labels(&values)).unwrap().bytes, values);
    }

    #[test]
    fn hashes_are_those_of_the_files() {
        let colour = Shape {
            channels: 3,
            ..GREY
        };
        for shape in [GREY, colour] {
            let mut file = images(3, 28, 28, 3 * shape.len());
            if shape.channels > 1 {
                file[..4].copy_from_slice(&CHANNELS_MAGIC.to_be_bytes());
                file.splice(8..8, 3_u32.to_be_bytes());
            }
            let images = super::images(&file[..], file.len() as u64, shape).unwrap();
            let labels = read_labels(&labels(&[END - 1, 0, 1])).unwrap();
            let hashes = [images.sha256, labels.sha256];
            assert_eq!(sha256(&images.bytes, &labels.bytes, shape), hashes);
        }
    }

    #[test]
    fn each_fault_has_its_own_message() {
        let refused = |file: &[u8]| read(file).unwrap_err();
        assert_eq!(refused(b""), "empty; expected an IDX file");
        assert_eq!(
            refused(b"<!DOCTYPE html>"),
            "neither gzip nor IDX (starts with \"<!DOCTYPE html>\", a web page; download the file itself)"
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
            "magic 0x00000909, integers that are no unsigned bytes; expected 0x00000803, an image file"
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
            read_labels(&labels(&[1, 137])).unwrap_err(),
            format!(
                "label 137 at index 1; this network has {CLASSES} classes, 0 to {}",
                CLASSES - 1
            )
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
            read(&file[..len - 1])
                .unwrap_err()
                .starts_with("broken gzip")
        );
        file[len - 6] ^= 1;
        assert!(read(&file).unwrap_err().starts_with("broken gzip"));
    }

    #[test]
    fn messages_count_labels_as_the_file_does() {
        assert_eq!(check_labels(&[0, END - 1], 0, CLASSES), Ok(()));
        assert_eq!(
            check_labels(&[1, END + 27], 0, CLASSES).unwrap_err(),
            format!(
                "label {} at index 1; this network has {END} classes, 0 to {}",
                END + 27,
                END - 1
            )
        );
        assert_eq!(
            check_labels(&[1, END + 15, END + 2, END], 1, CLASSES).unwrap_err(),
            format!(
                "label {0} at index 1; this network has {END} classes, 1 to {END}. 2 more are too large, up to {0}: it takes a \
                 program that is built for a network with so many classes",
                END + 16
            )
        );
    }
}
