//! Tests of the ONNX import with models as various exporters write them, and with models that must be rejected.

use super::constant::Constant;
use super::image::Image;
use super::*;
use crate::networks::{
    assert_close, color, flat, flat_net, lenet, lenet_d2l, logits, params, pixel, relu, rgb,
};
use lenet_core::Network;
use proto::Model;

/// Returns a node whose name, and the name of its output, is `name`.
fn node(op_type: &str, name: &str, input: &[&str], attribute: Vec<Attribute>) -> Node {
    Node {
        input: input.iter().map(|&input| input.to_owned()).collect(),
        output: vec![name.to_owned()],
        name: name.to_owned(),
        op_type: op_type.to_owned(),
        attribute,
        domain: String::new(),
    }
}

fn int(name: &str, i: i64) -> Attribute {
    let (name, kind) = (name.to_owned(), Attribute::INT);
    Attribute {
        name,
        i,
        kind,
        ..Attribute::default()
    }
}

fn ints(name: &str, ints: &[i64]) -> Attribute {
    let (name, ints, kind) = (name.to_owned(), ints.to_vec(), Attribute::INTS);
    Attribute {
        name,
        ints,
        kind,
        ..Attribute::default()
    }
}

fn text(name: &str, text: &str) -> Attribute {
    let (name, s) = (name.to_owned(), text.as_bytes().to_vec());
    Attribute {
        name,
        s,
        kind: 3,
        ..Attribute::default()
    }
}

fn floats(name: &str, dims: &[usize], values: &[f32]) -> Tensor {
    Tensor {
        dims: dims.iter().map(|&dim| dim as i64).collect(),
        data_type: Tensor::FLOAT,
        name: name.to_owned(),
        float_data: values.to_vec(),
        ..Tensor::default()
    }
}

fn integers(name: &str, values: &[i64]) -> Tensor {
    Tensor {
        dims: vec![values.len() as i64],
        data_type: Tensor::INT64,
        name: name.to_owned(),
        int64_data: values.to_vec(),
        ..Tensor::default()
    }
}

/// The parameters of a network and the model written from them, which a test may change.
struct Case<N: Network> {
    params: Box<N::Params>,
    model: Model,
}

impl<N: Network> Case<N> {
    fn new() -> Self {
        let params = params::<N>();
        let model = model(
            N::NAME,
            N::LAYERS,
            N::TENSORS,
            Parameters::F32(flat(&*params)),
        );
        Self { params, model }
    }

    fn changed(change: impl FnOnce(&mut Graph)) -> Self {
        let mut case = Self::new();
        change(case.model.graph.as_mut().unwrap());
        case
    }

    fn read(&self) -> Result<(Box<N::Params>, Vec<String>), String> {
        let mut params: Box<N::Params> = zeroed_box();
        let out = bytemuck::cast_slice_mut(std::slice::from_mut(&mut *params));
        let notes = read_flat(&self.model.encode_to_vec(), N::LAYERS, out)?;
        Ok((params, notes))
    }

    /// Asserts that the parameters are read bit for bit, and returns the notes.
    #[track_caller]
    fn same(&self) -> Vec<String> {
        let (params, notes) = self.read().unwrap();
        let bits = |params| {
            flat(params)
                .iter()
                .map(|value| value.to_bits())
                .collect::<Vec<_>>()
        };
        assert!(
            bits(&*params) == bits(&*self.params),
            "{}: {notes:?}",
            N::NAME
        );
        notes
    }

    /// Asserts that the model is rejected, and returns the reason.
    #[track_caller]
    fn refused(&self) -> String {
        let problem = self.read().map(|(_, notes)| notes).unwrap_err();
        let start = "the graph does not fit this network: ";
        let end = format!(". This network is {}", Description(N::LAYERS));
        problem
            .strip_prefix(start)
            .and_then(|rest| rest.strip_suffix(&end))
            .unwrap()
            .to_owned()
    }
}

fn at(graph: &Graph, name: &str) -> usize {
    graph
        .node
        .iter()
        .position(|node| node.name == name)
        .unwrap()
}

fn of<'a>(graph: &'a mut Graph, name: &str) -> &'a mut Node {
    let index = at(graph, name);
    &mut graph.node[index]
}

fn stored<'a>(graph: &'a mut Graph, name: &str) -> &'a mut Tensor {
    graph
        .initializer
        .iter_mut()
        .find(|tensor| tensor.name == name)
        .unwrap()
}

/// Inserts a node between a value and everything that uses the value.
fn after(graph: &mut Graph, value: &str, mut new: Node) {
    for node in &mut graph.node {
        for input in node.input.iter_mut().filter(|input| *input == value) {
            *input = new.name.clone();
        }
    }
    for output in graph
        .output
        .iter_mut()
        .filter(|output| output.name == value)
    {
        output.name = new.name.clone();
    }
    new.input.insert(0, value.to_owned());
    graph.node.push(new);
}

