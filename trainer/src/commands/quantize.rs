//! `trainer quantize`: converts f32 weights to 8-bit integers.

use super::DataArgs;
use super::classes::ClassArgs;
use super::out::{Out, load_weights, table, write_new};
use crate::dataset::hex;
use crate::error::Error;
use crate::evaluate::{Confusion, core_logits, int8_logits};
use crate::quantize::selected::{compare, quantize, ranges};
use crate::weights_file::WeightsFile;
use comfy_table::Table;
use lenet_core::int8::Int8;
use lenet_core::network::{LAYERS, int8};
use lenet_core::weights::{Metadata, Provenance};
use std::path::{Path, PathBuf};

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Weights file in f32, or a safetensors, NumPy or ONNX file that `import` accepts
    weights: PathBuf,
    /// New weights file in int8; - means the standard output
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Number of training images that determine the range of activations that have no fixed range (after ReLU or without an
    /// activation)
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    calibrate: u32,
    /// Share of those activations that the range must contain; larger ones are clipped. 1 means all
    #[arg(long, value_name = "F", default_value_t = 1.0, value_parser = share)]
    range: f64,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    classes: ClassArgs,
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if share > 0.0 && share <= 1.0 => Ok(share),
        Ok(_) => Err("must be above 0 and at most 1".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

pub fn run(args: &Args) -> Result<(), Error> {
    let file = load_weights(&args.weights)?;
    let weights = file.weights();
    let mut data = args.data.load()?;
    args.classes
        .apply(&mut data, &weights.metadata, &args.weights)?;
    let refused = |problem| Error::Foreign {
        path: args.weights.clone(),
        problem,
    };

    let count = data.train.len().min(args.calibrate as usize);
    let ranges = ranges(weights.params, &data.train.images()[..count], args.range);
    let calibrated = ranges.iter().any(|&range| range > 0.0);
    let params = quantize(weights.params, &ranges).map_err(refused)?;

    let images = data.test.images();
    let confusion = |logits: &[_]| Confusion::new(logits, data.test.labels());
    let before = confusion(&core_logits(weights.params, images));
    let after = confusion(&int8_logits(&params, images));
    let about = weights.metadata.provenance;
    let calibration = match calibrated {
        true => format!(
            ", calibrated on {count} training images of {}, range {}",
            data.name, args.range
        ),
        false => String::new(),
    };
    let recipe = format!(
        "{}; quantized from {}{calibration}",
        about.recipe,
        hex(&about.params_sha256)
    );
    let metadata = Metadata {
        provenance: Provenance {
            test_accuracy: after.accuracy() as f32,
            recipe: &recipe,
            ..about
        },
        ..weights.metadata
    };
    let quantized = WeightsFile::<int8::Net>::encoded(&params, &metadata)
        .map_err(|error| refused(error.to_string()))?;

    let bytes = quantized.bytes();
    write_new(&args.out, bytes, format_args!("{} bytes", bytes.len()))?;
    if args.out == Path::new("-") {
        return Ok(());
    }
    let difference = compare(weights.params, &params, images);
    writeln!(
        Out,
        "{}",
        layer_table(&params, &difference.signal_to_noise).trim_fmt()
    )?;
    for (numbers, confusion) in [("f32", &before), ("int8", &after)] {
        writeln!(
            Out,
            "test acc {:.4} ({} of {}) in {numbers}",
            confusion.accuracy(),
            confusion.correct(),
            confusion.total()
        )?;
    }
    writeln!(
        Out,
        "{} of {} images keep their class; the largest change of a logit is {:.3}",
        difference.same_class,
        images.len(),
        difference.largest_change
    )?;
    writeln!(
        Out,
        "{} bytes in f32, {} bytes in int8",
        file.bytes().len(),
        bytes.len()
    )?;
    writeln!(
        Out,
        "sha256 of the parameters {}",
        hex(&quantized.weights().metadata.provenance.params_sha256)
    )
}

/// Returns a table with the output step and the signal-to-noise ratio of each layer.
fn layer_table(params: &int8::Params, signal_to_noise: &[f64]) -> Table {
    let mut table = table(["layer", "output step", "signal to noise (dB)"], 1..);
    for (index, (layer, db)) in LAYERS.iter().zip(signal_to_noise).enumerate() {
        let step = match index + 1 == LAYERS.len() {
            true => "-".to_owned(),
            false => int8::Net::layer(params, index)
                .map_or_else(String::new, |layer| format!("{:.6}", layer.step)),
        };
        table.add_row([layer.name.to_owned(), step, format!("{db:.1}")]);
    }
    table
}
