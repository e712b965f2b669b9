//! `trainer compare`: compares two sets of parameters, or parameters with another program's outputs, element by element.

use super::DataArgs;
use super::classes::for_comparison;
use super::out::{Out, load_model, table};
use crate::classes::reordered;
use crate::dataset::Dataset;
use crate::device::ulps;
use crate::error::Error;
use crate::model::Model;
use crate::safetensors;
use comfy_table::Table;
use lenet_core::network::{CLASSES, LAYERS, Params, Pixels, TENSORS};
use lenet_core::ops::argmax;
use std::path::{Path, PathBuf};

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Weights file (f32 or int8), or a safetensors, NumPy or ONNX file that `import` accepts
    a: PathBuf,
    /// Another weights file, or a safetensors file with another program's outputs for the test images: `logits` (N, classes)
    /// in f32 or f64, and optionally the outputs of other layers under their names, such as `conv1` (N, 6, 12, 12)
    b: PathBuf,
    /// Compare the outputs of every layer, not only the logits
    #[arg(long)]
    per_layer: bool,
    #[command(flatten)]
    data: DataArgs,
    /// Compare only the first N test images [default: all, or as many as the file has outputs for]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    images: Option<u32>,
    /// Largest difference to accept; 0 requires equal bits
    #[arg(long, default_value_t = 0.0, value_name = "F", value_parser = tolerance)]
    tolerance: f64,
}

