//! Evaluates a graph symbolically, from its constants and its input to its output, to find the parameters of the network.

use super::constant::{Constant, Int};
use super::image::{Found, Image};
use super::proto::{Graph, Node, Tensor, ValueInfo};
use lenet_core::plan::Layer;
use std::collections::HashMap;
use std::rc::Rc;

/// The maximum number of elements in all values that a graph computes, several times what a network needs. A few bytes of a file
/// suffice for an operator with a large result, and all values are kept.
const MAX_COMPUTED: usize = 1 << 24;

/// The parameters that were found in a graph.
#[derive(Debug)]
pub(super) struct Parameters {
    /// The parameters of each layer.
    pub found: Vec<Rc<Found>>,
    /// Notes for the user on how they were found.
    pub notes: Vec<String>,
}

/// A value in the graph: either a constant, or a value that depends on the image.
#[derive(Clone, Debug)]
enum Value<'a> {
    Constant(Rc<Constant>),
    Image(Rc<Image<'a>>),
}

/// Returns the parameters of the graph, which must compute the logits of a network with these layers.
///
/// # Errors
/// A sentence that names the first operator that does not fit and says why.
pub(super) fn follow(graph: &Graph, layers: &[Layer]) -> Result<Parameters, String> {
    let mut follower = Follower::new(graph, layers);
    let mut first_problem = None;
    let mut complete: Vec<(&str, Image)> = Vec::new();
    for output in &graph.output {
        match follower.output(&output.name) {
            Ok(image) => complete.push((&output.name, image)),
            Err(problem) => {
                first_problem.get_or_insert(problem);
            }
        }
    }
    // Prefer an output that is the logits to one that is computed from them, such as probabilities.
    let Some(best) = complete
        .iter()
        .position(|(_, image)| image.after.is_none())
        .or((!complete.is_empty()).then_some(0))
    else {
        return Err(first_problem.unwrap_or_else(|| "it has no output".to_owned()));
    };
    let (name, image) = complete.swap_remove(best);
    let mut notes = image.notes;
    if let Some(after) = image.after {
        notes.push(format!(
            "the graph ends with {after}, which is left out: the logits that go into it give the same class"
        ));
    }
    let others = graph.output.iter().filter(|output| output.name != name);
    let others: Vec<String> = others.map(|output| format!("{:?}", output.name)).collect();
    if !others.is_empty() {
        notes.push(format!(
            "of the graph's outputs {name:?} is read; left out: {}",
            others.join(", ")
        ));
    }
    Ok(Parameters {
        found: image.found,
        notes,
    })
}

/// Evaluates the values of a graph.
struct Follower<'a> {
    layers: &'a [Layer],
    stored: HashMap<&'a str, &'a Tensor>,
    /// Maps the name of a value to the node that computes it and to the index of the value among the node's outputs.
    nodes: HashMap<&'a str, (&'a Node, usize)>,
    inputs: HashMap<&'a str, &'a ValueInfo>,
    values: HashMap<&'a str, Value<'a>>,
    /// The number of elements in the values that were computed.
    computed: usize,
}

impl<'a> Follower<'a> {
    fn new(graph: &'a Graph, layers: &'a [Layer]) -> Self {
        let stored: HashMap<&str, &Tensor> = graph
            .initializer
            .iter()
            .map(|tensor| (tensor.name.as_str(), tensor))
            .collect();
        let outputs = graph.node.iter().flat_map(|node| {
            let outputs = node.output.iter().enumerate();
            outputs.map(move |(index, output)| (output.as_str(), (node, index)))
        });
        let inputs = graph.input.iter().map(|input| (input.name.as_str(), input));
        Self {
            layers,
            nodes: outputs.filter(|(name, _)| !name.is_empty()).collect(),
            inputs: inputs
                .filter(|(name, _)| !stored.contains_key(name))
                .collect(),
            stored,
            values: HashMap::new(),
            computed: 0,
        }
    }

