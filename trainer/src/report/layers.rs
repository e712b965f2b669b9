//! The table of layers, for the terminal and for the report.

use lenet_core::network::{Activations, LAYERS, NUM_PARAMS};
use lenet_core::plan::{Layer, ShapeText};

/// The headings of the columns; those from the third on contain numbers.
pub const HEADER: [&str; 6] = [
    "layer",
    "computes",
    "output",
    "parameters",
    "multiply-adds",
    "RAM (bytes)",
];

/// Returns one row per layer, for one image, and a row of totals.
pub fn rows() -> Vec<[String; 6]> {
    let mut rows: Vec<_> = LAYERS
        .iter()
        .map(|layer| {
            [
                layer.name.to_owned(),
                layer.to_string(),
                ShapeText(layer.output).to_string(),
                grouped(layer.params()),
                grouped(layer.multiply_adds()),
                grouped(layer.ram()),
            ]
        })
        .collect();
    rows.push([
        "total".to_owned(),
        String::new(),
        String::new(),
        grouped(NUM_PARAMS),
        grouped(LAYERS.iter().map(Layer::multiply_adds).sum()),
        grouped(size_of::<Activations>()),
    ]);
    rows
}

/// Formats a number with separators: 44426 as `44,426`.
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
