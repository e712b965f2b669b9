//! Writes the network as an ONNX model for other runtimes, and reads the parameters from an ONNX model of this network.
//!
//! # Writing
//! The model computes `logits` `(N, CLASSES)` from `image` `(N, CHANNELS, HEIGHT, WIDTH)`, in f32 with values from 0 to 1. It uses
//! operator set 13 and IR version 7, those of ONNX 1.8 (2020).
//!
//! An int8 network is written with the same operators on floats. Pairs of `QuantizeLinear` and `DequantizeLinear` round the image
//! and the output of each layer to bytes, and `DequantizeLinear` converts the weights (int8, with a scale per output channel) and
//! the biases (int32). A runtime may compute the sums in floats or in integers. An output byte may differ by 1 from that of
//! `lenet_core`, which looks up the sigmoid in a table.
//!
//! # Reading
//! The graph may come from any exporter, as long as it computes the same function. Module `graph` evaluates it from its constants
//! and its input to its output. It computes whatever depends only on constants and shapes, and module `image` matches whatever
//! depends on the image with the network's layers, one by one. So the following do not matter: how the graph computes the shape
//! for a Reshape, in which order it flattens, how it stores constants, whether the activation comes before or after max-pooling,
//! and whether a bias is a separate Add. A normalization at the start and batch normalization are folded into the neighbouring
//! layer. Any other graph is rejected with an error that names the first operator that differs, because importing the parameters
//! of another function would give wrong results.
//!
//! Writing and reading depend only on the description of the network's layers, so they work for every network. (The crate
//! `tract-onnx` could simplify graphs too, but would add 116 dependencies.)

mod constant;
mod graph;
mod image;
mod proto;

use crate::quantize::{Scaled, scaled};
use crate::weights_file::{Weights, class_names};
use bytemuck::zeroed_box;
use lenet_core::layer::{Activation, Pool};
use lenet_core::network::{self, NAME, Params, TENSORS};
use lenet_core::plan::{Description, Kind, Layer};
use lenet_core::weights::{self, Metadata};
use prost::Message;
use proto::{
    Attribute, Dimension, Graph, Node, OperatorSet, Property, Shape, Tensor, TensorType, Type,
    ValueInfo,
};

const IR_VERSION: i64 = 7;
const OPSET: i64 = 13;
const INPUT: &str = "image";
const OUTPUT: &str = "logits";

/// An operator of the written graph, which is a chain.
struct Operator {
    /// The operator's name in ONNX.
    kind: &'static str,
    /// The name of its node.
    name: String,
    /// Whether it uses the layer's weight and bias.
    weight: bool,
    /// The index of its layer.
    layer: usize,
}

/// Returns the chain of ONNX operators that computes a network with these layers.
fn operators(layers: &[Layer]) -> Vec<Operator> {
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
                weight: matches!(kind, "Conv" | "Gemm"),
                layer: index,
            });
        }
    }
    operators
}

/// Returns the network as an ONNX model with its parameters, class names and provenance.
pub fn write(weights: &Weights<'_>) -> Vec<u8> {
    let params = weights.params.as_flat();
    let model = model(NAME, &network::LAYERS, &TENSORS, Parameters::F32(params));
    with_metadata(model, &weights.metadata)
}

/// Returns an int8 network as an ONNX model with its parameters, class names and provenance.
pub fn write_int8(weights: &weights::Weights<'_, network::int8::Net>) -> Vec<u8> {
    let params = Parameters::Int8(scaled::<network::int8::Net>(weights.params));
    let model = model(NAME, &network::LAYERS, &TENSORS, params);
    with_metadata(model, &weights.metadata)
}