/// Calls a generic function with each network.
macro_rules! for_each {
    ($check:ident) => {
        $check::<lenet::Net>();
        $check::<lenet_d2l::Net>();
        $check::<relu::Net>();
        $check::<color::Net>();
        $check::<rgb::Net>();
        $check::<flat_net::Net>();
    };
}

#[test]
fn reading_a_written_model_returns_its_parameters() {
    fn check<N: Network>() {
        assert_eq!(Case::<N>::new().same(), [""; 0]);
    }
    for_each!(check);
}

#[test]
fn the_selected_network_can_be_written_and_read() {
    let params = crate::init::initial_params(5);
    let file = crate::weights_file::WeightsFile::encode(&params, &crate::weights_file::IMPORTED);
    let bytes = write(&file.unwrap().weights());
    assert!(looks_like(&bytes));
    assert_eq!(read_params(&bytes).unwrap(), (params, Vec::new()));
}

/// `view(x.shape[0], -1)` with a dynamic batch axis, as PyTorch's older exporter writes it, and other ways to express a shape.
#[test]
fn a_graph_may_compute_the_shapes_of_its_reshapes() {
    fn flatten<N: Network>(change: impl Fn(&mut Graph, &str, &str)) {
        let case = Case::<N>::changed(|graph| {
            let index = graph
                .node
                .iter()
                .position(|node| node.op_type == "Flatten")
                .unwrap();
            let flatten = graph.node.remove(index);
            change(graph, &flatten.input[0], &flatten.output[0]);
        });
        assert_eq!(case.same(), [""; 0]);
    }
    fn check<N: Network>() {
        let inputs = N::LAYERS
            .iter()
            .find(|l| l.kind == Kind::Linear)
            .unwrap()
            .input_len() as i64;
        for slice in [false, true] {
            flatten::<N>(|graph, from, to| {
                graph.initializer.push(integers("zero", &[0]));
                graph.initializer.push(Tensor {
                    dims: vec![],
                    ..integers("first", &[0])
                });
                graph.initializer.push(integers("one", &[1]));
                graph.initializer.push(integers("open", &[-1]));
                graph.node.push(node("Shape", "shape", &["image"], vec![]));
                if slice {
                    graph
                        .node
                        .push(node("Slice", "batch", &["shape", "zero", "one"], vec![]));
                    graph
                        .node
                        .push(node("Cast", "batches", &["batch"], vec![int("to", 7)]));
                } else {
                    graph.node.push(node(
                        "Gather",
                        "batch",
                        &["shape", "first"],
                        vec![int("axis", 0)],
                    ));
                    graph
                        .node
                        .push(node("Unsqueeze", "batches", &["batch", "zero"], vec![]));
                }
                graph.node.push(node(
                    "Concat",
                    "to",
                    &["batches", "open"],
                    vec![int("axis", 0)],
                ));
                graph.node.push(node("Reshape", to, &[from, "to"], vec![]));
            });
        }
        for shape in [[-1, inputs], [0, -1], [1, inputs], [1, -1]] {
            flatten::<N>(|graph, from, to| {
                let value = Attribute {
                    name: "value".to_owned(),
                    t: Some(integers("", &shape)),
                    ..Attribute::default()
                };
                graph.node.push(node("Constant", "shape", &[], vec![value]));
                graph
                    .node
                    .push(node("Reshape", to, &[from, "shape"], vec![]));
            });
            flatten::<N>(|graph, from, to| {
                graph.node.push(node(
                    "Constant",
                    "shape",
                    &[],
                    vec![ints("value_ints", &shape)],
                ));
                graph.node.push(node(
                    "Reshape",
                    to,
                    &[from, "shape"],
                    vec![int("allowzero", 0)],
                ));
            });
        }
    }
    for_each!(check);
    // A model exported for a fixed batch size of 64.
    let case = Case::<lenet::Net>::changed(|graph| {
        let shape = graph.input[0]
            .r#type
            .as_mut()
            .unwrap()
            .tensor_type
            .as_mut()
            .unwrap()
            .shape
            .as_mut()
            .unwrap();
        shape.dim[0].value = Some(64);
        graph.initializer.push(integers("shape", &[64, 256]));
        let flatten = of(graph, "fc1_flatten");
        flatten.op_type = "Reshape".to_owned();
        flatten.input.push("shape".to_owned());
    });
    case.same();
    // The input is a vector of all pixels, which the graph reshapes to an image.
    let case = Case::<rgb::Net>::changed(|graph| {
        graph.input[0] = value_info("image", &[240]);
        graph.initializer.push(integers("shape", &[-1, 3, 10, 8]));
        after(
            graph,
            "image",
            node("Reshape", "as_image", &["shape"], vec![]),
        );
    });
    case.same();
}

