//! Draws the pictures of a run and writes a page with all of them, from the files in the run's folder and the logits of the test
//! images.
//!
//! The report contains only what these inputs say, so the same inputs give the same bytes.

mod confusion;
mod curves;
mod filters;
mod int8;
pub mod layers;
mod letters;
mod live;
mod metrics;
mod page;
mod picture;
mod samples;

pub use int8::Quantized;
pub use samples::{Tile, sheet};

use crate::dataset::{Dataset, hex};
use crate::error::Error;
use crate::evaluate::Confusion;
use crate::model::Model;
use crate::output;
use crate::weights_file::WeightsFile;
use lenet_core::network::{CLASSES, Logits};
use metrics::Metrics;
use rayon::prelude::*;
use samples::mistakes;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// The file name of the page.
pub const PAGE: &str = "report.html";
/// All files that [`write`] writes.
const OUTPUTS: [&str; 8] = [
    PAGE,
    "curves.svg",
    "curves.png",
    "confusion.svg",
    "confusion.png",
    "filters.svg",
    "filters.png",
    "samples.png",
];
/// The number of mistakes to show.
const MISTAKES: usize = 24;

/// The data of a run from which the pictures and the page are made.
struct Run<'a> {
    /// The folder's name.
    name: String,
    metrics: Metrics,
    /// The settings in `config.toml`, in the order of the file.
    settings: toml::Table,
    weights: WeightsFile,
    /// Every file that the training wrote: its name, its length in bytes, and its SHA-256.
    files: Vec<(String, usize, String)>,
    data: &'a Dataset,
    confusion: Confusion,
    mistakes: Vec<samples::Mistake>,
    /// The test images for the section that runs the network.
    choice: live::Choice<'a>,
    /// The int8 version of the network, if there is one.
    quantized: Option<Quantized<'a>>,
}

/// Writes [`PAGE`] and the pictures into the folder of a run, replaces older ones, and returns the path of the page. `logits` are
/// those of `data.test` with the run's weights. `quantized` adds a section about the int8 version of the network.
///
/// # Errors
/// * `Io`: a file of the run cannot be read, or a file of the report cannot be written
/// * `Data`, `Weights`: a file of the run is invalid
pub fn write(
    folder: &Path,
    data: &Dataset,
    logits: &[Logits],
    quantized: Option<Quantized<'_>>,
) -> Result<PathBuf, Error> {
    let mistakes = mistakes(logits, data.test.labels(), MISTAKES);
    let run = Run {
        choice: live::Choice::new(data, logits, &mistakes),
        name: folder_name(folder),
        metrics: Metrics::read(&folder.join("metrics.csv"))?,
        settings: settings(folder)?,
        weights: WeightsFile::load(&folder.join("lenet.weights"))?,
        files: files(folder)?,
        data,
        confusion: Confusion::new(logits, data.test.labels()),
        mistakes,
        quantized,
    };
    let pictures = [
        ("curves", curves::curves(&run.metrics)),
        (
            "confusion",
            confusion::confusion(&run.confusion, &data.classes),
        ),
        ("filters", filters::filters(run.weights.weights().params)),
    ];
    let write = |name: String, bytes: &[u8]| output::replace_unsynced(&folder.join(name), bytes);
    let (drawn, sheet) = rayon::join(
        || {
            pictures.par_iter().try_for_each(|(name, picture)| {
                write(format!("{name}.svg"), picture.svg().as_bytes())?;
                write(format!("{name}.png"), &picture.png())
            })
        },
        || write("samples.png".to_owned(), &mistakes_sheet(&run)),
    );
    drawn.and(sheet)?;
    let page = folder.join(PAGE);
    let [curves, confusion, filters] = pictures.map(|(_, picture)| picture);
    output::replace_unsynced(
        &page,
        page::page(&run, &curves, &confusion, &filters).as_bytes(),
    )?;
    Ok(page)
}

/// Returns a page that runs the network with the given weights files, which differ in their number format. If `data` contains a
/// data set and the logits of its test images, the page offers test images to choose from.
pub fn live_page(models: &[&Model], data: Option<(&Dataset, &[Logits])>) -> String {
    let choice = data.map(|(data, logits)| {
        let mistakes = mistakes(logits, data.test.labels(), MISTAKES);
        live::Choice::new(data, logits, &mistakes)
    });
    live::page(models, choice.as_ref())
}

/// Reads the settings of a run from its `config.toml`.
///
/// # Errors
/// * `Io`: the file cannot be read
/// * `Data`: the file is not valid TOML
pub fn settings(folder: &Path) -> Result<toml::Table, Error> {
    let path = folder.join("config.toml");
    let text = std::fs::read_to_string(&path).map_err(Error::io("cannot be read", &path))?;
    text.parse().map_err(|error: toml::de::Error| Error::Data {
        problem: format!("not the settings of a run: {}", error.message()),
        path,
    })
}

fn mistakes_sheet(run: &Run<'_>) -> Vec<u8> {
    let classes = &run.data.classes;
    let tiles: Vec<_> = run
        .mistakes
        .iter()
        .map(|mistake| Tile {
            pixels: &run.data.test.images()[mistake.index],
            lines: vec![
                short(&classes[mistake.label]),
                format!("predicted: {}", short(&classes[mistake.predicted])),
                format!(
                    "{} %, index {}",
                    per_cent(mistake.confidence.into()),
                    mistake.index
                ),
            ],
        })
        .collect();
    sheet("Most confident mistakes among the test images", &tiles, 6)
}

/// Returns the classes that have a name, an image, or a prediction.
pub fn shown_classes(confusion: &Confusion, classes: &[String; CLASSES]) -> Vec<usize> {
    let counts = &confusion.0;
    (0..CLASSES)
        .filter(|&class| {
            !classes[class].is_empty() || counts.row(class).sum() + counts.column(class).sum() > 0
        })
        .collect()
}

/// Shortens the name of a class to at most 12 characters.
pub fn short(name: &str) -> String {
    const MAX: usize = 12;
    match name.chars().count() > MAX {
        true => name.chars().take(MAX - 1).chain(['…']).collect(),
        false => name.to_owned(),
    }
}

/// Formats a share in per cent, such as 0.8765 as `87.7`. Only a share of exactly 1 becomes `100`; slightly smaller ones become
/// `99.9`.
fn per_cent(share: f64) -> String {
    match share {
        1.0 => "100".to_owned(),
        _ => format!("{:.1}", (share * 100.0).min(99.9)),
    }
}

fn folder_name(folder: &Path) -> String {
    let whole = folder.canonicalize();
    let name = whole.as_deref().unwrap_or(folder).file_name();
    name.map_or("run".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// Returns the name, length and SHA-256 of each file in the folder, sorted by name, without those of the report.
fn files(folder: &Path) -> Result<Vec<(String, usize, String)>, Error> {
    let unreadable = |source| Error::io("cannot be read", folder)(source);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if path.is_file() && !name.starts_with('.') && !OUTPUTS.contains(&name.as_str()) {
            let bytes = std::fs::read(&path).map_err(Error::io("cannot be read", &path))?;
            files.push((name, bytes.len(), hex(&Sha256::digest(&bytes))));
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_share_of_1_is_shown_as_100_per_cent() {
        assert_eq!(
            [1.0, 0.99999, 0.5, 0.0].map(per_cent),
            ["100", "99.9", "50.0", "0.0"]
        );
    }
}
