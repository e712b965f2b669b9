//! The parameters as a C header, for programs in C that bring a forward pass of their own.
//!
//! Valid C99 and C++. Every number has as many digits as give back its bits, so a compiler that rounds correctly holds
//! the same parameters; the logits of the self-test tell whether the program computes the same as well.
//!
//! The header of an int8 network has integers, and a comment that explains how to compute with them.

use crate::dataset::hex;
use crate::quantize::scaled;
use crate::weights_file::Weights;
use lenet_core::int8::{Finishes, Int8, table};
use lenet_core::layer::Activation;
use lenet_core::network::{CLASSES, LAYERS, NAME, TENSORS, int8};
use lenet_core::plan::ShapeText;
use lenet_core::weights::{self, Metadata};
use std::fmt::{Debug, Write};

/// Values a line.
const COLUMNS: usize = 8;

/// Returns the text of the header.
pub fn write(weights: &Weights<'_>) -> String {
    let mut text = start(
        &weights.metadata,
        "channels first; images are values in 0..1",
        "",
        "the parameters as little-endian floats in this order",
    );
    for tensor in &TENSORS {
        let values = &weights.params.as_flat()[tensor.offset..][..tensor.len()];
        array(&mut text, tensor.name, tensor.dims(), values);
    }
    end(&mut text, weights.self_test, &weights.metadata);
    text
}

/// Explains the arithmetic in the header of an int8 network. A line for each activation of the network follows, then [`LOGITS`].
const ARITHMETIC: &str = " *
 * Activations are bytes. A byte q of an image, as it is stored, is the value q / 255; a byte of a layer is (q - zero) * step.
 * Sums are int32_t: bias plus the products of weight and byte. Padding is the byte zero of the layer before, 0 in the first.
 * A maximum may be taken of sums; an average is (2 * sum of n bytes + n) / (2 * n). Of a sum the byte is, with
 *     x = (uint32_t)(max(-limit, min(sum, limit)) * factor):
";
const RELU: &str = " *     Relu: (uint32_t)(max(0, min(sum, limit)) * factor) + (1u << 23) >> 24
";
const IDENTITY: &str = " *     no activation: x + (1u << 31) + (1u << 23) >> 24
";
const SIGMOID: &str = " *     Sigmoid: lenet_sigmoid[x + (1u << 31) + (1u << 21) >> 22]
";
const TANH: &str = " *     Tanh: lenet_tanh[x + (1u << 31) + (1u << 21) >> 22]
";
const LOGITS: &str = " * The logits are (float)sum * scale.
";

/// Returns the text of the header of an int8 network.
pub fn write_int8(weights: &weights::Weights<'_, int8::Net>) -> String {
    let uses = |activation| {
        let hidden = &LAYERS[..LAYERS.len() - 1];
        hidden.iter().any(|layer| layer.activation == activation)
    };
    let mut arithmetic = ARITHMETIC.to_owned();
    for (activation, line) in [
        (Activation::Relu, RELU),
        (Activation::Identity, IDENTITY),
        (Activation::Sigmoid, SIGMOID),
        (Activation::Tanh, TANH),
    ] {
        if uses(activation) {
            arithmetic += line;
        }
    }
    let mut text = start(
        &weights.metadata,
        "channels first",
        &(arithmetic + LOGITS),
        "the parameters as the weights file has them",
    );
    text += "#include <stdint.h>\n\n";
    let layers = scaled::<int8::Net>(weights.params);
    for (index, (layer, scaled)) in LAYERS.iter().zip(&layers).enumerate() {
        let name = layer.name;
        let params = int8::Net::layer(weights.params, index).expect("as many layers");
        let tensor = &TENSORS[2 * index];
        array(&mut text, tensor.name, tensor.dims(), &scaled.weight);
        array(
            &mut text,
            &format!("{name}_bias"),
            &[params.bias.len()],
            params.bias,
        );
        match params.finish {
            Finishes::Hidden(all) => {
                let [factor, limit]: [Vec<i32>; 2] = [
                    all.iter().map(|rescale| rescale.factor).collect(),
                    all.iter().map(|rescale| rescale.limit).collect(),
                ];
                array(
                    &mut text,
                    &format!("{name}_factor"),
                    &[factor.len()],
                    &factor,
                );
                array(&mut text, &format!("{name}_limit"), &[limit.len()], &limit);
                _ = writeln!(
                    text,
                    "static const float lenet_{name}_step = {:?}f;\nstatic const uint8_t lenet_{name}_zero = {};\n",
                    scaled.step, scaled.zero
                );
            }
            Finishes::Last(all) => {
                let scale: Vec<f32> = all.iter().map(|scale| scale.0).collect();
                array(&mut text, &format!("{name}_scale"), &[scale.len()], &scale);
            }
        }
    }
    for (activation, name, table) in [
        (Activation::Sigmoid, "sigmoid", &table::SIGMOID),
        (Activation::Tanh, "tanh", &table::TANH),
    ] {
        if uses(activation) {
            array(&mut text, name, &[table.len()], table);
        }
    }
    end(&mut text, weights.self_test, &weights.metadata);
    text
}