/// Checks other forms in which exporters write the same operators.
#[test]
fn equivalent_forms_of_operators_are_accepted() {
    fn check<N: Network>() {
        // An operator without effect after each node; then the activation before max-pooling; then padding by `auto_pad` or as a
        // node.
        let case = Case::<N>::changed(|graph| {
            for (index, node_) in graph.node.clone().into_iter().enumerate() {
                let kind = ["Identity", "Dropout", "Cast"][index % 3];
                let attribute = if kind == "Cast" {
                    vec![int("to", 1)]
                } else {
                    vec![]
                };
                after(
                    graph,
                    &node_.output[0],
                    node(kind, &format!("nothing{index}"), &[], attribute),
                );
            }
        });
        case.same();
        let case = Case::<N>::changed(|graph| {
            let pools: Vec<usize> = (0..graph.node.len())
                .filter(|&i| graph.node[i].op_type == "MaxPool")
                .collect();
            for pool in pools {
                let next = pool + 1;
                if matches!(
                    graph.node[next].op_type.as_str(),
                    "Sigmoid" | "Tanh" | "Relu"
                ) {
                    let kind =
                        std::mem::replace(&mut graph.node[next].op_type, "MaxPool".to_owned());
                    graph.node[pool].op_type = kind;
                    let attribute = std::mem::take(&mut graph.node[pool].attribute);
                    graph.node[next].attribute = attribute;
                }
            }
            for node in graph
                .node
                .iter_mut()
                .filter(|node| node.op_type.ends_with("Pool"))
            {
                node.attribute.extend([
                    ints("pads", &[0; 4]),
                    int("ceil_mode", 1),
                    text("auto_pad", "NOTSET"),
                ]);
            }
        });
        case.same();
        for auto in ["SAME_UPPER", "SAME_LOWER", "VALID"] {
            let case = Case::<N>::changed(|graph| {
                for (node, layer) in graph
                    .node
                    .iter_mut()
                    .filter(|node| node.op_type == "Conv")
                    .zip(N::LAYERS)
                {
                    let same = 2 * layer.padding + 1 == layer.kernel;
                    if same == auto.starts_with("SAME") {
                        node.attribute.retain(|attribute| attribute.name != "pads");
                        node.attribute.push(text("auto_pad", auto));
                    }
                }
            });
            case.same();
        }
        let case = Case::<N>::changed(|graph| {
            for index in 0..graph.node.len() {
                let conv = graph.node[index].clone();
                let Some(pads) = conv.attribute.iter().find(|a| a.name == "pads") else {
                    continue;
                };
                let p = pads.ints[0];
                let (pad, pads) = (format!("pad{index}"), format!("pads{index}"));
                graph
                    .initializer
                    .push(integers(&pads, &[0, 0, p, p, 0, 0, p, p]));
                graph.node.push(node(
                    "Pad",
                    &pad,
                    &[&conv.input[0], &pads],
                    vec![text("mode", "constant")],
                ));
                graph.node[index].input[0] = pad;
                graph.node[index].attribute.retain(|a| a.name != "pads");
            }
        });
        case.same();
        // The bias as an Add, and the weight transposed by a node and used by a MatMul.
        let case = Case::<N>::changed(|graph| {
            for index in 0..graph.node.len() {
                let layer = graph.node[index].clone();
                let [_, weight, bias] = &layer.input[..] else {
                    continue;
                };
                let values = graph
                    .initializer
                    .iter()
                    .find(|t| t.name == *bias)
                    .unwrap()
                    .clone();
                let shaped = format!("{bias}_shaped");
                let mut dims = vec![1, values.dims[0]];
                if layer.op_type == "Conv" {
                    dims.extend([1, 1]);
                } else if index % 2 == 0 {
                    let turned = format!("{weight}_turned");
                    graph.node.push(node(
                        "Transpose",
                        &turned,
                        &[weight],
                        vec![ints("perm", &[1, 0])],
                    ));
                    graph.node[index].op_type = "MatMul".to_owned();
                    graph.node[index].attribute.clear();
                    graph.node[index].input[1] = turned;
                }
                graph.node[index].input.truncate(2);
                graph.initializer.push(Tensor {
                    dims,
                    name: shaped.clone(),
                    ..values
                });
                after(
                    graph,
                    &layer.output[0],
                    node("Add", &format!("sum{index}"), &[&shaped], vec![]),
                );
            }
        });
        case.same();
    }
    for_each!(check);
}

