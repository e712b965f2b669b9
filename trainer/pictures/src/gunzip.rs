//! Reads files that may be gzipped. Their first bytes decide, not their names.
//!
//! Like `gunzip`, this reads several members one after another, and ignores zeros after the last one, which tapes and some
//! archives append.

use flate2::bufread::GzDecoder;
use std::io::{self, BufRead, Error, ErrorKind, Read};

/// The content of a file, uncompressed if it is gzipped.
pub enum Content<R> {
    /// The file as it is.
    Plain(R),
    /// The current member of a gzipped file; `None` after the last.
    Gzip(Box<Option<GzDecoder<R>>>),
}

impl<R: BufRead> Content<R> {
    /// Reads the first bytes to find out whether the file is gzipped.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn new(mut file: R) -> io::Result<Self> {
        Ok(match file.fill_buf()? {
            [0x1f, 0x8b, ..] => Self::Gzip(Box::new(Some(GzDecoder::new(file)))),
            _ => Self::Plain(file),
        })
    }
}

impl<R: BufRead> Read for Content<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let slot = match self {
            Self::Plain(file) => return file.read(out),
            Self::Gzip(slot) => slot.as_mut(),
        };
        while let Some(member) = slot {
            let len = member.read(out)?;
            if len > 0 || out.is_empty() {
                return Ok(len);
            }
            let mut rest = slot.take().expect("just read from").into_inner();
            match after_zeros(&mut rest)? {
                None => {}
                Some(0x1f) => *slot = Some(GzDecoder::new(rest)),
                Some(_) => {
                    let problem = "extra bytes follow its end";
                    return Err(Error::new(ErrorKind::InvalidData, problem));
                }
            }
        }
        Ok(0)
    }
}

/// Returns the first byte that is not zero, if there is one, without consuming it.
fn after_zeros(file: &mut impl BufRead) -> io::Result<Option<u8>> {
    loop {
        let bytes = file.fill_buf()?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
        let found = bytes.get(zeros).copied();
        file.consume(zeros);
        if found.is_some() {
            return Ok(found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn content(file: &[u8]) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        // A small buffer, so that its boundaries fall inside every part of the file.
        let file = io::BufReader::with_capacity(7, file);
        let read = Content::new(file).and_then(|mut content| content.read_to_end(&mut bytes));
        read.map(|_| bytes).map_err(|error| error.to_string())
    }

    #[test]
    fn members_are_joined_and_zeros_after_them_ignored() {
        let (one, two) = (gzip(b"one"), gzip(b"two"));
        for (file, expected) in [
            (b"plain".to_vec(), &b"plain"[..]),
            (one.clone(), b"one"),
            ([one.clone(), two.clone()].concat(), b"onetwo"),
            ([one.clone(), vec![0; 512]].concat(), b"one"),
            ([one.clone(), vec![0; 9], two].concat(), b"onetwo"),
            (b"\0\0plain\0\0".to_vec(), b"\0\0plain\0\0"),
        ] {
            assert_eq!(content(&file).as_deref(), Ok(expected));
        }
        let garbage = [one, b"\0\0garbage".to_vec()].concat();
        assert_eq!(
            content(&garbage),
            Err("extra bytes follow its end".to_owned())
        );
    }

    #[test]
    fn every_cut_is_an_error() {
        let file = gzip(b"some bytes that are worth a few more");
        for len in 2..file.len() {
            assert!(content(&file[..len]).is_err(), "{len}");
        }
    }
}
