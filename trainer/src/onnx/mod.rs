//! The network as an ONNX model for other runtimes, and the parameters out of an ONNX model of this network.
//!
//! Written: `image` `(N, CHANNELS, HEIGHT, WIDTH)` f32, values in 0..=1, to `logits` `(N, CLASSES)`, in operator set 13 and
//! IR version 7, those of ONNX 1.8 (2020).
//!
//! Read: a chain of operators that computes the same, however its nodes and tensors are called. Exporters differ in
//! how they say it, so some forms are brought to one first: the activation before or after maximum pooling (the
//! same, because it is monotone), Flatten or Reshape, Gemm or MatMul and Add, weights stored either way round, constants as initializers
//! or as nodes; Identity and Dropout do nothing. Everything else is refused with what was found and expected: this is
//! no runtime, and a model that computes something else must not come in.
//!
//! Both directions make the chain of operators from [`LAYERS`](network::LAYERS).

mod proto;

use crate::weights_file::{Weights, class_names};
use bytemuck::zeroed_box;
use lenet_core::layer::{Activation, Pool};
use lenet_core::network::{self, CHANNELS, CLASSES, HEIGHT, NAME, Params, TENSORS, WIDTH};
use lenet_core::plan::{Kind, Layer};
use prost::Message;
use proto::{
    Attribute, Dimension, Graph, Model, Node, OperatorSet, Property, Shape, Tensor, TensorType,
    Type, ValueInfo,
};
use std::collections::HashMap;

const IR_VERSION: i64 = 7;
const OPSET: i64 = 13;
const INPUT: &str = "image";
const OUTPUT: &str = "logits";

/// An operator of the chain.
struct Operator {
    /// ONNX's name for it.
    kind: &'static str,
    /// Its node's name.
    name: String,
    /// Index in [`TENSORS`] of its weight, which its bias follows.
    weight: Option<usize>,
    /// Its layer.
    layer: &'static Layer,
}

