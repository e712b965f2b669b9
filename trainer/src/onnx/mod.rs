//! The network as an ONNX model for other runtimes, and the parameters out of an ONNX model of this network.
//!
//! Written: `image` `(N, CHANNELS, HEIGHT, WIDTH)` f32, values in 0..=1, to `logits` `(N, CLASSES)`, in operator set 13 and
//! IR version 7, those of ONNX 1.8 (2020).
//!
//! Read: a graph that computes the same function, from whatever exporter. The graph is followed (module `graph`) from its constants
//! and its input to its output: what depends on nothing but constants and shapes is computed, and what depends on the image
//! is matched (module `image`) with the network's layers one by one. So it makes no difference how a graph computes the shape for a
//! Reshape, in which order it flattens, how it stores constants, whether its activation is before or after maximum pooling,
//! and whether a bias is an Add. A normalization at the start and batch normalization become part of the layer beside them.
//! Everything else is refused with the first operator that differs: this is no runtime, and a model that computes something
//! else must not come in. (`tract-onnx` could simplify graphs too, with 116 more crates.)
//!
//! Both directions know the network only by its layers.

mod constant;
mod graph;
mod image;
mod proto;

use crate::weights_file::{Weights, class_names};
use bytemuck::zeroed_box;
use lenet_core::layer::{Activation, Pool};
use lenet_core::network::{self, NAME, Params, TENSORS};
use lenet_core::plan::{Description, Kind, Layer};
use prost::Message;
use proto::{
    Attribute, Dimension, Graph, Node, OperatorSet, Property, Shape, Tensor, TensorType, Type,
    ValueInfo,
};

const IR_VERSION: i64 = 7;
const OPSET: i64 = 13;
const INPUT: &str = "image";
const OUTPUT: &str = "logits";

/// An operator of the chain.
struct Operator<'a> {
    /// ONNX's name for it.
    kind: &'static str,
    /// Its node's name.
    name: String,
    /// Index in [`TENSORS`] of its weight, which its bias follows.
    weight: Option<usize>,
    /// Its layer.
    layer: &'a Layer,
}

/// Returns a network of these layers as a chain of ONNX's operators.
fn operators(layers: &[Layer]) -> Vec<Operator<'_>> {
    let mut operators = Vec::new();
    let mut spatial = true;
    for (index, layer) in layers.iter().enumerate() {
        let activation = match layer.activation {
            Activation::Identity => "",
            Activation::Sigmoid => "Sigmoid",
            Activation::Tanh => "Tanh",
            Activation::Relu => "Relu",
        };
        let kinds = match (layer.kind, layer.pool) {
            (Kind::Conv2d, Pool::Whole) => ["", "Conv", activation, ""],
            (Kind::Conv2d, Pool::Max(_)) => ["", "Conv", "MaxPool", activation],
            (Kind::Conv2d, Pool::Average(_)) => ["", "Conv", activation, "AveragePool"],
            (Kind::Linear, _) => [if spatial { "Flatten" } else { "" }, "Gemm", activation, ""],
        };
        spatial = layer.kind == Kind::Conv2d;
        for kind in kinds.into_iter().filter(|kind| !kind.is_empty()) {
            operators.push(Operator {
                kind,
                name: format!("{}_{}", layer.name, kind.to_lowercase()),
                weight: matches!(kind, "Conv" | "Gemm").then_some(2 * index),
                layer,
            });
        }
    }
    operators
}

/// Returns the model with its parameters, class names and provenance.
pub fn write(weights: &Weights<'_>) -> Vec<u8> {
    let about = weights.metadata.provenance;
    let properties = [
        ("classes", class_names(&weights.metadata.classes).join(", ")),
        ("network", NAME.to_owned()),
        ("dataset", about.dataset.to_owned()),
        ("params_sha256", crate::dataset::hex(&about.params_sha256)),
        ("recipe", about.recipe.to_owned()),
    ];
    let mut model = model(NAME, &network::LAYERS, &TENSORS, weights.params.as_flat());
    model.metadata_props = properties
        .into_iter()
        .map(|(key, value)| Property {
            key: key.to_owned(),
            value,
        })
        .collect();
    model.encode_to_vec()
}