#[test]
fn constants_may_have_any_float_type_and_storage() {
    type Store = fn(&mut Tensor, &[f32]);
    let forms: [(&str, Store); 6] = [
        ("", |tensor, values| tensor.float_data = values.to_vec()),
        ("f64 is rounded to f32", |tensor, values| {
            tensor.data_type = Tensor::DOUBLE;
            tensor.double_data = values.iter().map(|&value| value.into()).collect();
        }),
        ("f64 is rounded to f32", |tensor, values| {
            tensor.data_type = Tensor::DOUBLE;
            tensor.raw_data = values
                .iter()
                .flat_map(|&value| f64::from(value).to_le_bytes())
                .collect();
        }),
        (
            "f16 is widened to f32, which changes no value",
            |tensor, values| {
                tensor.data_type = Tensor::FLOAT16;
                tensor.raw_data = values
                    .iter()
                    .flat_map(|&value| half::f16::from_f32(value).to_le_bytes())
                    .collect();
            },
        ),
        (
            "f16 is widened to f32, which changes no value",
            |tensor, values| {
                tensor.data_type = Tensor::FLOAT16;
                tensor.int32_data = values
                    .iter()
                    .map(|&value| half::f16::from_f32(value).to_bits().into())
                    .collect();
            },
        ),
        ("", |tensor, values| {
            tensor.raw_data = bytemuck::cast_slice(values).to_vec()
        }),
    ];
    for (note, store) in forms {
        for as_nodes in [false, true] {
            let case = Case::<rgb::Net>::changed(|graph| {
                for tensor in &mut graph.initializer {
                    let values: Vec<f32> =
                        bytemuck::pod_collect_to_vec(&std::mem::take(&mut tensor.raw_data));
                    store(tensor, &values);
                }
                if as_nodes {
                    for tensor in std::mem::take(&mut graph.initializer) {
                        let (name, t) = (tensor.name.clone(), Some(tensor));
                        let value = Attribute {
                            name: "value".to_owned(),
                            t,
                            ..Attribute::default()
                        };
                        graph
                            .node
                            .insert(0, node("Constant", &name, &[], vec![value]));
                    }
                }
            });
            let notes = case.same();
            match note {
                "" => assert_eq!(notes, [""; 0]),
                note => assert_eq!(notes, [format!("what the graph stores in {note}")]),
            }
        }
    }
}

#[test]
fn operators_after_the_logits_are_left_out() {
    fn check<N: Network>() {
        let tail = |kind: &str| node(kind, "tail", &[], vec![int("axis", 1)]);
        for kind in ["Softmax", "LogSoftmax", "ArgMax"] {
            let case = Case::<N>::changed(|graph| after(graph, "logits", tail(kind)));
            let note = format!(
                "the graph ends with {kind}, which is left out: the logits that go into it give the same class"
            );
            assert_eq!(case.same(), [note]);
        }
        // If there are several outputs, the logits are read. A node whose output nothing uses is ignored.
        let case = Case::<N>::changed(|graph| {
            let logits = graph.output[0].clone();
            after(graph, "logits", tail("Softmax"));
            graph.output.push(logits);
            let first = graph.node[0].output[0].clone();
            graph.output.push(value_info(&first, &[]));
            graph
                .node
                .push(node("Resize", "unused", &["image"], vec![]));
        });
        let first = case.model.graph.as_ref().unwrap().node[0].output[0].clone();
        assert_eq!(
            case.same(),
            [format!(
                "of the graph's outputs \"logits\" is read; left out: \"tail\", \"{first}\""
            )]
        );
    }
    for_each!(check);
}

/// Some libraries flatten maps in the order (H, W, C).
#[test]
fn maps_may_be_flattened_in_another_order() {
    let case = Case::<rgb::Net>::changed(|graph| {
        let flatten = of(graph, "fc1_flatten").input[0].clone();
        after(
            graph,
            &flatten,
            node("Transpose", "last", &[], vec![ints("perm", &[0, 2, 3, 1])]),
        );
        let layer = &rgb::LAYERS[1];
        let [c, h, w] = layer.input;
        let tensor = stored(graph, "fc1_weight");
        let values: Vec<f32> = bytemuck::pod_collect_to_vec(&std::mem::take(&mut tensor.raw_data));
        let rows = values.chunks(c * h * w);
        tensor.float_data = rows
            .flat_map(|row| (0..h * w).flat_map(move |at| (0..c).map(move |c| row[c * h * w + at])))
            .collect();
    });
    assert_eq!(
        case.same(),
        [
            "the graph flattens its maps in another order than (C, H, W): the weights of fc1 are put in that order"
        ]
    );
    // Images as (H, W, C) are rejected, but with one channel they make no difference.
    let case = Case::<color::Net>::changed(|graph| {
        graph.input[0] = value_info("image", &[32, 32, 3]);
        after(
            graph,
            "image",
            node("Transpose", "first", &[], vec![ints("perm", &[0, 3, 1, 2])]),
        );
    });
    assert_eq!(
        case.refused(),
        "Transpose \"first\": it takes images as (H, W, C), expected (C, H, W)"
    );
    let case = Case::<lenet::Net>::changed(|graph| {
        graph.input[0] = value_info("image", &[28, 28, 1]);
        after(
            graph,
            "image",
            node("Transpose", "first", &[], vec![ints("perm", &[0, 3, 1, 2])]),
        );
    });
    assert_eq!(case.same(), [""; 0]);
}