/// Adds the metadata of a weights file to a model, and encodes it.
fn with_metadata(mut model: proto::Model, metadata: &Metadata<'_>) -> Vec<u8> {
    let about = metadata.provenance;
    let properties = [
        ("classes", class_names(&metadata.classes).join(", ")),
        ("network", NAME.to_owned()),
        ("dataset", about.dataset.to_owned()),
        ("params_sha256", crate::dataset::hex(&about.params_sha256)),
        ("recipe", about.recipe.to_owned()),
    ];
    model.metadata_props = properties
        .into_iter()
        .map(|(key, value)| Property {
            key: key.to_owned(),
            value,
        })
        .collect();
    model.encode_to_vec()
}

/// The parameters of a network.
enum Parameters<'a> {
    /// In f32, one tensor after the other.
    F32(&'a [f32]),
    /// In int8, layer by layer.
    Int8(Vec<Scaled>),
}

/// The nodes and constants of the graph that is being written.
#[derive(Default)]
struct Chain {
    node: Vec<Node>,
    initializer: Vec<Tensor>,
}

impl Chain {
    /// Adds an operator. Its output gets the same name.
    fn push(&mut self, kind: &str, name: &str, input: Vec<String>, attribute: Vec<Attribute>) {
        self.node.push(Node {
            input,
            output: vec![name.to_owned()],
            name: name.to_owned(),
            op_type: kind.to_owned(),
            attribute,
            domain: String::new(),
        });
    }

    /// Adds a constant, and returns its name.
    fn store<T: bytemuck::NoUninit>(
        &mut self,
        name: String,
        data_type: i32,
        dims: &[usize],
        values: &[T],
    ) -> String {
        self.initializer.push(Tensor {
            dims: dims.iter().map(|&dim| dim as i64).collect(),
            data_type,
            name: name.clone(),
            raw_data: bytemuck::cast_slice(values).to_vec(),
            ..Tensor::default()
        });
        name
    }

    /// Adds operators that round a value to bytes and convert it back to floats, and returns the name of the result.
    fn round(&mut self, value: String, step: f32, zero: u8) -> String {
        let step = self.store(format!("{value}_scale"), Tensor::FLOAT, &[], &[step]);
        let zero = self.store(format!("{value}_zero_point"), Tensor::UINT8, &[], &[zero]);
        let [quantized, rounded] = ["quantized", "rounded"].map(|end| format!("{value}_{end}"));
        let input = vec![value, step.clone(), zero.clone()];
        self.push("QuantizeLinear", &quantized, input, Vec::new());
        let input = vec![quantized, step, zero];
        self.push("DequantizeLinear", &rounded, input, Vec::new());
        rounded
    }

    /// Stores integers of a layer with a scale per output channel, adds an operator that converts them to floats, and returns the
    /// name of the result.
    fn dequantized<T: bytemuck::NoUninit>(
        &mut self,
        tensor: &lenet_core::plan::Tensor,
        data_type: i32,
        values: &[T],
        scale: &[f32],
    ) -> String {
        let name = tensor.name;
        let stored = self.store(
            format!("{name}_quantized"),
            data_type,
            tensor.dims(),
            values,
        );
        let scale = self.store(
            format!("{name}_scale"),
            Tensor::FLOAT,
            &[scale.len()],
            scale,
        );
        let axis = int("axis", 0);
        self.push("DequantizeLinear", name, vec![stored, scale], vec![axis]);
        name.to_owned()
    }

    /// Stores the weight and the bias of a layer, and returns their names.
    fn parameters(
        &mut self,
        params: &Parameters<'_>,
        layer: usize,
        tensors: &[lenet_core::plan::Tensor],
    ) -> [String; 2] {
        let [weight, bias] = [2 * layer, 2 * layer + 1].map(|index| &tensors[index]);
        match params {
            Parameters::F32(flat) => [weight, bias].map(|tensor| {
                let values = &flat[tensor.offset..][..tensor.len()];
                self.store(tensor.name.to_owned(), Tensor::FLOAT, tensor.dims(), values)
            }),
            Parameters::Int8(layers) => {
                let layer = &layers[layer];
                let of_bias: Vec<f32> = layer.unit.iter().map(|&unit| unit as f32).collect();
                let step = f64::from(layer.input_step);
                let of_weight: Vec<f32> =
                    layer.unit.iter().map(|unit| (unit / step) as f32).collect();
                [
                    self.dequantized(weight, Tensor::INT8, &layer.weight, &of_weight),
                    self.dequantized(bias, Tensor::INT32, &layer.bias, &of_bias),
                ]
            }
        }
    }
}

