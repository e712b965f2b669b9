//! The output and the error stream, whose reader may go away at any time: `println!` would panic then.

use crate::error::Error;
use std::fmt::{Arguments, Display};
use std::io::{Write, stderr, stdout};
use std::path::Path;

/// The standard output, for `write!` and `writeln!`.
pub struct Out;

impl Out {
    pub fn write_fmt(&self, text: Arguments<'_>) -> Result<(), Error> {
        let written = stdout().write_fmt(text);
        written.map_err(Error::io("cannot be written", Path::new("standard output")))
    }
}

/// Says what is odd, on the error stream; where nobody reads that, there is nobody to tell.
pub fn warn(text: impl Display) {
    let _ = writeln!(stderr(), "warning: {text}");
}

/// Says what was done that the user may want to know, on the error stream, as the output may be for programs.
pub fn note(text: impl Display) {
    let _ = writeln!(stderr(), "note: {text}");
}