/// The graph normalizes the image, possibly with other constants for each channel. With the imported parameters, a plain image
/// must give the logits that the original network gives for the normalized image.
#[test]
fn a_normalization_is_folded_into_the_first_layer() {
    fn normalized<N: Network>(mean: &[f32], std: &[f32], as_product: bool) -> Case<N> {
        let dims = |values: &[f32]| [1, values.len(), 1, 1];
        Case::<N>::changed(|graph| {
            graph.initializer.push(floats("mean", &dims(mean), mean));
            let inverse: Vec<f32> = std.iter().map(|std| 1.0 / std).collect();
            after(graph, "image", node("Sub", "centred", &["mean"], vec![]));
            let (kind, constant) = match as_product {
                true => ("Mul", floats("std", &dims(std), &inverse)),
                false => ("Div", floats("std", &dims(std), std)),
            };
            graph.initializer.push(constant);
            after(graph, "centred", node(kind, "normalized", &["std"], vec![]));
        })
    }
    fn folds<N: Network>(mean: &[f32], std: &[f32], text: &str) {
        for as_product in [false, true] {
            let case = normalized::<N>(mean, std, as_product);
            let (params, notes) = case.read().unwrap();
            let start = format!(
                "the graph begins with {text}, which is folded into {}",
                N::LAYERS[0].name
            );
            assert!(notes[0].starts_with(&start), "{notes:?}");
            let found = logits::<N>(&params, |_, i| pixel(i));
            let bytes = if std[0] > 10.0 { 255.0 } else { 1.0 };
            let of = |values: &[f32], c: usize| values[c.min(values.len() - 1)];
            let expected = logits::<N>(&case.params, |c, i| {
                (bytes * pixel(i) - of(mean, c)) / of(std, c)
            });
            assert_close(&found, &expected, text);
        }
    }
    folds::<lenet::Net>(&[0.286], &[0.353], "(x - 0.286) / 0.353");
    folds::<lenet::Net>(&[72.94], &[90.02], "(x - 0.286) / 0.353");
    folds::<relu::Net>(&[0.5], &[0.5], "(x - 0.5) / 0.5");
    folds::<rgb::Net>(
        &[0.485, 0.456, 0.406],
        &[0.229, 0.224, 0.225],
        "(x - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]",
    );
    folds::<rgb::Net>(&[0.5], &[0.25], "(x - 0.5) / 0.25");
    folds::<flat_net::Net>(
        &[0.2, 0.4, 0.6],
        &[0.5, 0.25, 0.125],
        "(x - [0.2, 0.4, 0.6]) / [0.5, 0.25, 0.125]",
    );
    // In front of a layer with padding, a scale can be folded exactly, but a mean cannot.
    folds::<color::Net>(&[0.0], &[0.25, 0.5, 0.3], "(x - 0) / [0.25, 0.5, 0.3]");
    let refused = normalized::<color::Net>(&[0.5], &[0.25], false).refused();
    assert!(
        refused.starts_with("Conv \"conv1_conv\": conv1 puts zeros around the normalized image, where a zero stands for the mean"),
        "{refused}"
    );
    // If the graph pads the plain image first and then normalizes, a mean can be folded exactly too.
    let mut case = normalized::<color::Net>(&[0.5], &[0.25], false);
    let graph = case.model.graph.as_mut().unwrap();
    graph
        .initializer
        .push(integers("pads", &[0, 0, 1, 1, 0, 0, 1, 1]));
    after(graph, "image", node("Pad", "padded", &["pads"], vec![]));
    of(graph, "conv1_conv")
        .attribute
        .retain(|attribute| attribute.name != "pads");
    let plain = case.read().unwrap().0;
    let bordered = logits::<color::Net>(&plain, |_, i| pixel(i));
    assert!(bordered.iter().all(|logit| logit.is_finite()));

    // The graph takes images as bytes.
    let bytes = Case::<rgb::Net>::changed(|graph| {
        graph.input[0]
            .r#type
            .as_mut()
            .unwrap()
            .tensor_type
            .as_mut()
            .unwrap()
            .elem_type = Tensor::UINT8;
        after(
            graph,
            "image",
            node("Cast", "floats", &[], vec![int("to", 1)]),
        );
        graph.initializer.push(floats("scale", &[], &[1.0 / 255.0]));
        after(graph, "floats", node("Mul", "unit", &["scale"], vec![]));
    });
    let (read, notes) = bytes.read().unwrap();
    assert_eq!(
        notes,
        ["the graph takes images of bytes: the factor 255 is folded into its first layer"]
    );
    assert_close(
        &logits::<rgb::Net>(&read, |_, i| pixel(i)),
        &logits::<rgb::Net>(&bytes.params, |_, i| pixel(i)),
        "bytes",
    );
}