fn int(name: &str, i: i64) -> Attribute {
    Attribute {
        name: name.to_owned(),
        i,
        kind: Attribute::INT,
        ..Attribute::default()
    }
}

fn ints(name: &str, value: usize, count: usize) -> Attribute {
    Attribute {
        name: name.to_owned(),
        ints: vec![value as i64; count],
        kind: Attribute::INTS,
        ..Attribute::default()
    }
}

/// Returns the model of a network with these layers and parameters.
fn model(
    name: &str,
    layers: &[Layer],
    tensors: &[lenet_core::plan::Tensor],
    params: Parameters<'_>,
) -> proto::Model {
    let (mut chain, mut value) = (Chain::default(), INPUT.to_owned());
    if let Parameters::Int8(scaled) = &params {
        value = chain.round(value, scaled[0].input_step, scaled[0].input_zero);
    }
    let operators = operators(layers);
    for (i, operator) in operators.iter().enumerate() {
        let next = operators.get(i + 1);
        let mut input = vec![value];
        value = operator.name.clone();
        if operator.weight {
            input.extend(chain.parameters(&params, operator.layer, tensors));
        }
        let layer = &layers[operator.layer];
        let window = layer.pool.window();
        let attribute = match operator.kind {
            "Conv" if layer.padding == 0 => vec![ints("kernel_shape", layer.kernel, 2)],
            "Conv" => vec![
                ints("kernel_shape", layer.kernel, 2),
                ints("pads", layer.padding, 4),
            ],
            "MaxPool" | "AveragePool" => {
                vec![ints("kernel_shape", window, 2), ints("strides", window, 2)]
            }
            "Gemm" => vec![int("transB", 1)],
            _ => Vec::new(),
        };
        chain.push(operator.kind, &value, input, attribute);
        // A layer's output is rounded to bytes, and so is the input of average pooling.
        if let Parameters::Int8(scaled) = &params
            && next.is_some_and(|next| next.layer != operator.layer || next.kind == "AveragePool")
        {
            let layer = &scaled[operator.layer];
            value = chain.round(value, layer.step, layer.zero);
        }
    }
    if let Some(last) = chain.node.last_mut() {
        last.output = vec![OUTPUT.to_owned()];
    }
    proto::Model {
        ir_version: IR_VERSION,
        producer_name: env!("CARGO_PKG_NAME").to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        graph: Some(Graph {
            node: chain.node,
            name: name.to_owned(),
            initializer: chain.initializer,
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

/// Returns the description of an f32 tensor with the dimensions `(N, dims)`.
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

/// Returns whether bytes start like an ONNX model, whose first field is a small IR version. Versions below 3 are excluded: they
/// are older than ONNX 1.0, and a TensorFlow SavedModel starts like one of them.
pub fn looks_like(bytes: &[u8]) -> bool {
    matches!(bytes, [0x08, 3..=63, ..])
}

/// Reads the parameters from an ONNX model of this network. Also returns notes for the user on how they were found.
///
/// # Errors
/// A sentence that names the first operator that differs from this network.
pub fn read_params(bytes: &[u8]) -> Result<(Box<Params>, Vec<String>), String> {
    let mut params: Box<Params> = zeroed_box();
    let notes = read_flat(bytes, &network::LAYERS, params.as_flat_mut())?;
    Ok((params, notes))
}

/// Reads the parameters of a network with these layers into `flat`, and returns the notes.
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
