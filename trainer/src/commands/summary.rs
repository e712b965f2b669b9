//! `trainer summary`: the network, and what a weights file says of itself.

use crate::dataset::hex;
use crate::error::Error;
use crate::weights_file::WeightsFile;
use comfy_table::{CellAlignment, Table, presets::NOTHING};
use lenet_core::arch::{LAYERS, Layer, NUM_PARAMS};
use lenet_core::network::Activations;
use std::path::PathBuf;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Weights file, or a safetensors file with PyTorch's names
    weights: Option<PathBuf>,
}

pub fn run(args: &Args) -> Result<(), Error> {
    println!("{}", network_table());
    let Some(path) = &args.weights else {
        return Ok(());
    };
    let file = WeightsFile::load(path)?;
    let weights = file.weights();
    let about = weights.metadata.provenance;
    println!(
        "{}: {} bytes, checksum {:08x}, self-test passed",
        path.display(),
        file.bytes().len(),
        weights.crc
    );
    println!("  classes        {}", weights.metadata.classes.join(", "));
    println!(
        "  data set       {} (sha256 {})",
        about.dataset,
        hex(&about.dataset_sha256)
    );
    println!("  recipe         {}", about.recipe);
    println!("  seed           {}", about.seed);
    println!("  epochs         {}", about.epochs);
    println!("  batch size     {}", about.batch_size);
    println!("  learning rate  {}", about.learning_rate);
    println!("  test accuracy  {:.4}", about.test_accuracy);
    println!("  parameters     sha256 {}", hex(&about.params_sha256));
    Ok(())
}

/// A row a layer: output shape, parameters, multiply-adds and RAM for one image.
pub fn network_table() -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header([
        "layer",
        "computes",
        "output",
        "parameters",
        "multiply-adds",
        "RAM (bytes)",
    ]);
    for layer in &LAYERS {
        let [c, h, w] = layer.out;
        let shape = if h * w == 1 {
            c.to_string()
        } else {
            format!("{c}x{h}x{w}")
        };
        table.add_row([
            layer.name.to_owned(),
            layer.op.describe().to_owned(),
            shape,
            grouped(layer.params()),
            grouped(layer.multiply_adds()),
            grouped(layer.ram()),
        ]);
    }
    let multiply_adds = LAYERS.iter().map(Layer::multiply_adds).sum();
    table.add_row([
        "total".to_owned(),
        String::new(),
        String::new(),
        grouped(NUM_PARAMS),
        grouped(multiply_adds),
        grouped(size_of::<Activations>()),
    ]);
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// 44426 as `44,426`.
pub fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(|g| str::from_utf8(g).expect("digits"))
        .collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        assert_eq!(
            [0, 999, 1000, 44_426, 1_234_567].map(grouped),
            ["0", "999", "1,000", "44,426", "1,234,567"]
        );
    }
}
