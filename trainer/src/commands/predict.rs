//! `trainer predict`: classifies single images.

use super::DataArgs;
use super::out::{Out, load_model, note, warn};
use crate::dataset::check::image_warnings;
use crate::dataset::read_image;
use crate::error::Error;
use crate::model::Model;
use crate::weights_file::class_names;
use lenet_core::network::{CLASSES, Pixels};
use lenet_core::ops::softmax;
use serde::Serialize;
use std::path::PathBuf;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Weights file (f32 or int8), or a safetensors, NumPy or ONNX file that `import` accepts
    weights: PathBuf,
    /// PNG, JPEG, BMP or PNM files with the size of the network's input, bright on black
    #[arg(required_unless_present = "index")]
    images: Vec<PathBuf>,
    /// Index of an image of the test set, from 0; may be repeated
    #[arg(long, value_name = "N")]
    index: Vec<usize>,
    /// Print a JSON array with one object per image
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataArgs,
}

/// The number of classes to print for an image.
const TOP: usize = 3;

/// The result for an image.
#[derive(Debug, Serialize)]
struct Prediction<'a> {
    /// The file, if it came from one.
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<std::borrow::Cow<'a, str>>,
    /// The index in the test set, if it came from there.
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
    /// The true class, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    /// The most likely classes, in decreasing order.
    top: Vec<Guess<'a>>,
}

#[derive(Debug, Serialize)]
struct Guess<'a> {
    class: &'a str,
    /// The softmax of the logits, from 0 to 1.
    confidence: f32,
}

pub fn run(args: &Args) -> Result<(), Error> {
    let model = load_model(&args.weights)?;
    let metadata = model.metadata();
    let mut images: Vec<(Prediction<'_>, Pixels)> = Vec::new();
    for path in &args.images {
        let bytes = std::fs::read(path).map_err(Error::io("cannot be read", path))?;
        let image = read_image(&bytes, args.data.images.into()).map_err(|problem| Error::Data {
            path: path.clone(),
            problem,
        })?;
        let pixels = image.pixels;
        if image.is_converted() {
            note(format_args!(
                "{}: the colours are converted to grey",
                path.display()
            ));
        }
        for warning in image_warnings(&pixels) {
            warn(format_args!("{}: {warning}", path.display()));
        }
        let top = top(&model, &pixels, &class_names(&metadata.classes));
        images.push((
            Prediction {
                file: Some(path.to_string_lossy()),
                index: None,
                label: None,
                top,
            },
            pixels,
        ));
    }
    if !args.index.is_empty() {
        let test = args.data.load()?;
        for &index in &args.index {
            let Some(pixels) = test.test.images().get(index) else {
                return Err(Error::Settings(format!(
                    "--index {index}: the test set of {} has images 0 to {}",
                    test.name,
                    test.test.len() - 1
                )));
            };
            let label = test.classes[usize::from(test.test.labels()[index])].clone();
            let top = top(&model, pixels, &class_names(&metadata.classes));
            let prediction = Prediction {
                file: None,
                index: Some(index),
                label: Some(label),
                top,
            };
            images.push((prediction, *pixels));
        }
    }
    if args.json {
        let predictions: Vec<_> = images.iter().map(|(prediction, _)| prediction).collect();
        writeln!(
            Out,
            "{}",
            serde_json::to_string_pretty(&predictions).expect("texts and numbers")
        )?;
        return Ok(());
    }
    for (
        Prediction {
            file,
            index,
            label,
            top,
        },
        pixels,
    ) in &images
    {
        match (file, index, label) {
            (Some(path), ..) => writeln!(Out, "{path}")?,
            (_, Some(index), Some(label)) => writeln!(Out, "test image {index}, {label}")?,
            _ => unreachable!("an image is a file or one of the test set"),
        }
        write!(Out, "{}", characters(pixels))?;
        for Guess { class, confidence } in top {
            writeln!(Out, "{:6.2} % {class}", confidence * 100.0)?;
        }
    }
    Ok(())
}

/// Returns the most likely classes among those that have a name. Of classes with equal logits, the first comes first.
fn top<'a>(model: &Model, pixels: &Pixels, classes: &[&'a str; CLASSES]) -> Vec<Guess<'a>> {
    let [logits] = model.logits(&[*pixels])[..] else {
        unreachable!("one image gives one row of logits")
    };
    let mut confidences = logits;
    softmax(&logits, &mut confidences);
    let mut order: Vec<usize> = (0..CLASSES)
        .filter(|&class| !classes[class].is_empty())
        .collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    order
        .into_iter()
        .take(TOP)
        .map(|class| Guess {
            class: classes[class],
            confidence: confidences[class],
        })
        .collect()
}

/// Draws the image in characters, with denser characters for brighter pixels. A row of characters stands for two rows of pixels,
/// because a character is about twice as high as wide.
fn characters<const C: usize, const H: usize, const W: usize>(
    pixels: &[[[u8; W]; H]; C],
) -> String {
    const RAMP: &[u8; 10] = b" .:-=+*#%@";
    let mut text = String::new();
    let grey = |y: usize, x: usize| {
        let sum: usize = pixels.iter().map(|map| usize::from(map[y][x])).sum();
        sum / pixels.len()
    };
    for y in (0..H).step_by(2) {
        let line: String = (0..W)
            .map(|x| {
                let grey = (grey(y, x) + grey((y + 1).min(H - 1), x)) / 2;
                char::from(RAMP[grey * RAMP.len() / 256])
            })
            .collect();
        text += line.trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brighter_pixels_get_denser_characters() {
        let mut pixels = [[[0; 28]; 28]; 1];
        pixels[0][0][0] = 255;
        pixels[0][1][0] = 255;
        pixels[0][2][1] = 255;
        pixels[0][27] = [255; 28];
        let text = characters(&pixels);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 14);
        assert_eq!((lines[0], lines[1], lines[2]), ("@", " =", ""));
        assert_eq!(lines[13], "=".repeat(28));
    }
}