/// Returns the text before the arrays.
fn start(metadata: &Metadata<'_>, shapes: &str, arithmetic: &str, hashed: &str) -> String {
    let about = metadata.provenance;
    let mut text = format!(
        "/* The parameters of the network {NAME}, written by {} {}.\n *\n * data set {}, {}\n * seed {}, {} epochs, test accuracy {:.4}\n *\n \
         * The layers in order, each with the shape of its output ({shapes}):\n",
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
    text += arithmetic;
    text += " */\n#ifndef LENET_WEIGHTS_H\n#define LENET_WEIGHTS_H\n\n";
    _ = writeln!(
        text,
        "/* SHA-256 of {hashed}. */\n#define LENET_PARAMS_SHA256 \"{}\"\n",
        hex(&about.params_sha256)
    );
    text
}

/// Adds the text after the arrays of parameters.
fn end(text: &mut String, self_test: [f32; CLASSES], metadata: &Metadata<'_>) {
    *text += "/* Logits of the self-test, whose pixel (y, x) of channel c is ((37 y + 101 x + 3 y x + 85 c) % 256) / 255. */\n";
    array(text, "self_test_logits", &[CLASSES], &self_test);
    _ = writeln!(
        text,
        "static const char *const lenet_classes[{CLASSES}] = {{"
    );
    for class in 0..CLASSES {
        _ = writeln!(text, "    {},", literal(metadata.classes.get(class)));
    }
    *text += "};\n\n#endif\n";
}

/// A number that C has a type and a literal for.
trait Number: Copy + Debug {
    const TYPE: &str;
    /// What follows the digits of a literal.
    const SUFFIX: &str = "";
}

impl Number for f32 {
    const TYPE: &str = "float";
    const SUFFIX: &str = "f";
}

impl Number for i32 {
    const TYPE: &str = "int32_t";
}

impl Number for i8 {
    const TYPE: &str = "int8_t";
}

impl Number for u8 {
    const TYPE: &str = "uint8_t";
}

fn array<T: Number>(text: &mut String, name: &str, dims: &[usize], values: &[T]) {
    _ = write!(text, "static const {} lenet_{name}", T::TYPE);
    for dim in dims {
        _ = write!(text, "[{dim}]");
    }
    *text += " = ";
    nested(text, dims, values);
    *text += ";\n\n";
}

/// Adds the values in braces, a pair for each dimension.
fn nested<T: Number>(text: &mut String, dims: &[usize], values: &[T]) {
    *text += "{";
    match dims {
        [_] => {
            for line in values.chunks(COLUMNS) {
                *text += "\n    ";
                // Debug's digits give back the bits, and always have a point or an exponent.
                line.iter()
                    .for_each(|value| _ = write!(text, "{value:?}{}, ", T::SUFFIX));
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
        array(&mut text, "x", &[2, 1, 2], &[1.0f32, -0.5, 1e-30, 0.1]);
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