/// The network as a chain of ONNX's operators.
fn operators() -> Vec<Operator> {
    static LAYERS: &[Layer] = &network::LAYERS;
    let mut operators = Vec::new();
    let mut spatial = true;
    for (index, layer) in LAYERS.iter().enumerate() {
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

impl Operator {
    /// Returns what an attribute must say, as [`show`] shows it; `None` if the operator has no such attribute.
    fn expected(&self, attribute: &str) -> Option<String> {
        let all = |value: usize, count: usize| format!("{:?}", vec![value; count]);
        let window = self.layer.pool.window();
        Some(match (self.kind, attribute) {
            ("Conv", "kernel_shape") => all(self.layer.kernel, 2),
            ("Conv", "pads") => all(self.layer.padding, 4),
            ("MaxPool" | "AveragePool", "kernel_shape" | "strides") => all(window, 2),
            ("Conv", "strides") | ("Conv" | "MaxPool" | "AveragePool", "dilations") => all(1, 2),
            ("MaxPool" | "AveragePool", "pads") => all(0, 4),
            ("Conv" | "MaxPool" | "AveragePool", "auto_pad") => "NOTSET".to_owned(),
            ("Conv", "group") | ("Gemm", "alpha" | "beta") | ("Flatten", "axis") => "1".to_owned(),
            ("Gemm", "transA")
            | ("MaxPool" | "AveragePool", "ceil_mode")
            | ("MaxPool", "storage_order") => "0".to_owned(),
            _ => return None,
        })
    }

    /// Returns the attributes that must be there, because their defaults say something else.
    fn required(&self) -> &'static [&'static str] {
        match self.kind {
            "MaxPool" | "AveragePool" => &["kernel_shape", "strides"],
            "Conv" if self.layer.padding > 0 => &["pads"],
            _ => &[],
        }
    }
}

fn show(attribute: &Attribute) -> String {
    match attribute.kind {
        Attribute::FLOAT => attribute.f.to_string(),
        Attribute::INT => attribute.i.to_string(),
        Attribute::STRING => String::from_utf8_lossy(&attribute.s).into_owned(),
        Attribute::INTS => format!("{:?}", attribute.ints),
        other => format!("a value of type {other}"),
    }
}

/// The model with its parameters, class names and provenance.
pub fn write(weights: &Weights<'_>) -> Vec<u8> {
    let (mut node, mut value) = (Vec::new(), INPUT.to_owned());
    let operators = operators();
    for (i, operator) in operators.iter().enumerate() {
        let output = match i + 1 == operators.len() {
            true => OUTPUT.to_owned(),
            false => operator.name.clone(),
        };
        let mut input = vec![std::mem::replace(&mut value, output.clone())];
        if let Some(weight) = operator.weight {
            input.extend([TENSORS[weight].name, TENSORS[weight + 1].name].map(str::to_owned));
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
        });
    }
    let initializer = TENSORS.iter().map(|tensor| {
        let values = &weights.params.as_flat()[tensor.offset..][..tensor.len()];
        Tensor {
            dims: tensor.dims().iter().map(|&dim| dim as i64).collect(),
            data_type: Tensor::FLOAT,
            name: tensor.name.to_owned(),
            raw_data: bytemuck::cast_slice(values).to_vec(),
            ..Tensor::default()
        }
    });
    let about = weights.metadata.provenance;
    let properties = [
        ("classes", class_names(&weights.metadata.classes).join(", ")),
        ("network", NAME.to_owned()),
        ("dataset", about.dataset.to_owned()),
        ("params_sha256", crate::dataset::hex(&about.params_sha256)),
        ("recipe", about.recipe.to_owned()),
    ];
    let model = Model {
        ir_version: IR_VERSION,
        producer_name: env!("CARGO_PKG_NAME").to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        graph: Some(Graph {
            node,
            name: NAME.to_owned(),
            initializer: initializer.collect(),
            input: vec![value_info(INPUT, &[CHANNELS, HEIGHT, WIDTH])],
            output: vec![value_info(OUTPUT, &[CLASSES])],
        }),
        opset_import: vec![OperatorSet {
            domain: String::new(),
            version: OPSET,
        }],
        metadata_props: properties
            .into_iter()
            .map(|(key, value)| Property {
                key: key.to_owned(),
                value,
            })
            .collect(),
    };
    model.encode_to_vec()
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

/// Whether bytes start like an ONNX model: its first field is a small IR version.
pub fn looks_like(bytes: &[u8]) -> bool {
    matches!(bytes, [0x08, 1..=63, ..])
}

/// The parameters in an ONNX model of this network.
///
/// # Errors
/// A sentence, with what was found and expected.
pub fn read_params(bytes: &[u8]) -> Result<Box<Params>, String> {
    let model = Model::decode(bytes).map_err(|error| format!("broken ONNX file: {error}"))?;
    let graph = model.graph.ok_or("an ONNX file without a graph")?;
    let steps = chain(&graph)?;
    let operators = operators();
    let found: Vec<&str> = steps.iter().map(|step| step.kind).collect();
    let wanted: Vec<&str> = operators.iter().map(|operator| operator.kind).collect();
    if found != wanted {
        return Err(format!(
            "the graph is another network's:\n  found    {}\n  expected {}",
            found.join(", "),
            wanted.join(", ")
        ));
    }

    let mut params: Box<Params> = zeroed_box();
    let mut differences = String::new();
    for (step, operator) in steps.iter().zip(&operators) {
        step.check_attributes(operator, &mut differences);
        let wanted = operator.weight.map_or(0, |_| 2);
        if step.parameters.len() != wanted {
            differences += &format!(
                "\n  {}: {} constants, expected {wanted}",
                step.name(),
                step.parameters.len()
            );
        } else if let Some(weight) = operator.weight {
            for (found, tensor) in step.parameters.iter().zip(&TENSORS[weight..]) {
                let out = &mut params.as_flat_mut()[tensor.offset..][..tensor.len()];
                if let Err(problem) = found.copy_to(tensor.dims(), out) {
                    differences += &format!("\n  {} of {}: {problem}", tensor.name, step.name());
                }
            }
        }
    }
    match differences.as_str() {
        "" => Ok(params),
        _ => Err(format!("the graph differs from this network:{differences}")),
    }
}

/// An operator found in a graph, brought to the form of [`operators`].
struct Step<'a> {
    kind: &'a str,
    node: &'a Node,
    parameters: Vec<Parameter<'a>>,
}

/// A constant that an operator takes.
struct Parameter<'a> {
    tensor: &'a Tensor,
    /// Stored as `(IN, OUT)`.
    transposed: bool,
}

