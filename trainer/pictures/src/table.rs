//! Reads tables of pixels as found on Kaggle: CSV files with one image per row.
//!
//! A row has the pixel values of the image, row by row, and the label first, last, or in the column `label` of the header.
//! There may be no header, and no label.

use crate::{MAX_COUNT, Shape};
use csv::{ByteRecord, ReaderBuilder, Trim};
use std::cell::Cell;
use std::io::{Error, Read, Result as IoResult};

/// The content of a table.
#[derive(Debug, PartialEq, Eq)]
pub struct Table {
    /// The pixel values, image after image.
    pub images: Vec<u8>,
    /// The labels, if the table has them.
    pub labels: Option<Vec<u8>>,
}

/// The smallest number of columns in a table of pixels.
const MIN_COLUMNS: usize = 32;

/// The largest number of bytes in a row. Even the names of the columns of large images take less than a tenth of it.
const MAX_ROW: usize = 1 << 20;

/// A file from which only `left` more bytes may be read: a small gzipped file can contain a row that would fill the memory.
struct Limited<'a> {
    content: &'a mut dyn Read,
    left: &'a Cell<usize>,
}

impl Read for Limited<'_> {
    fn read(&mut self, out: &mut [u8]) -> IoResult<usize> {
        let len = self.content.read(out)?;
        let left = self.left.get().checked_sub(len).ok_or_else(|| {
            Error::other(format!(
                "a row of more than {MAX_ROW} bytes; expected an image in each row"
            ))
        })?;
        self.left.set(left);
        Ok(len)
    }
}

/// Returns whether a file with this first line is a table of pixels: the line has very many columns.
pub fn is_table(line: &[u8]) -> bool {
    columns(line, separator(line)) >= MIN_COLUMNS
}

fn columns(line: &[u8], separator: u8) -> usize {
    1 + line.iter().filter(|&&byte| byte == separator).count()
}

/// Returns the separator: a comma, or what spreadsheets of other languages use.
fn separator(line: &[u8]) -> u8 {
    let separators = [b'\t', b';', b','];
    separators
        .into_iter()
        .max_by_key(|&separator| columns(line, separator))
        .expect("three of them")
}

/// Reads a table of images of the given shape. `line` is the first line, which is also read from `content`.
///
/// # Errors
/// A sentence that says which line is wrong, what was found and what was expected.
pub fn read(content: &mut dyn Read, line: &[u8], shape: Shape) -> Result<Table, String> {
    if shape.channels != 1 {
        return Err(format!(
            "a table of grey values; this network takes {shape}, and reads colour from class folders or IDX files"
        ));
    }
    let left = Cell::new(MAX_ROW);
    let mut reader = ReaderBuilder::new()
        .has_headers(false)
        .delimiter(separator(line))
        .trim(Trim::All)
        .from_reader(Limited {
            content,
            left: &left,
        });
    let mut record = ByteRecord::new();
    let mut next = |record: &mut ByteRecord| {
        left.set(MAX_ROW);
        let read = reader.read_byte_record(record);
        read.map_err(|error| format!("broken table: {error}"))
    };
    let mut is_there = next(&mut record)?;
    let pixels = shape.len();
    let labelled = match record.len() {
        found if found == pixels + 1 => true,
        found if found == pixels => false,
        found => {
            return Err(format!(
                "{found} columns; expected {}, a label and {shape} pixels",
                pixels + 1
            ));
        }
    };
    let is_label = |field: &[u8]| {
        let name = String::from_utf8_lossy(field).to_lowercase();
        ["label", "labels", "class", "target", "y"].contains(&name.as_str())
    };
    let is_name =
        |field: &&[u8]| !std::str::from_utf8(field).is_ok_and(|f| f.parse::<f64>().is_ok());
    let label = record.iter().position(is_label);
    // A first line with only some invalid values is not a header.
    if label.is_some() || 2 * record.iter().filter(is_name).count() > record.len() {
        is_there = next(&mut record)?;
    }
    let label_at = label.unwrap_or(0);
    let mut images = Vec::new();
    let mut labels = Vec::new();
    while is_there {
        if images.len() / pixels == MAX_COUNT as usize {
            return Err(format!(
                "has more than {MAX_COUNT} rows, the most that are read"
            ));
        }
        for (column, field) in record.iter().enumerate() {
            let value = number(field).ok_or_else(|| {
                let line = record.position().map_or(0, csv::Position::line);
                let field = String::from_utf8_lossy(field);
                format!(
                    "line {line}, column {}: \"{}\"; expected a whole number from 0 to 255",
                    column + 1,
                    field.escape_debug()
                )
            })?;
            match labelled && column == label_at {
                true => labels.push(value),
                false => images.push(value),
            }
        }
        is_there = next(&mut record)?;
    }
    if images.is_empty() {
        return Err("holds no rows".to_owned());
    }
    Ok(Table {
        images,
        labels: labelled.then_some(labels),
    })
}