/// Checks batch normalization before and after the activation and the pooling, and the factors of a Gemm.
#[test]
fn scales_and_shifts_are_folded_into_the_neighbouring_layer() {
    let scale = [0.5, 2.0, 1.5, 0.25];
    let shift = [0.1, -0.2, 0.3, 0.0];
    let case = |value: &str| {
        Case::<rgb::Net>::changed(|graph| {
            // With a variance of 1 and an epsilon of 0, batch normalization computes `scale * x + shift`.
            for (name, values) in [("s", scale), ("b", shift), ("m", [0.0; 4]), ("v", [1.0; 4])] {
                graph.initializer.push(floats(name, &[4], &values));
            }
            let epsilon = Attribute {
                name: "epsilon".to_owned(),
                f: 0.0,
                kind: 1,
                ..Attribute::default()
            };
            after(
                graph,
                value,
                node(
                    "BatchNormalization",
                    "norm",
                    &["s", "b", "m", "v"],
                    vec![epsilon],
                ),
            );
        })
    };
    // Folded into the convolution before it.
    let before = case("conv1_conv");
    let mut expected = before.params.clone();
    for c in 0..4 {
        expected.conv1.weight[c]
            .as_flattened_mut()
            .as_flattened_mut()
            .iter_mut()
            .for_each(|w| *w *= scale[c]);
        expected.conv1.bias[c] = expected.conv1.bias[c] * scale[c] + shift[c];
    }
    let check = |case: &Case<rgb::Net>, expected: &rgb::Params| {
        let (read, _) = case.read().unwrap();
        assert_close(
            &logits::<rgb::Net>(&read, |_, i| pixel(i)),
            &logits::<rgb::Net>(expected, |_, i| pixel(i)),
            "norm",
        );
    };
    check(&before, &expected);
    // Folded into the linear layer after it, from before and from after the average pooling.
    let mut expected = before.params.clone();
    for (weights, bias) in expected.fc1.weight.iter_mut().zip(&mut expected.fc1.bias) {
        for (i, weight) in weights.iter_mut().enumerate() {
            let c = i / 12;
            *bias += *weight * shift[c];
            *weight *= scale[c];
        }
    }
    check(&case("conv1_tanh"), &expected);
    check(&case("conv1_averagepool"), &expected);
    // The factors `alpha` and `beta` of a Gemm.
    let gemm = Case::<rgb::Net>::changed(|graph| {
        for (name, f) in [("alpha", 0.5), ("beta", 2.0)] {
            let attribute = Attribute {
                name: name.to_owned(),
                f,
                kind: 1,
                ..Attribute::default()
            };
            of(graph, "fc2_gemm").attribute.push(attribute);
        }
    });
    let mut expected = gemm.params.clone();
    expected
        .fc2
        .weight
        .as_flattened_mut()
        .iter_mut()
        .for_each(|weight| *weight *= 0.5);
    expected.fc2.bias.iter_mut().for_each(|bias| *bias *= 2.0);
    check(&gemm, &expected);
}

