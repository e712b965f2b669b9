//! Reads the names of classes: from `classes.txt`, from EMNIST's mapping, or from folders.
//!
//! Names are in Unicode's composed form (NFC). Depending on the system, `ü` in the name of a folder is one character or two;
//! both are the same class.

use crate::error::Error;
use lenet_core::network::CLASSES;
use std::path::Path;
use unicode_normalization::UnicodeNormalization;

/// The largest length of a class name in bytes: short enough for a board's display and for the file.
pub(super) const MAX_LEN: usize = 32;

/// Returns the name in composed form, if a class may have it: terminals, pictures and boards show a name as a short line.
pub(super) fn class_name(name: &str) -> Result<String, String> {
    let name: String = name.nfc().collect();
    if name.len() > MAX_LEN {
        return Err(format!(
            "a name of {} bytes; the name of a class has at most {MAX_LEN}",
            name.len()
        ));
    }
    match name.contains(char::is_control) {
        true => Err("a control character; the name of a class has none".to_owned()),
        false => Ok(name),
    }
}

/// Reads a list of names, one per line, in the order of the labels.
///
/// # Errors
/// * `Io`: it cannot be read
/// * `Data`: it has no names, or does not give each class its own name; the sentence names the line
pub(super) fn read_list(path: &Path) -> Result<Vec<String>, Error> {
    let bytes = std::fs::read(path).map_err(Error::io("cannot be read", path))?;
    parse_list(&bytes).map_err(|problem| Error::Data {
        path: path.to_owned(),
        problem,
    })
}

fn parse_list(bytes: &[u8]) -> Result<Vec<String>, String> {
    let text = text(bytes)?;
    let mut names: Vec<String> = Vec::new();
    for (line, name) in (1..).zip(text.trim_end().lines().map(str::trim)) {
        if name.is_empty() {
            return Err(format!(
                "line {line} is blank; expected one name per line, in the order of the labels"
            ));
        }
        add(&mut names, line, name)?;
    }
    match names.len() {
        1..=CLASSES => Ok(names),
        0 => Err("holds no names; expected one per line, in the order of the labels".to_owned()),
        count => Err(format!("{count} names; this network has {CLASSES} classes")),
    }
}

/// Adds the name in a line to those of the lines before it, if a class may have it and no other class has it.
fn add(names: &mut Vec<String>, line: usize, name: &str) -> Result<(), String> {
    let name = class_name(name).map_err(|problem| format!("line {line}: {problem}"))?;
    if let Some(other) = names.iter().position(|other| *other == name) {
        return Err(format!(
            "lines {} and {line} have the same name, {name}; expected another name for each class",
            other + 1
        ));
    }
    names.push(name);
    Ok(())
}

/// Returns the text of a file, without the byte order mark that some editors add: UTF-8, or UTF-16 if it has such a mark.
fn text(bytes: &[u8]) -> Result<String, String> {
    let utf16 = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let (units, rest) = bytes.as_chunks();
        let units: Vec<u16> = units.iter().map(|&bytes| unit(bytes)).collect();
        String::from_utf16(&units).ok().filter(|_| rest.is_empty())
    };
    let text = match bytes {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] => String::from_utf8(rest.to_vec()).ok(),
        _ => String::from_utf8(bytes.to_vec()).ok(),
    };
    text.ok_or("no UTF-8 text; save it as UTF-8".to_owned())
}

/// Reads the names from EMNIST's mapping. Each line has a label and the code points of its characters, of which the first is
/// the class's name. Labels count from `first`.
///
/// # Errors
/// Those of [`read_list`]
pub(super) fn read_mapping(path: &Path, first: u8) -> Result<Vec<String>, Error> {
    let text = std::fs::read_to_string(path).map_err(Error::io("cannot be read", path))?;
    parse_mapping(&text, first).map_err(|problem| Error::Data {
        path: path.to_owned(),
        problem,
    })
}

fn parse_mapping(text: &str, first: u8) -> Result<Vec<String>, String> {
    let entry = |line: &str| {
        let mut numbers = line.split_whitespace();
        let label: usize = numbers.next()?.parse().ok()?;
        let character = char::from_u32(numbers.next()?.parse().ok()?)?;
        Some((label.checked_sub(first.into())?, character))
    };
    let mut names = Vec::new();
    for (number, line) in (1..).zip(text.lines().filter(|line| !line.trim().is_empty())) {
        match entry(line) {
            Some((class, name)) if class == names.len() => {
                add(&mut names, number, &name.to_string())?;
            }
            _ => {
                return Err(format!(
                    "line {number}: expected a label, counted up from {first}, and the code point of its character"
                ));
            }
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_of_editors_are_no_part_of_a_name() {
        let utf16 = |unit: fn(u16) -> [u8; 2]| -> Vec<u8> {
            "\u{feff}Mütze\r\nbag\r\n"
                .encode_utf16()
                .flat_map(unit)
                .collect()
        };
        for bytes in [
            "Mütze\nbag".as_bytes().to_vec(),
            "\u{feff}Mütze\r\n  bag \r\n\r\n\n".as_bytes().to_vec(),
            "Mu\u{308}tze\nbag\n".as_bytes().to_vec(),
            utf16(u16::to_le_bytes),
            utf16(u16::to_be_bytes),
        ] {
            assert_eq!(
                parse_list(&bytes),
                Ok(vec!["Mütze".to_owned(), "bag".to_owned()])
            );
        }
    }

    #[test]
    fn each_fault_has_its_own_message() {
        let long = "x".repeat(33);
        for (text, problem) in [
            (
                "a\n\nb",
                "line 2 is blank; expected one name per line, in the order of the labels",
            ),
            (
                "\na",
                "line 1 is blank; expected one name per line, in the order of the labels",
            ),
            (
                "a\nb\na",
                "lines 1 and 3 have the same name, a; expected another name for each class",
            ),
            (
                "Mütze\nMu\u{308}tze",
                "lines 1 and 2 have the same name, Mütze; expected another name for each class",
            ),
            (
                " \n",
                "holds no names; expected one per line, in the order of the labels",
            ),
            (
                &long,
                "line 1: a name of 33 bytes; the name of a class has at most 32",
            ),
            (
                "a\nb\tc",
                "line 2: a control character; the name of a class has none",
            ),
            (
                &(0..=CLASSES).map(|i| format!("{i}\n")).collect::<String>(),
                &format!("{} names; this network has {CLASSES} classes", CLASSES + 1),
            ),
        ] {
            assert_eq!(parse_list(text.as_bytes()), Err(problem.to_owned()));
        }
        assert_eq!(
            parse_list(b"M\xfctze"),
            Err("no UTF-8 text; save it as UTF-8".to_owned())
        );
    }

    #[test]
    fn a_mapping_names_the_classes_by_their_first_characters() {
        let names = parse_mapping("1 65 97\n\n2 252\n", 1);
        assert_eq!(names, Ok(vec!["A".to_owned(), "ü".to_owned()]));
        let expected = "expected a label, counted up from 0, and the code point of its character";
        for (text, problem) in [
            ("0 65\n2 66", format!("line 2: {expected}")),
            ("0 65\n1 55296", format!("line 2: {expected}")),
            (
                "0 65\n1 10",
                "line 2: a control character; the name of a class has none".to_owned(),
            ),
            (
                "0 65\n1 66\n2 65 97",
                "lines 1 and 3 have the same name, A; expected another name for each class"
                    .to_owned(),
            ),
        ] {
            assert_eq!(parse_mapping(text, 0), Err(problem));
        }
    }
}
