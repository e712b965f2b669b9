//! `trainer summary`: prints the layers of the network and the metadata of a weights file.

use super::out::{Out, load_model, table};
use crate::dataset::hex;
use crate::error::Error;
use crate::report::layers;
use std::path::PathBuf;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Weights file (f32 or int8), or a safetensors, NumPy or ONNX file that `import` accepts
    weights: Option<PathBuf>,
}

pub fn run(args: &Args) -> Result<(), Error> {
    let file = args.weights.as_deref().map(load_model).transpose()?;
    writeln!(Out, "{}", network_table())?;
    let (Some(path), Some(file)) = (&args.weights, &file) else {
        return Ok(());
    };
    let metadata = file.metadata();
    let about = metadata.provenance;
    writeln!(
        Out,
        "{}: {} bytes, checksum {:08x}, self-test passed",
        path.display(),
        file.bytes().len(),
        file.crc()
    )?;
    let named = metadata.classes.iter().filter(|name| !name.is_empty());
    let classes = named.collect::<Vec<_>>().join(", ");
    writeln!(Out, "  network        {}", file.name())?;
    writeln!(Out, "  layers         {}", file.description())?;
    writeln!(Out, "  numbers        {}", file.numbers())?;
    writeln!(Out, "  classes        {classes}")?;
    writeln!(
        Out,
        "  data set       {} (sha256 {})",
        about.dataset,
        hex(&about.dataset_sha256)
    )?;
    writeln!(Out, "  recipe         {}", about.recipe)?;
    writeln!(Out, "  seed           {}", about.seed)?;
    writeln!(Out, "  epochs         {}", about.epochs)?;
    writeln!(Out, "  batch size     {}", about.batch_size)?;
    writeln!(Out, "  learning rate  {}", about.learning_rate)?;
    writeln!(Out, "  test accuracy  {:.4}", about.test_accuracy)?;
    writeln!(Out, "  parameters     sha256 {}", hex(&about.params_sha256))?;
    Ok(())
}

/// Returns a table with one row per layer.
pub fn network_table() -> String {
    let mut table = table(layers::HEADER, 2..);
    table.add_rows(layers::rows());
    table.trim_fmt()
}
