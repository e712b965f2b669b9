//! The command line of the trainer: arguments, and exit codes.

use clap::Parser;
use std::process::ExitCode;
use trainer::commands::{Cli, run};

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            error.exit_code()
        }
    }
}