/// Each model computes another function than the network.
#[test]
fn the_error_names_the_first_operator_that_differs() {
    type Change = fn(&mut Graph);
    let cases: &[(Change, &str)] = &[
        (
            |graph| of(graph, "fc1_sigmoid").op_type = "Relu".to_owned(),
            "Relu \"fc1_sigmoid\": expected sigmoid, the activation of fc1",
        ),
        (
            |graph| of(graph, "conv1_sigmoid").op_type = "Hardmax".to_owned(),
            "Hardmax \"conv1_sigmoid\": conv1 (conv2d 5x5, max pool 2, sigmoid) of this network has no such operator",
        ),
        (
            |graph| of(graph, "conv1_conv").domain = "com.example".to_owned(),
            "Conv \"conv1_conv\": it is an operator of the domain \"com.example\", expected one of ONNX's own",
        ),
        (
            |graph| {
                after(
                    graph,
                    "image",
                    Node {
                        domain: "com.example".to_owned(),
                        ..node("Identity", "own", &[], vec![])
                    },
                )
            },
            "Identity \"own\": it is an operator of the domain \"com.example\", expected one of ONNX's own",
        ),
        (
            |graph| {
                of(graph, "conv1_conv")
                    .attribute
                    .push(ints("strides", &[2, 2]))
            },
            "Conv \"conv1_conv\": its strides is [2, 2], expected [1, 1] (conv1)",
        ),
        (
            |graph| {
                of(graph, "conv2_conv")
                    .attribute
                    .push(ints("pads", &[2; 4]))
            },
            "Conv \"conv2_conv\": its padding is [2, 2, 2, 2], expected [0, 0, 0, 0] (conv2)",
        ),
        (
            |graph| {
                of(graph, "conv2_conv")
                    .attribute
                    .push(text("auto_pad", "SAME_UPPER"))
            },
            "Conv \"conv2_conv\": its padding is [2, 2, 2, 2], expected [0, 0, 0, 0] (conv2)",
        ),
        (
            |graph| of(graph, "conv1_maxpool").op_type = "AveragePool".to_owned(),
            "AveragePool \"conv1_maxpool\": its window is 2 x 2, expected conv1 (conv2d 5x5, max pool 2, sigmoid)",
        ),
        (
            |graph| {
                of(graph, "conv1_maxpool").attribute.pop();
            },
            "MaxPool \"conv1_maxpool\": its strides are [1, 1], expected [2, 2] as its window",
        ),
        (
            |graph| of(graph, "conv1_maxpool").attribute.push(int("unheard", 1)),
            "MaxPool \"conv1_maxpool\": it has the unknown attribute unheard",
        ),
        (
            |graph| of(graph, "fc3_gemm").attribute.clear(),
            "Gemm \"fc3_gemm\": its weight is [10, 84], expected [84, 10] (fc3)",
        ),
        (
            |graph| stored(graph, "conv2_bias").data_type = 8,
            "\"conv2_bias\": its elements have the unknown data type 8",
        ),
        (
            |graph| stored(graph, "fc1_weight").raw_data.truncate(400),
            "\"fc1_weight\": it has 100 values, expected 30720",
        ),
        (
            |graph| stored(graph, "fc2_weight").data_location = Tensor::EXTERNAL,
            "\"fc2_weight\": its values are in another file; export with them inside (PyTorch: external_data=False)",
        ),
        (
            |graph| {
                after(
                    graph,
                    "fc1_sigmoid",
                    node("Add", "skip", &["fc1_gemm"], vec![]),
                )
            },
            "Add \"skip\": it takes two values that depend on the image, expected one",
        ),
        (
            |graph| {
                graph.input.push(value_info("mask", &[1]));
                after(graph, "image", node("Mul", "masked", &["mask"], vec![]));
            },
            "its output \"logits\" depends on the inputs [\"image\", \"mask\"], expected one image",
        ),
        (
            |graph| graph.node[5].input[0] = "fc1_gemm".to_owned(),
            "the graph runs in a ring through \"fc1_gemm\"",
        ),
        (
            |graph| graph.output[0].name = "fc2_gemm".to_owned(),
            "output \"fc2_gemm\": fc3, linear, is missing before it",
        ),
        (
            |graph| {
                graph.initializer.push(floats(
                    "mask",
                    &[28, 28],
                    &[0.5; 783].into_iter().chain([1.0]).collect::<Vec<_>>(),
                ));
                after(graph, "image", node("Mul", "masked", &["mask"], vec![]));
            },
            "Conv \"conv1_conv\": conv1 cannot take in a constant before it that differs between the pixels of a channel",
        ),
        (
            |graph| {
                after(
                    graph,
                    "logits",
                    node("Softmax", "tail", &[], vec![int("axis", 0)]),
                )
            },
            "Softmax \"tail\": its axis 0 of [N, 10] is not that of the classes",
        ),
        (
            |graph| graph.input[0] = value_info("image", &[1, 32, 32]),
            "\"image\": its input has the shape [N, 1, 32, 32], expected [N, 1, 28, 28]",
        ),
        (
            |graph| {
                after(
                    graph,
                    "conv2_sigmoid",
                    node(
                        "Transpose",
                        "turned",
                        &[],
                        vec![ints("perm", &[1, 0, 2, 3])],
                    ),
                )
            },
            "Transpose \"turned\": it moves the axis of the images",
        ),
        (
            |graph| {
                // A window at the edge is incomplete, which counts as one more row of padding.
                of(graph, "conv1_maxpool").attribute = vec![
                    ints("kernel_shape", &[5, 5]),
                    ints("strides", &[5, 5]),
                    ints("pads", &[0, 0, i64::MAX, i64::MAX]),
                    int("ceil_mode", 1),
                ];
            },
            "MaxPool \"conv1_maxpool\": it pads its input",
        ),
        (
            |graph| {
                graph.initializer.push(integers("dims", &[1 << 22]));
                graph
                    .node
                    .push(node("ConstantOfShape", "large", &["dims"], vec![]));
                for (input, output) in [("large", "a"), ("a", "b"), ("b", "c"), ("c", "d")] {
                    graph.node.push(node("Identity", output, &[input], vec![]));
                }
                after(graph, "image", node("Add", "moved", &["d"], vec![]));
            },
            "Identity \"d\": the values that the graph computes up to it have more than 16777216 elements, which is the limit",
        ),
        (
            |graph| {
                // 784 elements each.
                after(
                    graph,
                    "image",
                    node("Identity", "moved", &["21400"], vec![]),
                );
                graph.node.push(node("Identity", "1", &["image"], vec![]));
                for n in 2..=21_400 {
                    let [input, output] = [n - 1, n].map(|n: u32| n.to_string());
                    graph
                        .node
                        .push(node("Identity", &output, &[&input], vec![]));
                }
            },
            "Identity \"21400\": the values that the graph computes up to it have more than 16777216 elements, which is the \
             limit",
        ),
    ];
    for (change, expected) in cases {
        assert_eq!(Case::<lenet::Net>::changed(change).refused(), *expected);
    }
    // Average pooling does not commute with the activation.
    let case = Case::<lenet_d2l::Net>::changed(|graph| {
        let (sigmoid, pool) = (at(graph, "conv1_sigmoid"), at(graph, "conv1_averagepool"));
        graph.node[sigmoid].op_type = "AveragePool".to_owned();
        graph.node[pool].op_type = "Sigmoid".to_owned();
        let attribute = std::mem::take(&mut graph.node[pool].attribute);
        graph.node[sigmoid].attribute = attribute;
    });
    assert_eq!(
        case.refused(),
        "AveragePool \"conv1_sigmoid\": it comes before the sigmoid of conv1, expected after it"
    );
}

