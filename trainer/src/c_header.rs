//! The parameters as a C header, for programs in C that bring a forward pass of their own.
//!
//! Valid C99 and C++. Every number has as many digits as give back its bits, so a compiler that rounds correctly holds
//! the same parameters; the logits of the self-test tell whether the program computes the same as well.

use crate::dataset::hex;
use crate::weights_file::Weights;
use lenet_core::network::{CLASSES, LAYERS, NAME, TENSORS};
use lenet_core::plan::ShapeText;
use std::fmt::Write;

/// Values a line.
const COLUMNS: usize = 8;

/// The text of the header.
pub fn write(weights: &Weights<'_>) -> String {
    let about = weights.metadata.provenance;
    let mut text = format!(
        "/* The parameters of the network {NAME}, written by {} {}.\n *\n * data set {}, {}\n * seed {}, {} epochs, test accuracy {:.4}\n *\n \
         * The layers in order, each with the shape of its output (channels first; images are values in 0..1):\n",
        env!("CARGO_PKG_NAME"),
        env!("CARGO_PKG_VERSION"),
        literal(about.dataset),
        literal(about.recipe),
        about.seed,
        about.epochs,
        about.test_accuracy,
    );
    for layer in &LAYERS {
        let (op, shape) = (layer.to_string(), ShapeText(layer.output));
        _ = writeln!(text, " *   {:<6} {op:<40} {shape}", layer.name);
    }
    text += " */\n#ifndef LENET_WEIGHTS_H\n#define LENET_WEIGHTS_H\n\n";
    _ = writeln!(
        text,
        "/* SHA-256 of the parameters as little-endian floats in this order. */\n#define LENET_PARAMS_SHA256 \"{}\"\n",
        hex(&about.params_sha256)
    );
    for tensor in &TENSORS {
        let values = &weights.params.as_flat()[tensor.offset..][..tensor.len()];
        array(&mut text, tensor.name, tensor.dims(), values);
    }
    text += "/* Logits of the self-test, whose pixel (y, x) of channel c is ((37 y + 101 x + 3 y x + 85 c) % 256) / 255. */\n";
    array(
        &mut text,
        "self_test_logits",
        &[CLASSES],
        &weights.self_test,
    );
    _ = writeln!(
        text,
        "static const char *const lenet_classes[{CLASSES}] = {{"
    );
    for class in 0..CLASSES {
        _ = writeln!(
            text,
            "    {},",
            literal(weights.metadata.classes.get(class))
        );
    }
    text += "};\n\n#endif\n";
    text
}

fn array(text: &mut String, name: &str, dims: &[usize], values: &[f32]) {
    _ = write!(text, "static const float lenet_{name}");
    for dim in dims {
        _ = write!(text, "[{dim}]");
    }
    *text += " = ";
    nested(text, dims, values);
    *text += ";\n\n";
}

/// The values in braces, a pair for each dimension.
fn nested(text: &mut String, dims: &[usize], values: &[f32]) {
    *text += "{";
    match dims {
        [_] => {
            for line in values.chunks(COLUMNS) {
                *text += "\n    ";
                // Debug's digits give back the bits, and always have a point or an exponent.
                line.iter()
                    .for_each(|value| _ = write!(text, "{value:?}f, "));
                text.truncate(text.len() - 1);
            }
            *text += "\n";
        }
        [count, inner @ ..] => {
            for part in values.chunks(values.len() / count) {
                nested(text, inner, part);
                *text += ",\n";
            }
        }
        [] => unreachable!("no tensor is a scalar"),
    }
    *text += "}";
}

/// A string literal, also safe in a comment: bytes that could mean something to C are octal.
fn literal(text: &str) -> String {
    let mut literal = "\"".to_owned();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => literal.push(byte.into()),
            b' ' | b'.' | b',' | b'-' | b'_' | b'+' | b'=' | b'(' | b')' => {
                literal.push(byte.into())
            }
            _ => _ = write!(literal, "\\{byte:03o}"),
        }
    }
    literal + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_are_braced_by_dimension() {
        let mut text = String::new();
        array(&mut text, "x", &[2, 1, 2], &[1.0, -0.5, 1e-30, 0.1]);
        assert_eq!(
            text,
            "static const float lenet_x[2][1][2] = {{{\n    1.0f, -0.5f,\n},\n},\n{{\n    1e-30f, 0.1f,\n},\n},\n};\n\n"
        );
    }

    #[test]
    fn no_text_ends_a_comment_or_a_string() {
        assert_eq!(literal("*/ \"\\ ?"), "\"\\052\\057 \\042\\134 \\077\"");
        assert_eq!(literal("Kleid (ä)"), "\"Kleid (\\303\\244)\"");
    }
}
