//! The command line of the trainer: arguments, and exit codes.

use clap::Parser;
use std::io::Write;
use std::process::ExitCode;
use trainer::commands::{Cli, run};

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !error.is_closed_pipe() {
                // If nobody reads the error stream, the exit code still reports the failure.
                let _ = writeln!(std::io::stderr(), "error: {error}");
            }
            error.exit_code()
        }
    }
}
