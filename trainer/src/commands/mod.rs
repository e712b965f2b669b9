//! The subcommands, one a file. Only these print.

mod bench;
mod device;
mod doctor;
mod evaluate;
mod exchange;
mod summary;
mod train;

use crate::error::Error;
use clap::{Parser, Subcommand};
use std::path::PathBuf;

/// Train LeNet on Fashion-MNIST, test it, and write weights that a microcontroller runs in place.
///
/// Without a subcommand: train, with the settings of the course.
#[derive(Debug, Parser)]
#[command(name = "trainer", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    train: train::Args,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train, test, and write a run's folder (the default)
    Train(train::Args),
    /// Test weights on a data set
    Evaluate(evaluate::Args),
    /// Ask a board, real or emulated, and compare it with this machine bit for bit
    Device(device::Args),
    /// Look at what this machine has, and how to mend what is missing
    Doctor(doctor::Args),
    /// Write weights in another program's format
    Export(exchange::ExportArgs),
    /// Make a weights file of another program's parameters
    Import(exchange::ImportArgs),
    /// Measure how fast training and testing are on this machine
    Bench(bench::Args),
    /// Show the network, and what a weights file says of itself
    Summary(summary::Args),
}

/// Where the data set is.
#[derive(Clone, Debug, clap::Args)]
struct DataArgs {
    /// Folder with the four IDX files, gzipped or not [default: data/fashion-mnist, else the Debian package's]
    #[arg(long, value_name = "DIR", env = "LENET_DATA", hide_env_values = true)]
    data: Option<PathBuf>,
    /// Go on where files of Fashion-MNIST differ from the published ones
    #[arg(long)]
    allow_modified: bool,
}

impl DataArgs {
    fn load(&self) -> Result<crate::dataset::Dataset, Error> {
        let folder = crate::dataset::find(self.data.as_deref())?;
        crate::dataset::Dataset::load(&folder, self.allow_modified)
    }
}

/// A step cannot have more images than there are.
fn check_batch_size(batch_size: u32, images: usize) -> Result<(), Error> {
    if batch_size as usize > images {
        return Err(Error::Settings(format!(
            "--batch-size {batch_size} is more than the {images} training images"
        )));
    }
    Ok(())
}

/// Does what the command line asks.
///
/// # Errors
/// What the subcommand gives.
pub fn run(cli: Cli) -> Result<(), Error> {
    match cli.command.unwrap_or(Command::Train(cli.train)) {
        Command::Train(args) => train::run(&args),
        Command::Evaluate(args) => evaluate::run(&args),
        Command::Device(args) => device::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Export(args) => exchange::export(&args),
        Command::Import(args) => exchange::import(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Summary(args) => summary::run(&args),
    }
}
