//! Exports the parameters as a C header, for C programs with their own implementation of the forward pass.
//!
//! The header is valid C99 and C++. Every number is written with enough digits to restore its bits, so a compiler that rounds
//! correctly gets the same parameters. The header also contains the logits of the self-test, with which a program can check that
//! it computes the same results.
//!
//! The header of an int8 network contains integers and a comment that explains the arithmetic.

use crate::dataset::hex;
use crate::quantize::scaled;
use crate::weights_file::Weights;
use lenet_core::int8::{Finishes, Int8, table};
use lenet_core::layer::Activation;
use lenet_core::network::{CLASSES, LAYERS, NAME, TENSORS, int8};
use lenet_core::plan::ShapeText;
use lenet_core::weights::{self, Metadata};
use std::fmt::{Debug, Write};

/// The number of values per line.
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

/// The explanation of the arithmetic in the header of an int8 network. It is followed by a line for each activation that the
/// network uses, and by [`LOGITS`].
const ARITHMETIC: &str = " *
 * Activations are bytes. A byte q of the image stands for q / 255, a byte q of a layer's output for (q - zero) * step.
 * A sum is an int32_t: the bias plus the products of weights and bytes. Padding has the previous layer's byte zero, and 0 in
 * the first layer. Max-pooling may be applied to the sums; the average of n bytes is (2 * their sum + n) / (2 * n).
 * The output byte of a sum is, with x = (uint32_t)(max(-limit, min(sum, limit)) * factor):
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

/// A number type that exists in C.
trait Number: Copy + Debug {
    /// The name of the type in C.
    const TYPE: &str;
    /// The suffix of a literal in C.
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

/// Adds the definition of an array.
fn array<T: Number>(text: &mut String, name: &str, dims: &[usize], values: &[T]) {
    _ = write!(text, "static const {} lenet_{name}", T::TYPE);
    for dim in dims {
        _ = write!(text, "[{dim}]");
    }
    *text += " = ";
    nested(text, dims, values);
    *text += ";\n\n";
}

/// Adds the values in nested braces, one level per dimension.
fn nested<T: Number>(text: &mut String, dims: &[usize], values: &[T]) {
    *text += "{";
    match dims {
        [_] => {
            for line in values.chunks(COLUMNS) {
                *text += "\n    ";
                // `Debug` writes enough digits to restore the bits, and always a decimal point or an exponent, as C requires.
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

/// Returns a C string literal. It is also safe in a comment, because every byte that could have a meaning in C is written as an
/// octal escape.
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
    fn arrays_have_nested_braces_for_each_dimension() {
        let mut text = String::new();
        array(&mut text, "x", &[2, 1, 2], &[1.0f32, -0.5, 1e-30, 0.1]);
        assert_eq!(
            text,
            "static const float lenet_x[2][1][2] = {{{\n    1.0f, -0.5f,\n},\n},\n{{\n    1e-30f, 0.1f,\n},\n},\n};\n\n"
        );
    }

    #[test]
    fn literals_escape_text_that_would_end_a_comment_or_a_string() {
        assert_eq!(literal("*/ \"\\ ?"), "\"\\052\\057 \\042\\134 \\077\"");
        assert_eq!(literal("Kleid (ä)"), "\"Kleid (\\303\\244)\"");
    }
}