    /// Computes an output of the graph. Returns an error unless it is the logits or is computed from them.
    fn output(&mut self, name: &'a str) -> Result<Image<'a>, String> {
        let (order, mut inputs) = self.order(name)?;
        inputs.sort_unstable();
        if inputs.len() != 1 {
            return Err(format!(
                "its output {name:?} depends on the inputs {inputs:?}, expected one image"
            ));
        }
        for name in order {
            if !self.values.contains_key(name) {
                let value = self.compute(name)?;
                self.values.insert(name, value);
            }
        }
        match self.values.get(name) {
            Some(Value::Image(image)) => {
                let problem = |problem| format!("output {name:?}: {problem}");
                if image.after.is_none() {
                    image.logits().map_err(problem)?;
                }
                Ok((**image).clone())
            }
            _ => Err(format!("its output {name:?} does not depend on the image")),
        }
    }

    /// Returns all values that a value depends on, in topological order, and those of them that are inputs of the graph.
    fn order(&self, name: &'a str) -> Result<(Vec<&'a str>, Vec<&'a str>), String> {
        let (mut order, mut inputs) = (Vec::new(), Vec::new());
        // For each value seen so far, whether it is in `order` already.
        let mut done: HashMap<&str, bool> = HashMap::new();
        let mut open = vec![name];
        while let Some(&value) = open.last() {
            if done.get(value) == Some(&true) {
                open.pop();
                continue;
            }
            let needs: &[String] = match self.nodes.get(value) {
                Some((node, _)) => &node.input,
                None => &[],
            };
            let again = done.insert(value, false).is_some();
            let missing = needs
                .iter()
                .map(String::as_str)
                .filter(|need| !need.is_empty() && done.get(need) != Some(&true));
            let missing: Vec<&str> = missing.collect();
            if missing.is_empty() {
                done.insert(value, true);
                order.push(value);
                if self.inputs.contains_key(value) && !self.nodes.contains_key(value) {
                    inputs.push(value);
                }
                open.pop();
            } else if again && missing.iter().any(|need| done.contains_key(need)) {
                return Err(format!("the graph runs in a ring through {value:?}"));
            } else {
                open.extend(missing);
            }
        }
        Ok((order, inputs))
    }

    fn compute(&mut self, name: &'a str) -> Result<Value<'a>, String> {
        let of_value = |problem: String| format!("{name:?}: {problem}");
        if let Some(&(node, index)) = self.nodes.get(name) {
            let of_node = |problem: String| format!("{}: {problem}", label(node));
            if index > 0 {
                return Err(of_node(format!(
                    "its output {name:?} is used, expected only its first"
                )));
            }
            return self.compute_node(node).map_err(of_node);
        }
        if let Some(tensor) = self.stored.get(name) {
            let constant = Constant::read(tensor).map_err(of_value)?;
            return Ok(Value::Constant(Rc::new(constant)));
        }
        let Some(input) = self.inputs.get(name) else {
            return Err(of_value("nothing computes it".to_owned()));
        };
        let tensor = input.r#type.as_ref().and_then(|of| of.tensor_type.as_ref());
        let dims = tensor
            .and_then(|tensor| tensor.shape.as_ref())
            .map(|shape| {
                let dim =
                    |dim: Option<i64>| dim.filter(|&dim| dim > 0).map_or(Int::Batch, Int::Known);
                shape.dim.iter().map(|found| dim(found.value)).collect()
            });
        let bytes = tensor.is_some_and(|tensor| tensor.elem_type == Tensor::UINT8);
        let image = Image::input(self.layers, dims, bytes).map_err(of_value)?;
        Ok(Value::Image(Rc::new(image)))
    }

    fn compute_node(&mut self, node: &'a Node) -> Result<Value<'a>, String> {
        if !matches!(node.domain.as_str(), "" | "ai.onnx") {
            return Err(format!(
                "it is an operator of the domain {:?}, expected one of ONNX's own",
                node.domain
            ));
        }
        let constant = |constant| Value::Constant(Rc::new(constant));
        if node.op_type == "Constant" {
            return Constant::of_node(node).map(constant);
        }
        let (mut images, mut constants) = (Vec::new(), Vec::new());
        for (at, input) in node.input.iter().enumerate() {
            let value = self.values.get(input.as_str());
            constants.push(match value {
                Some(Value::Constant(constant)) => Some(&**constant),
                _ => None,
            });
            if let Some(Value::Image(image)) = value {
                images.push((at, image));
            }
        }
        match images[..] {
            [] => match Constant::compute(node, &constants) {
                Some(computed) => {
                    let computed = computed?;
                    self.count(computed.data.len())?;
                    Ok(constant(computed))
                }
                None => Err(
                    "it takes no image, and what it computes from constants is unknown here"
                        .to_owned(),
                ),
            },
            [(_, image)] if node.op_type == "Shape" => image.shape(node).map(constant),
            [(at, image)] => {
                if let Some(known) = attributes(&node.op_type)
                    && let Some(other) = node
                        .attribute
                        .iter()
                        .find(|found| !known.contains(&found.name.as_str()))
                {
                    return Err(format!("it has the unknown attribute {}", other.name));
                }
                let image = (**image).clone().apply(node, at, &constants)?;
                self.count(image.len())?;
                Ok(Value::Image(Rc::new(image)))
            }
            _ => Err("it takes two values that depend on the image, expected one".to_owned()),
        }
    }

    /// Adds the elements of a value to those that were computed. Returns an error if there are too many.
    fn count(&mut self, elements: usize) -> Result<(), String> {
        self.computed = self.computed.saturating_add(elements);
        match self.computed > MAX_COMPUTED {
            true => Err(format!(
                "the values that the graph computes up to it have more than {MAX_COMPUTED} elements, which is the limit"
            )),
            false => Ok(()),
        }
    }
}

/// Returns the supported attributes of an operator that is applied to the image. Each of them is either checked or has no effect
/// on the result. Returns `None` for an unsupported operator.
fn attributes(operator: &str) -> Option<&'static [&'static str]> {
    Some(match operator {
        "Conv" => &[
            "auto_pad",
            "dilations",
            "group",
            "kernel_shape",
            "pads",
            "strides",
        ],
        "MaxPool" => &[
            "auto_pad",
            "ceil_mode",
            "dilations",
            "kernel_shape",
            "pads",
            "storage_order",
            "strides",
        ],
        "AveragePool" => &[
            "auto_pad",
            "ceil_mode",
            "count_include_pad",
            "dilations",
            "kernel_shape",
            "pads",
            "strides",
        ],
        "Gemm" => &["alpha", "beta", "transA", "transB"],
        "BatchNormalization" => &["epsilon", "momentum", "training_mode"],
        "Flatten" | "Softmax" | "LogSoftmax" => &["axis"],
        "ArgMax" => &["axis", "keepdims", "select_last_index"],
        "Reshape" => &["shape", "allowzero"],
        "Squeeze" | "Unsqueeze" => &["axes"],
        "Transpose" => &["perm"],
        "Dropout" => &["ratio", "seed"],
        "Pad" => &["mode", "pads", "value"],
        "Cast" => &["to", "saturate"],
        "Identity" | "MatMul" | "Sigmoid" | "Tanh" | "Relu" | "GlobalAveragePool"
        | "GlobalMaxPool" | "Add" | "Sub" | "Mul" | "Div" | "Neg" => &[],
        _ => return None,
    })
}

/// Describes a node in messages: its operator and its name.
fn label(node: &Node) -> String {
    let name = match (node.name.as_str(), node.output.first()) {
        ("", Some(output)) => output,
        (name, _) => name,
    };
    format!("{} {name:?}", node.op_type)
}
