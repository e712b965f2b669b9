//! `trainer data`: checks a data set before training on it, or draws some of its images.

use super::out::{Out, table, write_new};
use super::{DataArgs, SplitArg};
use crate::dataset::{Dataset, check, hex};
use crate::error::Error;
use crate::report::{Tile, sheet, short};
use lenet_core::network::CLASSES;
use std::path::PathBuf;

#[derive(Clone, Debug, clap::Subcommand)]
pub enum DataCommand {
    /// Read the whole data set, count its images, and list problems
    Check(CheckArgs),
    /// Draw the first images of each class into a PNG file
    Show(ShowArgs),
}

#[derive(Clone, Debug, clap::Args)]
pub struct CheckArgs {
    #[command(flatten)]
    data: DataArgs,
}

#[derive(Clone, Debug, clap::Args)]
pub struct ShowArgs {
    #[command(flatten)]
    data: DataArgs,
    /// Images to draw
    #[arg(long, default_value = "train")]
    split: SplitArg,
    /// Images per class
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=40))]
    per_class: u8,
    /// New PNG file; - means the standard output
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub fn run(command: &DataCommand) -> Result<(), Error> {
    match command {
        DataCommand::Check(args) => check(&args.data.read()?),
        DataCommand::Show(args) => show(args, &args.data.load()?),
    }
}

/// Prints the number of images in each class, the notes and the warnings.
fn check(data: &Dataset) -> Result<(), Error> {
    let mut table = table(["class", "training images", "test images"], 1..);
    for (class, [train, test]) in check::counts(data).into_iter().enumerate() {
        if !data.classes[class].is_empty() || train + test > 0 {
            let name = format!("{class} {}", data.classes[class]);
            table.add_row([name, train.to_string(), test.to_string()]);
        }
    }
    table.add_row([
        "all".to_owned(),
        data.train.len().to_string(),
        data.test.len().to_string(),
    ]);
    writeln!(Out, "data {} in {}", data.name, data.folder.display())?;
    writeln!(Out, "{}", table.trim_fmt())?;
    writeln!(Out, "sha256 {}", hex(&data.sha256))?;
    for note in &data.notes {
        writeln!(Out, "note: {note}")?;
    }
    let warnings = check::warnings(data);
    for warning in &warnings {
        writeln!(Out, "warning: {warning}")?;
    }
    if warnings.is_empty() {
        writeln!(Out, "no problems found")?;
    }
    Ok(())
}

/// Draws the first images of each class, sorted by class. If every class has enough images, each row shows one class.
fn show(args: &ShowArgs, data: &Dataset) -> Result<(), Error> {
    let name = match args.split {
        SplitArg::Train => "training",
        SplitArg::Test => "test",
    };
    let split = args.split.of(data);
    let mut taken = [0; CLASSES];
    let mut tiles: Vec<(u8, Tile<'_>)> = Vec::new();
    for (index, (pixels, &label)) in split.images().iter().zip(split.labels()).enumerate() {
        let (class, taken) = (
            &data.classes[usize::from(label)],
            &mut taken[usize::from(label)],
        );
        if *taken < args.per_class {
            *taken += 1;
            let lines = vec![format!("{} {index}", short(class))];
            tiles.push((label, Tile { pixels, lines }));
        }
    }
    tiles.sort_by_key(|(label, _)| *label);
    let tiles: Vec<Tile<'_>> = tiles.into_iter().map(|(_, tile)| tile).collect();
    let png = sheet(
        &format!("{}: {name} images", data.name),
        &tiles,
        args.per_class.into(),
    );
    write_new(&args.out, &png, format_args!("{} images", tiles.len()))
}