/// Parses an integer from 0 to 255, also written as `7.0`.
fn number(field: &[u8]) -> Option<u8> {
    // Nearly all fields are one to three digits.
    if let 1..=3 = field.len()
        && field.iter().all(u8::is_ascii_digit)
    {
        let value = field
            .iter()
            .fold(0, |value: u16, digit| 10 * value + u16::from(digit - b'0'));
        return u8::try_from(value).ok();
    }
    let value: f64 = std::str::from_utf8(field).ok()?.parse().ok()?;
    let is_whole = value.fract() == 0.0 && (0.0..=255.0).contains(&value);
    is_whole.then_some(value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape {
        channels: 1,
        height: 5,
        width: 7,
    };

    fn first_line(text: &str) -> &[u8] {
        text.lines().next().unwrap_or_default().as_bytes()
    }

    fn table(text: &str) -> Result<Table, String> {
        read(&mut text.as_bytes(), first_line(text), SHAPE)
    }

    /// Returns a row of `SHAPE`'s pixels that count up from `first`.
    fn row(first: u8, separator: &str) -> String {
        let row: Vec<String> = (0..35).map(|i| (first + i).to_string()).collect();
        row.join(separator)
    }

    fn header() -> String {
        let row: Vec<String> = (0..35).map(|i| format!("pixel{i}")).collect();
        row.join(",")
    }

    #[test]
    fn the_label_is_in_front_or_where_the_header_says() {
        let (one, two) = (row(0, ","), row(100, ","));
        let images: Vec<u8> = (0..35).chain(100..135).collect();
        let header = header();
        let semicolons = |label, first| format!("{label};{}", row(first, ";"));
        for (text, labels) in [
            (format!("3,{one}\n9,{two}\n"), Some(vec![3, 9])),
            (
                format!("label,{header}\r\n3,{one}\r\n9,{two}"),
                Some(vec![3, 9]),
            ),
            (
                format!("\u{feff}{header},label\n{one},3\n{two},9\n"),
                Some(vec![3, 9]),
            ),
            (
                format!("\"label\",{header}\n3.0, {one}\n9,{two}\n\n"),
                Some(vec![3, 9]),
            ),
            (
                format!("{}\n{}\n", semicolons(3, 0), semicolons(9, 100)),
                Some(vec![3, 9]),
            ),
            (format!("{header}\n{one}\n{two}\n"), None),
            (format!("{one}\n{two}\n"), None),
        ] {
            assert!(is_table(first_line(&text)), "{text}");
            let images = images.clone();
            assert_eq!(table(&text), Ok(Table { images, labels }), "{text}");
        }
        assert!(!is_table(b"label,file"));
    }

    #[test]
    fn each_fault_has_its_own_message() {
        let one = row(0, ",");
        let whole = "expected a whole number from 0 to 255";
        for (text, problem) in [
            (
                "1,2,3\n".to_owned(),
                "3 columns; expected 36, a label and 7x5 pixels".to_owned(),
            ),
            (
                format!("3,{one}\n256,{one}\n"),
                format!("line 2, column 1: \"256\"; {whole}"),
            ),
            (
                format!("3,{one}\n-1,{one}\n"),
                format!("line 2, column 1: \"-1\"; {whole}"),
            ),
            (
                format!("label,{}\n3,{one}\n", header()).replace("0,1,2,", "0,0.5,2,"),
                format!("line 2, column 3: \"0.5\"; {whole}"),
            ),
            (format!("label,{}\n", header()), "holds no rows".to_owned()),
        ] {
            assert_eq!(table(&text), Err(problem));
        }
        let error = table(&format!("3,{one}\n3,{one},7\n")).unwrap_err();
        assert!(error.starts_with("broken table: "), "{error}");
        let colour = Shape {
            channels: 3,
            ..SHAPE
        };
        let error = read(&mut one.as_bytes(), one.as_bytes(), colour).unwrap_err();
        assert!(error.starts_with("a table of grey values; "), "{error}");
    }

    #[test]
    fn more_rows_than_a_data_set_has_are_refused() {
        let pixel = Shape {
            channels: 1,
            height: 1,
            width: 1,
        };
        let mut text = "3,1\n".repeat(MAX_COUNT as usize);
        let rows = |text: &str| {
            let table = read(&mut text.as_bytes(), b"3,1", pixel);
            table.map(|table| table.images.len())
        };
        assert_eq!(rows(&text), Ok(MAX_COUNT as usize));
        text += "3,1\n";
        assert_eq!(
            rows(&text),
            Err("has more than 1048576 rows, the most that are read".to_owned())
        );
    }

    #[test]
    fn a_row_without_end_is_refused_before_it_fills_the_memory() {
        let header = header();
        for (start, byte) in [("", b'1'), ("\"", b'\n'), (&*header, b'\n')] {
            let endless = std::io::repeat(byte).take(1 << 26);
            let mut text = start.as_bytes().chain(endless);
            let read = read(&mut text, header.as_bytes(), SHAPE);
            assert_eq!(
                read.unwrap_err(),
                "broken table: a row of more than 1048576 bytes; expected an image in each row"
            );
            assert!(text.into_inner().1.limit() > 60 << 20);
        }
    }
}
