//! `trainer device`: sends requests to a real or emulated board and compares it with this computer bit for bit. Each subcommand has
//! its own file.

mod bench;
mod board;
mod certify;
mod compare;
mod evaluate;
mod info;

use super::DataArgs;
use super::out::{Out, load_model};
use crate::dataset::Dataset;
use crate::error::Error;
use crate::model::Model;
use board::BoardArgs;
use clap::Subcommand;
use serde::Serialize;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    question: Question,
}

#[derive(Clone, Debug, Subcommand)]
enum Question {
    /// Print the board's name, firmware and parameters
    Info(BoardArgs),
    /// Classify the test images on the board, and compare all logits with this computer's
    Evaluate(evaluate::Args),
    /// Measure each layer: in cycles, or in QEMU in instructions
    Bench(BoardArgs),
    /// Find the first layer and element in which the board differs from this computer
    Compare(ImageArgs),
    /// Run all checks on a board and write a certificate, or check certificates
    Certify(certify::Args),
}

#[derive(Clone, Debug, clap::Args)]
struct ImageArgs {
    #[command(flatten)]
    board: BoardArgs,
    #[command(flatten)]
    data: DataArgs,
    /// Use only the first N test images [default: all for evaluate, 10 for compare]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    images: Option<u32>,
}

pub fn run(args: &Args) -> Result<(), Error> {
    match &args.question {
        Question::Info(args) => info::run(args),
        Question::Evaluate(args) => evaluate::run(args),
        Question::Bench(args) => bench::run(args),
        Question::Compare(args) => compare::run(args),
        Question::Certify(args) => certify::run(args),
    }
}

impl ImageArgs {
    /// Returns the number of images to use.
    fn count(&self, data: &Dataset, default: Option<usize>) -> Result<usize, Error> {
        let all = data.test.len();
        match self.images.map(|images| images as usize) {
            Some(images) if images > all => Err(Error::Settings(format!(
                "--images {images}: the data set has {all} test images"
            ))),
            Some(images) => Ok(images),
            None => Ok(default.unwrap_or(all).min(all)),
        }
    }
}

/// Loads the file of `--weights`. Returns `None` without this option: the board may then have any weights.
fn given_weights(args: &BoardArgs) -> Result<Option<Model>, Error> {
    args.weights.as_deref().map(load_model).transpose()
}

/// Prints a report as one JSON object.
fn print_json(report: &impl Serialize) -> Result<(), Error> {
    let json = serde_json::to_string(report).expect("numbers and strings have a JSON form");
    writeln!(Out, "{json}")
}