/// Returns a network with its parameters.
fn model(
    name: &str,
    layers: &[Layer],
    tensors: &[lenet_core::plan::Tensor],
    params: &[f32],
) -> proto::Model {
    let (mut node, mut value) = (Vec::new(), INPUT.to_owned());
    let operators = operators(layers);
    for (i, operator) in operators.iter().enumerate() {
        let output = match i + 1 == operators.len() {
            true => OUTPUT.to_owned(),
            false => operator.name.clone(),
        };
        let mut input = vec![std::mem::replace(&mut value, output.clone())];
        if let Some(weight) = operator.weight {
            input.extend([tensors[weight].name, tensors[weight + 1].name].map(str::to_owned));
        }
        let ints = |name: &str, value: usize, count: usize| Attribute {
            name: name.to_owned(),
            ints: vec![value as i64; count],
            kind: Attribute::INTS,
            ..Attribute::default()
        };
        let (layer, window) = (operator.layer, operator.layer.pool.window());
        let attribute = match operator.kind {
            "Conv" if layer.padding == 0 => vec![ints("kernel_shape", layer.kernel, 2)],
            "Conv" => vec![
                ints("kernel_shape", layer.kernel, 2),
                ints("pads", layer.padding, 4),
            ],
            "MaxPool" | "AveragePool" => {
                vec![ints("kernel_shape", window, 2), ints("strides", window, 2)]
            }
            "Gemm" => vec![Attribute {
                name: "transB".to_owned(),
                i: 1,
                kind: Attribute::INT,
                ..Attribute::default()
            }],
            _ => Vec::new(),
        };
        node.push(Node {
            input,
            output: vec![output],
            name: operator.name.clone(),
            op_type: operator.kind.to_owned(),
            attribute,
            domain: String::new(),
        });
    }
    let initializer = tensors.iter().map(|tensor| {
        let values = &params[tensor.offset..][..tensor.len()];
        Tensor {
            dims: tensor.dims().iter().map(|&dim| dim as i64).collect(),
            data_type: Tensor::FLOAT,
            name: tensor.name.to_owned(),
            raw_data: bytemuck::cast_slice(values).to_vec(),
            ..Tensor::default()
        }
    });
    proto::Model {
        ir_version: IR_VERSION,
        producer_name: env!("CARGO_PKG_NAME").to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        graph: Some(Graph {
            node,
            name: name.to_owned(),
            initializer: initializer.collect(),
            input: vec![value_info(INPUT, &layers[0].input)],
            output: vec![value_info(OUTPUT, &layers[layers.len() - 1].output[..1])],
        }),
        opset_import: vec![OperatorSet {
            domain: String::new(),
            version: OPSET,
        }],
        metadata_props: Vec::new(),
    }
}

/// A tensor `(N, dims)` of f32.
fn value_info(name: &str, dims: &[usize]) -> ValueInfo {
    let batch = Dimension {
        value: None,
        param: Some("N".to_owned()),
    };
    let fixed = dims.iter().map(|&dim| Dimension {
        value: Some(dim as i64),
        param: None,
    });
    ValueInfo {
        name: name.to_owned(),
        r#type: Some(Type {
            tensor_type: Some(TensorType {
                elem_type: Tensor::FLOAT,
                shape: Some(Shape {
                    dim: std::iter::once(batch).chain(fixed).collect(),
                }),
            }),
        }),
    }
}

/// Returns whether bytes start like an ONNX model: its first field is a small IR version. Versions below 3 are older than
/// ONNX 1.0, and a TensorFlow SavedModel starts like one.
pub fn looks_like(bytes: &[u8]) -> bool {
    matches!(bytes, [0x08, 3..=63, ..])
}

/// Reads the parameters in an ONNX model of this network, and returns notes on how they were found.
///
/// # Errors
/// A sentence, with the first operator that this network does not have there.
pub fn read_params(bytes: &[u8]) -> Result<(Box<Params>, Vec<String>), String> {
    let mut params: Box<Params> = zeroed_box();
    let notes = read_flat(bytes, &network::LAYERS, params.as_flat_mut())?;
    Ok((params, notes))
}

/// Reads the parameters of a network of these layers, and returns the notes.
fn read_flat(bytes: &[u8], layers: &[Layer], flat: &mut [f32]) -> Result<Vec<String>, String> {
    let model =
        proto::Model::decode(bytes).map_err(|error| format!("broken ONNX file: {error}"))?;
    let graph = model.graph.ok_or("an ONNX file without a graph")?;
    let read = graph::follow(&graph, layers).map_err(|problem| {
        format!(
            "the graph does not fit this network: {problem}. This network is {}",
            Description(layers)
        )
    })?;
    let mut flat = flat.iter_mut();
    for (found, layer) in read.found.iter().zip(layers) {
        let zeros = vec![0.0; layer.output[0]];
        let values = found
            .weight
            .iter()
            .chain(found.bias.as_ref().unwrap_or(&zeros));
        for (&value, out) in values.zip(&mut flat) {
            *out = value as f32;
        }
    }
    Ok(read.notes)
}

#[cfg(test)]
mod tests;