/// Follows the graph from its input to its output.
fn chain(graph: &Graph) -> Result<Vec<Step<'_>>, String> {
    let constants = graph.node.iter().filter(|node| node.op_type == "Constant");
    let constants = constants.filter_map(|node| {
        let tensor = node.attribute.iter().find_map(|a| a.t.as_ref())?;
        Some((node.output.first()?.as_str(), tensor))
    });
    let tensors: HashMap<&str, &Tensor> = graph
        .initializer
        .iter()
        .map(|tensor| (tensor.name.as_str(), tensor))
        .chain(constants)
        .collect();

    let inputs = graph.input.iter().map(|input| input.name.as_str());
    let inputs: Vec<&str> = inputs.filter(|name| !tensors.contains_key(name)).collect();
    let [mut value] = inputs[..] else {
        return Err(format!("the graph takes {inputs:?}; expected one image"));
    };
    let mut steps: Vec<Step> = Vec::new();
    // As many rounds as there are nodes, so that a ring ends too.
    for _ in &graph.node {
        let takes_value = |node: &&Node| node.input.iter().any(|input| input == value);
        let users: Vec<&Node> = graph.node.iter().filter(takes_value).collect();
        let node = match users[..] {
            [] => break,
            [node] => node,
            _ => {
                let (value, count) = (value, users.len());
                return Err(format!(
                    "the graph branches: {value:?} goes into {count} nodes"
                ));
            }
        };
        let parameters = node.input.iter().filter(|input| *input != value);
        let parameters = parameters
            .map(|input| match tensors.get(input.as_str()) {
                Some(tensor) => Ok(Parameter {
                    tensor,
                    transposed: false,
                }),
                None => Err(format!(
                    "{}: takes {input:?}, which is no constant",
                    name(node)
                )),
            })
            .collect::<Result<Vec<_>, _>>();
        let kind = match node.op_type.as_str() {
            "Reshape" => "Flatten",
            "MatMul" => "Gemm",
            other => other,
        };
        let lacks_bias = |step: &&mut Step| step.kind == "Gemm" && step.parameters.len() == 1;
        match (kind, steps.last_mut().filter(lacks_bias)) {
            ("Identity" | "Dropout", _) => {}
            ("Add", Some(step)) => step.parameters.append(&mut parameters?),
            _ => {
                let mut parameters = match kind {
                    // What shape it makes is settled by the weight that comes next.
                    "Flatten" => Vec::new(),
                    _ => parameters?,
                };
                let kept = |a: &Attribute| a.name == "transB" && a.i != 0;
                if let ("Gemm", Some(weight)) = (kind, parameters.first_mut()) {
                    weight.transposed = !node.attribute.iter().any(kept);
                }
                steps.push(Step {
                    kind,
                    node,
                    parameters,
                });
            }
        }
        value = node.output.first().map_or("", String::as_str);
    }
    if graph.output.len() != 1 || graph.output[0].name != value {
        let outputs: Vec<&str> = graph.output.iter().map(|o| o.name.as_str()).collect();
        return Err(format!(
            "the graph gives {outputs:?}; the way from its input ends at {value:?}"
        ));
    }
    for i in 1..steps.len() {
        let activation = matches!(steps[i - 1].kind, "Sigmoid" | "Tanh" | "Relu");
        if activation && steps[i].kind == "MaxPool" {
            steps.swap(i - 1, i);
        }
    }
    Ok(steps)
}

/// A node, for people.
fn name(node: &Node) -> String {
    format!("{} {:?}", node.op_type, node.name)
}

impl Step<'_> {
    fn name(&self) -> String {
        name(self.node)
    }

    fn check_attributes(&self, operator: &Operator, differences: &mut String) {
        let read_elsewhere = |attribute: &&Attribute| {
            (self.kind == "Gemm" && attribute.name == "transB") || self.node.op_type == "Reshape"
        };
        let attributes = &self.node.attribute;
        for attribute in attributes.iter().filter(|a| !read_elsewhere(a)) {
            let found = show(attribute);
            let wanted = operator.expected(&attribute.name);
            if wanted.as_ref() != Some(&found) {
                let wanted = wanted.as_deref().unwrap_or("no such attribute");
                let (name, attribute) = (self.name(), &attribute.name);
                *differences += &format!("\n  {name}: {attribute} is {found}, expected {wanted}");
            }
        }
        for wanted in operator.required() {
            if attributes.iter().all(|attribute| attribute.name != *wanted) {
                *differences += &format!("\n  {}: lacks {wanted}", self.name());
            }
        }
    }
}