/// Computes an operator whose inputs are lists of integers.
fn computed(
    op_type: &str,
    inputs: &[&[i64]],
    attribute: Vec<Attribute>,
) -> Result<Constant, String> {
    let inputs: Vec<Constant> = inputs
        .iter()
        .map(|values| Constant::read(&integers("", values)).unwrap())
        .collect();
    let inputs: Vec<_> = inputs.iter().map(Some).collect();
    Constant::compute(&node(op_type, "", &[], attribute), &inputs).unwrap()
}

#[test]
fn invalid_operators_on_constants_are_rejected() {
    let of_value = |dims: &[usize], values: &[f32]| {
        vec![Attribute {
            name: "value".to_owned(),
            t: Some(floats("", dims, values)),
            ..Attribute::default()
        }]
    };
    let ones = computed("ConstantOfShape", &[&[2, 3]], of_value(&[1], &[1.0])).unwrap();
    assert_eq!(
        (&ones.dims[..], ones.floats()),
        (&[2, 3][..], Ok(vec![1.0; 6]))
    );
    for (values, problem) in [
        (&[][..], "its value has 0 elements, expected one"),
        (&[1.0, 2.0], "its value has 2 elements, expected one"),
    ] {
        let value = of_value(&[values.len()], values);
        let read = computed("ConstantOfShape", &[&[2, 3]], value);
        assert_eq!(read, Err(problem.to_owned()));
    }

    let list = [5, 6, 7, 8];
    let slice = |axes: &[i64]| {
        let (starts, ends) = (vec![2; axes.len()], vec![4; axes.len()]);
        computed("Slice", &[&list, &starts, &ends, axes], vec![])
    };
    assert_eq!(slice(&[-1]).unwrap().known(), Ok(vec![7, 8]));
    for axes in [[0, 0], [0, -1], [-1, -1]] {
        assert_eq!(slice(&axes), Err("its axes are not distinct".to_owned()));
    }

    // No elements, but another dimension that is large.
    let reshaped = |dims: &[i64]| computed("Reshape", &[&[], dims], vec![int("allowzero", 1)]);
    assert_eq!(reshaped(&[0, 9]).unwrap().dims, [0, 9]);
    assert_eq!(
        reshaped(&[0, 1 << 40]),
        Err(
            "it has the dimensions [0, 1099511627776]; at most 4194304 elements are supported"
                .to_owned()
        )
    );
    let many = Err("it has 65 dimensions; at most 64 are supported".to_owned());
    assert_eq!(reshaped(&[0; 64]).unwrap().dims, [0; 64]);
    assert_eq!(reshaped(&[0; 65]), many);
    let axes = (0..64).collect::<Vec<_>>();
    assert_eq!(computed("Unsqueeze", &[&list, &axes], vec![]), many);
    assert_eq!(Constant::read(&floats("", &[1; 65], &[0.0])), many);
}

/// Each value has the notes of those before it, so repeated ones would take memory that grows as the square of the graph.
#[test]
fn a_value_has_each_note_once() {
    let cast = node("Cast", "", &[], vec![int("to", Tensor::FLOAT16.into())]);
    let image = Image::input(&lenet::LAYERS, None, false).unwrap();
    let twice = image
        .apply(&cast, 0, &[])
        .and_then(|image| image.apply(&cast, 0, &[]));
    assert_eq!(twice.unwrap().notes.len(), 1);
}

#[test]
fn a_damaged_model_never_causes_a_panic() {
    let normalized = Case::<rgb::Net>::changed(|graph| {
        graph
            .initializer
            .push(floats("mean", &[1, 3, 1, 1], &[0.5, 0.25, 0.125]));
        after(graph, "image", node("Sub", "centred", &["mean"], vec![]));
        let flatten = of(graph, "fc1_flatten");
        flatten.op_type = "Reshape".to_owned();
        flatten.input.push("to".to_owned());
        graph.initializer.insert(0, integers("open", &[-1]));
        graph.initializer.insert(0, integers("zero", &[0]));
        graph.initializer.insert(0, integers("one", &[1]));
        graph.node.push(node("Shape", "shape", &["image"], vec![]));
        graph
            .node
            .push(node("Slice", "batches", &["shape", "zero", "one"], vec![]));
        graph.node.push(node(
            "Concat",
            "to",
            &["batches", "open"],
            vec![int("axis", 0)],
        ));
        after(graph, "logits", node("Softmax", "tail", &[], vec![]));
    });
    normalized.read().unwrap();
    let bytes = normalized.model.encode_to_vec();
    let mut flat = vec![0.0; rgb::NUM_PARAMS];
    for end in (0..bytes.len()).step_by(97) {
        assert!(
            read_flat(&bytes[..end], &rgb::LAYERS, &mut flat).is_err(),
            "{end} bytes"
        );
    }
    // ONNX files have no checksum, so some damaged files are read without an error.
    for at in 0..bytes.len() {
        for bit in [at % 8, (at + 3) % 8] {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << bit;
            let _ = read_flat(&bytes, &rgb::LAYERS, &mut flat);
        }
    }
}
