//! Opens tables of pixels, plain or gzipped. `lenet_pictures` parses them.

use super::shape::Shape;
use lenet_pictures::gunzip::Content;
use lenet_pictures::table::{self, Table};
use std::io::{BufRead, BufReader, Read, Result as IoResult};

/// The number of bytes of the first line that are read to recognise a table.
const FIRST_LINE: usize = 1 << 16;

/// Returns whether a file begins like a table of pixels.
pub(super) fn is_table(file: impl BufRead) -> bool {
    first_line(file).is_ok_and(|line| table::is_table(&line))
}

fn first_line(file: impl BufRead) -> IoResult<Vec<u8>> {
    let mut line = Vec::new();
    let content = Content::new(file)?.take(FIRST_LINE as u64);
    BufReader::new(content).read_until(b'\n', &mut line)?;
    Ok(line)
}

/// Reads the first line for [`read`].
///
/// # Errors
/// A sentence, if the line cannot be read.
pub(super) fn peek(file: impl BufRead) -> Result<Vec<u8>, String> {
    first_line(file).map_err(|error| format!("cannot be read: {error}"))
}

/// Reads a table of images of the given shape. `line` is the first line, which is also read from `file`.
///
/// # Errors
/// A sentence that says which line is wrong, what was found and what was expected.
pub(super) fn read(file: impl BufRead, line: &[u8], shape: Shape) -> Result<Table, String> {
    let mut content = Content::new(file).map_err(|error| format!("broken gzip: {error}"))?;
    table::read(&mut content, line, shape)
}