impl Parameter<'_> {
    /// Copies the elements in the order of `dims`.
    fn copy_to(&self, dims: &[usize], out: &mut [f32]) -> Result<(), String> {
        let mut stored: Vec<i64> = dims.iter().map(|&dim| dim as i64).collect();
        if self.transposed {
            stored.reverse();
        }
        let tensor = self.tensor;
        if tensor.data_type != Tensor::FLOAT || tensor.dims != stored {
            return Err(format!(
                "found data type {} {:?}, wanted {} (float) {stored:?}",
                tensor.data_type,
                tensor.dims,
                Tensor::FLOAT
            ));
        }
        if tensor.data_location == Tensor::EXTERNAL {
            return Err(
                "its values are in another file; export with them inside (PyTorch: external_data=False)"
                    .to_owned(),
            );
        }
        let raw = tensor.raw_data.as_chunks().0;
        let raw = raw.iter().map(|&bytes| f32::from_le_bytes(bytes));
        let values: Vec<f32> = raw.chain(tensor.float_data.iter().copied()).collect();
        if values.len() != out.len() {
            return Err(format!(
                "has {} values, expected {}",
                values.len(),
                out.len()
            ));
        }
        match (self.transposed, dims) {
            (true, &[_, inputs]) => {
                for (o, row) in out.chunks_mut(inputs).enumerate() {
                    let column = values[o..].iter().step_by(dims[0]);
                    row.iter_mut()
                        .zip(column)
                        .for_each(|(out, &value)| *out = value);
                }
            }
            _ => out.copy_from_slice(&values),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init::initial_params;
    use crate::weights_file::{IMPORTED, WeightsFile};

    fn model() -> (Box<Params>, Model) {
        let params = initial_params(5);
        let file = WeightsFile::encode(&params, &IMPORTED).unwrap();
        let bytes = write(&file.weights());
        assert!(looks_like(&bytes));
        (params, Model::decode(&*bytes).unwrap())
    }

    fn graph(model: &mut Model) -> &mut Graph {
        model.graph.as_mut().unwrap()
    }

    fn node<'a>(graph: &'a mut Graph, name: &str) -> &'a mut Node {
        graph.node.iter_mut().find(|n| n.name == name).unwrap()
    }

    /// What is said of the model after a change of its graph.
    fn refused(change: impl FnOnce(&mut Graph)) -> String {
        let (_, mut model) = model();
        change(graph(&mut model));
        read_params(&model.encode_to_vec()).unwrap_err()
    }

    #[test]
    fn what_is_written_is_read() {
        let (params, model) = model();
        assert_eq!(read_params(&model.encode_to_vec()).unwrap(), params);
    }

    #[test]
    fn other_words_for_the_same_network_are_understood() {
        let (params, mut model) = model();
        let graph = graph(&mut model);
        // The sigmoid before the pool.
        for name in ["conv1_maxpool", "conv1_sigmoid"] {
            let node = node(graph, name);
            node.op_type = match node.op_type.as_str() {
                "MaxPool" => "Sigmoid".to_owned(),
                _ => "MaxPool".to_owned(),
            };
        }
        let attributes = std::mem::take(&mut node(graph, "conv1_maxpool").attribute);
        node(graph, "conv1_sigmoid").attribute = attributes;
        // Reshape by a constant node.
        let flatten = node(graph, "fc1_flatten");
        flatten.op_type = "Reshape".to_owned();
        flatten.input.push("shape".to_owned());
        graph.node.push(Node {
            op_type: "Constant".to_owned(),
            output: vec!["shape".to_owned()],
            attribute: vec![Attribute {
                name: "value".to_owned(),
                t: Some(Tensor::default()),
                ..Attribute::default()
            }],
            ..Node::default()
        });
        // MatMul by the transposed weight, then Add; and a Dropout.
        let gemm = node(graph, "fc2_gemm");
        gemm.op_type = "MatMul".to_owned();
        gemm.attribute.clear();
        let bias = gemm.input.pop().unwrap();
        let output = std::mem::replace(&mut gemm.output[0], "product".to_owned());
        for (kind, input, output) in [("Add", "product", "sum"), ("Dropout", "sum", &output)] {
            let mut input = vec![input.to_owned()];
            if kind == "Add" {
                input.insert(0, bias.clone());
            }
            graph.node.push(Node {
                op_type: kind.to_owned(),
                input,
                output: vec![output.to_owned()],
                ..Node::default()
            });
        }
        for tensor in &mut graph.initializer {
            if tensor.name == "fc2_weight" {
                tensor.dims.reverse();
                let weight = params.fc2.weight;
                tensor.float_data = (0..weight[0].len())
                    .flat_map(|i| weight.map(|row| row[i]))
                    .collect();
                tensor.raw_data.clear();
            }
        }
        assert_eq!(read_params(&model.encode_to_vec()).unwrap(), params);
    }

    #[test]
    fn another_network_is_refused_with_what_was_found() {
        let relu = refused(|graph| node(graph, "fc1_sigmoid").op_type = "Relu".to_owned());
        assert_eq!(
            relu,
            "the graph is another network's:\
             \n  found    Conv, MaxPool, Sigmoid, Conv, MaxPool, Sigmoid, Flatten, Gemm, Relu, Gemm, Sigmoid, Gemm\
             \n  expected Conv, MaxPool, Sigmoid, Conv, MaxPool, Sigmoid, Flatten, Gemm, Sigmoid, Gemm, Sigmoid, Gemm"
        );
        let branch = refused(|graph| {
            let mut twin = graph.node[0].clone();
            twin.output = vec!["twin".to_owned()];
            graph.node.push(twin);
        });
        assert_eq!(branch, "the graph branches: \"image\" goes into 2 nodes");
        let inputs = refused(|graph| graph.input.push(value_info("mask", &[1])));
        assert_eq!(
            inputs,
            "the graph takes [\"image\", \"mask\"]; expected one image"
        );
        let ring = refused(|graph| graph.node[5].output = vec![INPUT.to_owned()]);
        assert!(ring.starts_with("the graph gives [\"logits\"]"), "{ring}");
    }

    #[test]
    fn differences_are_listed() {
        let problem = refused(|graph| {
            node(graph, "conv1_maxpool").attribute.pop();
            node(graph, "conv2_conv").attribute.push(Attribute {
                name: "pads".to_owned(),
                ints: vec![2; 4],
                kind: Attribute::INTS,
                ..Attribute::default()
            });
            node(graph, "conv1_conv").input.pop();
            node(graph, "fc3_gemm").attribute.clear();
            for tensor in &mut graph.initializer {
                match tensor.name.as_str() {
                    "conv2_bias" => tensor.data_type = 11,
                    "fc1_weight" => tensor.raw_data.truncate(400),
                    "fc2_weight" => tensor.data_location = Tensor::EXTERNAL,
                    _ => {}
                }
            }
        });
        assert_eq!(
            problem,
            "the graph differs from this network:\
             \n  Conv \"conv1_conv\": 1 constants, expected 2\
             \n  MaxPool \"conv1_maxpool\": lacks strides\
             \n  Conv \"conv2_conv\": pads is [2, 2, 2, 2], expected [0, 0, 0, 0]\
             \n  conv2_bias of Conv \"conv2_conv\": found data type 11 [16], wanted 1 (float) [16]\
             \n  fc1_weight of Gemm \"fc1_gemm\": has 100 values, expected 30720\
             \n  fc2_weight of Gemm \"fc2_gemm\": its values are in another file; export with them inside \
             (PyTorch: external_data=False)\
             \n  fc3_weight of Gemm \"fc3_gemm\": found data type 1 [10, 84], wanted 1 (float) [84, 10]"
        );
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic() {
        let (_, model) = model();
        let bytes = model.encode_to_vec();
        for end in (0..bytes.len()).step_by(997) {
            assert!(read_params(&bytes[..end]).is_err(), "{end} bytes");
        }
        // Nothing guards the values of an ONNX file; what surrounds them is in the first bytes.
        for at in 0..1500 {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << (at % 8);
            let _ = read_params(&bytes);
        }
    }
}