fn tolerance(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(tolerance) if tolerance >= 0.0 && tolerance.is_finite() => Ok(tolerance),
        Ok(_) => Err("must be 0 or above, and finite".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// One side of the comparison.
enum Side {
    /// A network, and the order in which to compare its outputs if it differs from that of the file.
    Weights(Model, Option<Vec<usize>>),
    Outputs(safetensors::Outputs),
}

impl Side {
    fn load(path: &Path) -> Result<Self, Error> {
        let bytes = std::fs::read(path).map_err(Error::io("cannot be read", path))?;
        match safetensors::read_outputs(&bytes) {
            Some(Ok(outputs)) => Ok(Self::Outputs(outputs)),
            Some(Err(problem)) => Err(Error::Foreign {
                path: path.to_owned(),
                problem,
            }),
            None => Ok(Self::Weights(load_model(path)?, None)),
        }
    }

    /// Returns the number of images for which there are outputs.
    fn images(&self, data: &Option<Dataset>) -> usize {
        match (self, data) {
            (Self::Outputs(outputs), _) => outputs.images,
            (Self::Weights(..), data) => data.as_ref().map_or(0, |data| data.test.len()),
        }
    }

    /// Returns the outputs of each layer, or only of the last, for the first `count` images. `None` also stands for a layer that
    /// an outputs file lacks.
    fn layers(
        &self,
        images: &[Pixels],
        count: usize,
        per_layer: bool,
    ) -> [Option<Vec<f32>>; LAYERS.len()] {
        match self {
            Self::Outputs(outputs) => outputs.layers.clone().map(|values| {
                let mut values = values?;
                values.truncate(values.len() / outputs.images * count);
                Some(values)
            }),
            Self::Weights(model, order) => {
                let mut outputs = model.real_layers(images);
                for layers in &mut outputs {
                    if let (Some(order), Some(logits)) = (order, layers.last_mut()) {
                        *logits = order.iter().map(|&class| logits[class]).collect();
                    }
                }
                std::array::from_fn(|layer| {
                    let is_compared = per_layer || layer + 1 == LAYERS.len();
                    is_compared.then(|| {
                        let mut values = Vec::new();
                        for outputs in &outputs {
                            values.extend_from_slice(&outputs[layer]);
                        }
                        values
                    })
                })
            }
        }
    }
}

/// The differences between two slices of values.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Spread {
    values: usize,
    /// Values whose bits differ.
    differing: usize,
    /// The largest absolute difference. It is infinite if one value is NaN and the other does not have the same bits.
    largest: f64,
    /// The largest difference in ulps, that is, in steps between neighbouring floats; `u32::MAX` if a value is NaN.
    ulps: u32,
    /// The index and the two values of the first difference.
    first: Option<(usize, f32, f32)>,
}

impl Spread {
    fn of(a: &[f32], b: &[f32]) -> Self {
        let mut spread = Self {
            values: a.len(),
            ..Self::default()
        };
        let pairs = a.iter().zip(b).enumerate();
        for (index, (&a, &b)) in pairs.filter(|(_, (a, b))| a.to_bits() != b.to_bits()) {
            let distance = (f64::from(a) - f64::from(b)).abs();
            let distance = if distance.is_nan() {
                f64::INFINITY
            } else {
                distance
            };
            spread.differing += 1;
            spread.largest = spread.largest.max(distance);
            spread.ulps = spread.ulps.max(ulps(a, b).unwrap_or(u32::MAX));
            spread.first.get_or_insert((index, a, b));
        }
        spread
    }

    fn passes(&self, tolerance: f64) -> bool {
        self.differing == 0 || tolerance > 0.0 && self.largest <= tolerance
    }
}

/// A line of the comparison: a tensor, or the outputs of a layer.
struct Line {
    name: &'static str,
    spread: Spread,
    /// The number of values per image, for the outputs of a layer.
    per_image: Option<usize>,
}

impl Line {
    /// Describes the position of the first difference.
    fn place(&self) -> String {
        match (self.spread.first, self.per_image) {
            (None, _) => String::new(),
            (Some((index, ..)), None) => format!("element {index}"),
            (Some((index, ..)), Some(len)) => {
                format!("image {}, element {}", index / len, index % len)
            }
        }
    }
}

pub fn run(args: &Args) -> Result<(), Error> {
    let (a, mut b) = (Side::load(&args.a)?, Side::load(&args.b)?);
    let mut lines = Vec::new();
    if let (Side::Weights(a, _), Side::Weights(b, order)) = (&a, &mut b) {
        *order = for_comparison((&a.metadata(), &args.a), (&b.metadata(), &args.b));
        // An f32 network and an int8 network have different parameters, so only their outputs can be compared.
        if let (Model::F32(a), Model::F32(b)) = (a, b) {
            let mut b = Box::new(*b.weights().params);
            if let Some(order) = order {
                b = reordered(&b, order);
            }
            lines.extend(tensors(a.weights().params, &b));
        }
    }

    let needs_data = [&a, &b]
        .iter()
        .any(|side| matches!(side, Side::Weights(..)));
    let data = needs_data.then(|| args.data.load()).transpose()?;
    let available = [&a, &b].map(|side| side.images(&data));
    let count = match args.images {
        Some(count) => count as usize,
        None => available[0].min(available[1]),
    };
    for (available, path) in available.into_iter().zip([&args.a, &args.b]) {
        if available < count {
            return Err(Error::Settings(format!(
                "--images {count}: {} has {available} images",
                path.display()
            )));
        }
    }
    let images = data
        .as_ref()
        .map_or(&[][..], |data| &data.test.images()[..count]);
    let [of_a, of_b] = [&a, &b].map(|side| side.layers(images, count, args.per_layer));
    let mut moved = None;
    for (index, ((layer, a), b)) in LAYERS.iter().zip(&of_a).zip(&of_b).enumerate() {
        let is_logits = index + 1 == LAYERS.len();
        if let (Some(a), Some(b)) = (a, b)
            && (args.per_layer || is_logits)
        {
            lines.push(Line {
                name: if is_logits { "logits" } else { layer.name },
                spread: Spread::of(a, b),
                per_image: Some(layer.output_len()),
            });
            if is_logits {
                let (a, b) = (
                    a.as_chunks::<CLASSES>().0.iter(),
                    b.as_chunks::<CLASSES>().0,
                );
                moved = Some(a.zip(b).filter(|(a, b)| argmax(*a) != argmax(*b)).count());
            }
        }
    }
    writeln!(Out, "{}", comparison(&lines).trim_fmt())?;
    if let Some(moved) = moved {
        writeln!(Out, "{moved} of {count} images change class")?;
    }
    match lines
        .iter()
        .find(|line| !line.spread.passes(args.tolerance))
    {
        None if lines.iter().all(|line| line.spread.differing == 0) => {
            writeln!(Out, "equal bit for bit")?;
            Ok(())
        }
        None => {
            writeln!(Out, "within {}", args.tolerance)?;
            Ok(())
        }
        Some(line) => Err(Error::Mismatch(format!(
            "{} and {} differ: {} by up to {:.2e}, first at {}; --tolerance is {}",
            args.a.display(),
            args.b.display(),
            line.name,
            line.spread.largest,
            line.place(),
            args.tolerance
        ))),
    }
}

/// Compares parameters tensor by tensor.
fn tensors(a: &Params, b: &Params) -> impl Iterator<Item = Line> {
    TENSORS.iter().map(|tensor| {
        let range = tensor.offset..tensor.offset + tensor.len();
        Line {
            name: tensor.name,
            spread: Spread::of(&a.as_flat()[range.clone()], &b.as_flat()[range]),
            per_image: None,
        }
    })
}

fn comparison(lines: &[Line]) -> Table {
    let mut table = table(
        ["", "values", "differ", "largest", "ulp", "first difference"],
        1..5,
    );
    for line in lines {
        let Spread {
            values,
            differing,
            largest,
            ulps,
            first,
        } = line.spread;
        table.add_row([
            line.name.to_owned(),
            values.to_string(),
            differing.to_string(),
            if differing == 0 {
                "0".to_owned()
            } else {
                format!("{largest:.2e}")
            },
            ulps.to_string(),
            first.map_or_else(String::new, |(_, a, b)| {
                format!("{}: {a:?}, {b:?}", line.place())
            }),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differing_bits_are_counted_and_the_largest_and_the_first_difference_kept() {
        let next = f32::from_bits(1f32.to_bits() + 3);
        let spread = Spread::of(&[1.0, 1.0, 0.0, 5.0], &[1.0, next, -0.0, 4.5]);
        let expected = Spread {
            values: 4,
            differing: 3,
            largest: 0.5,
            ulps: ulps(5.0, 4.5).unwrap(),
            first: Some((1, 1.0, next)),
        };
        assert_eq!(spread, expected);
        assert!(!spread.passes(0.0) && !spread.passes(0.4) && spread.passes(0.5));
    }

    #[test]
    fn zeros_of_different_sign_differ_in_their_bits() {
        let spread = Spread::of(&[0.0], &[-0.0]);
        assert!(!spread.passes(0.0) && spread.passes(f64::MIN_POSITIVE));
    }

    #[test]
    fn nan_equals_only_a_nan_of_the_same_bits() {
        assert!(Spread::of(&[f32::NAN], &[f32::NAN]).passes(0.0));
        assert!(!Spread::of(&[f32::NAN], &[0.0]).passes(1e300));
    }
}
