//! Prints to the standard output and the error stream. `println!` is not used, because it panics when the reader of a pipe has
//! closed it.

use crate::error::Error;
use crate::model::Model;
use crate::output;
use crate::weights_file::WeightsFile;
use comfy_table::{CellAlignment, Row, Table, presets::NOTHING};
use std::fmt::{Arguments, Display};
use std::io::{IsTerminal, Write, stderr, stdout};
use std::ops::RangeBounds;
use std::path::{Path, PathBuf};

/// The standard output, for `write!` and `writeln!`.
pub struct Out;

impl Out {
    pub fn write_fmt(&self, text: Arguments<'_>) -> Result<(), Error> {
        let written = stdout().write_fmt(text);
        written.map_err(Error::io("cannot be written", Path::new("standard output")))
    }
}

/// Returns a table without lines, whose columns of `numbers` are aligned to the right.
pub fn table(header: impl Into<Row>, numbers: impl RangeBounds<usize>) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(header);
    for (index, column) in table.column_iter_mut().enumerate() {
        if numbers.contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// Writes a new file and prints its name and what it `holds`. If the path is `-`, writes the bytes to the standard output and prints
/// nothing else.
///
/// # Errors
/// * `Exists`, `Io`: those of [`output::write_new`]
/// * `Settings`: binary data would be written to a terminal
pub fn write_new(path: &Path, bytes: &[u8], holds: impl Display) -> Result<(), Error> {
    if path != Path::new("-") {
        output::write_new(path, bytes)?;
        return writeln!(Out, "wrote {} ({holds})", path.display());
    }
    let mut out = stdout().lock();
    if out.is_terminal() && str::from_utf8(bytes).is_err() {
        return Err(Error::Settings(
            "`-` is the standard output, and that is a terminal, which such bytes would upset: redirect it, or name a file"
                .to_owned(),
        ));
    }
    let written = out.write_all(bytes).and_then(|()| out.flush());
    written.map_err(Error::io("cannot be written", Path::new("standard output")))
}

/// Parses a path for clap and rejects `-`, because these options cannot write to the standard output.
pub fn no_output(text: PathBuf) -> Result<PathBuf, &'static str> {
    match text == Path::new("-") {
        true => Err("this cannot go to the standard output; for something of that name write ./-"),
        false => Ok(text),
    }
}

/// Reads an f32 weights file or another program's weights, and prints notes on how they were read.
///
/// # Errors
/// Those of [`Model::load`]; `Foreign` for an int8 file.
pub fn load_weights(path: &Path) -> Result<WeightsFile, Error> {
    match load_model(path)? {
        Model::F32(file) => Ok(file),
        Model::Int8(_) => Err(Error::Foreign {
            path: path.to_owned(),
            problem: "an int8 network, and this command takes f32: name the weights that it was quantized from".to_owned(),
        }),
    }
}

/// Reads a weights file (f32 or int8) or another program's weights, and prints notes on how they were read.
///
/// # Errors
/// Those of [`Model::load`].
pub fn load_model(path: &Path) -> Result<Model, Error> {
    let model = Model::load(path)?;
    for text in model.notes() {
        note(format_args!("{}: {text}", path.display()));
    }
    Ok(model)
}

/// Prints a warning on the error stream. Errors are ignored, because there is no other place to report them.
pub fn warn(text: impl Display) {
    let _ = writeln!(stderr(), "warning: {text}");
}

/// Prints a note on the error stream, because the standard output may be read by a program. Errors are ignored.
pub fn note(text: impl Display) {
    let _ = writeln!(stderr(), "note: {text}");
}
