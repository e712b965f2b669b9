//! Matches the operators that a graph applies to the image with the layers of a network, one by one.
//!
//! This module keeps the state of the match, an [`Image`], and passes each operator to the function that matches it:
//!
//! | module | operators |
//! |---|---|
//! | `layers` | convolutions, matrix products, and activations |
//! | `pooling` | pooling, and the padding of the input |
//! | `scaling` | normalization, and sums and products with constants, which are folded into the parameters |

mod layers;
mod pooling;
mod scaling;

use super::constant::{
    Constant, Int, attribute, index, is_float, permutation, reshaped, shape, text, transposed,
};
use super::proto::Node;
use lenet_core::layer::{Activation, Pool};
use lenet_core::plan::{Kind, Layer};
use std::rc::Rc;

/// The parameters of a layer that have been found so far.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// The weight, in the order of the network's tensor.
    pub weight: Vec<f64>,
    /// The bias; `None` stands for zeros.
    pub bias: Option<Vec<f64>>,
}

/// An elementwise scale and shift, `scale * x + shift`.
#[derive(Clone, Debug)]
struct Affine {
    scale: Vec<f64>,
    shift: Vec<f64>,
}

/// A value that depends on the image: the output of the network's first layers, possibly in another order of elements, and
/// possibly scaled and shifted.
#[derive(Clone, Debug)]
pub(super) struct Image<'a> {
    layers: &'a [Layer],
    /// The batch size for which the graph was exported; `None` if it accepts any.
    batch: Option<i64>,
    pub found: Vec<Rc<Found>>,
    /// Whether the pooling of the last layer in `found` has been applied.
    pooled: bool,
    /// Whether the activation of the last layer in `found` has been applied.
    activated: bool,
    shape: Vec<Int>,
    /// For each element of one image, its index in the layer's output `(C, H, W)`.
    order: Vec<usize>,
    /// A scale and shift of the last layer's output, to be folded into the next layer.
    affine: Option<Affine>,
    /// The number of rows and columns of zeros around it: top, left, bottom, right.
    pads: [i64; 4],
    /// The operator that was applied to the logits, if any, such as `Softmax`.
    pub after: Option<String>,
    /// Notes for the user on how the parameters were found.
    pub notes: Vec<String>,
}

impl<'a> Image<'a> {
    /// Returns the input of a graph, whose shape is `None` if the graph does not state it.
    pub fn input(layers: &'a [Layer], dims: Option<Vec<Int>>, bytes: bool) -> Result<Self, String> {
        let [c, h, w] = layers[0].input;
        let len = c * h * w;
        let wanted = vec![
            Int::Batch,
            Int::Known(c as i64),
            Int::Known(h as i64),
            Int::Known(w as i64),
        ];
        let mut dims = dims.unwrap_or_else(|| wanted.clone());
        if dims.len() == wanted.len() && dims.iter().skip(1).any(|&dim| dim == Int::Batch) {
            // Dimensions that the graph leaves open are assumed to be those of this network.
            for (dim, &wanted) in dims.iter_mut().zip(&wanted) {
                if *dim == Int::Batch {
                    *dim = wanted;
                }
            }
        }
        let count = |dims: &[Int]| {
            dims.iter().try_fold(1_i64, |product, &dim| match dim {
                Int::Known(dim) if dim > 0 => product.checked_mul(dim),
                _ => None,
            })
        };
        let mut batch = None;
        match &mut dims[..] {
            [first, rest @ ..] if count(rest) == Some(len as i64) => {
                if let Int::Known(number) = std::mem::replace(first, Int::Batch) {
                    batch = Some(number);
                }
            }
            all if count(all) == Some(len as i64) => {}
            _ => {
                return Err(format!(
                    "its input has the shape {}, expected {}",
                    text(&dims),
                    text(&wanted)
                ));
            }
        }
        let mut image = Self {
            layers,
            batch,
            found: Vec::new(),
            pooled: false,
            activated: false,
            shape: dims,
            order: (0..len).collect(),
            affine: None,
            pads: [0; 4],
            after: None,
            notes: Vec::new(),
        };
        if bytes {
            image.affine = Some(Affine {
                scale: vec![255.0; len],
                shift: vec![0.0; len],
            });
            image.notes.push(
                "the graph takes images of bytes: the factor 255 is folded into its first layer"
                    .to_owned(),
            );
        }
        Ok(image)
    }

    /// Applies an operator to the image, which is input number `at` of the node. The other inputs are constants.
    pub fn apply(
        mut self,
        node: &Node,
        at: usize,
        inputs: &[Option<&Constant>],
    ) -> Result<Self, String> {
        let kind = node.op_type.as_str();
        if at > 0 && !matches!(kind, "Add" | "Mul" | "Sub") {
            return Err("it takes the image as another input than its first".to_owned());
        }
        let input = |at: usize| inputs.get(at).copied().flatten();
        if let Some(after) = &self.after
            && !matches!(
                kind,
                "Identity" | "Cast" | "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze"
            )
        {
            return Err(format!(
                "it follows {after}, after which nothing can be followed"
            ));
        }
        if self.pads != [0; 4]
            && !matches!(kind, "Add" | "Mul" | "Sub" | "Div" | "Identity" | "Conv")
        {
            return Err("it follows a Pad, which only a Conv may do".to_owned());
        }
        match kind {
            "Identity" => {}
            "Dropout" => {
                let training = input(2).map_or(Ok(0.0), Constant::scalar)?;
                if training != 0.0 {
                    return Err(
                        "it is in training mode, and leaves out values at random".to_owned()
                    );
                }
            }
            "Cast" => {
                let to = attribute(node, "to").map_or(0, |to| to.i);
                if !is_float(to) {
                    return Err("it turns values into integers".to_owned());
                }
                if to == 10 || to == 16 {
                    self.note("the graph computes in 16 bits, this program in f32".to_owned());
                }
            }
            "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" => {
                let shape = reshaped(node, &self.shape, input(1), self.batch)?;
                if shape.iter().skip(1).any(|&dim| dim == Int::Batch) {
                    return Err(format!("it gives the shape {}", text(&shape)));
                }
                self.shape = shape;
            }
            "Transpose" => self.transpose(node)?,
            "Conv" => self.convolve(node, input(1), input(2))?,
            "Gemm" => self.gemm(node, input(1), input(2))?,
            "MatMul" => {
                let weight = input(1).ok_or("it lacks a weight")?;
                self.linear(weight, false, 1.0)?;
            }
            "Sigmoid" => self.activate(Activation::Sigmoid)?,
            "Tanh" => self.activate(Activation::Tanh)?,
            "Relu" => self.activate(Activation::Relu)?,
            "MaxPool" | "AveragePool" => self.pool(node)?,
            "GlobalAveragePool" | "GlobalMaxPool" => {
                let [_, h, w] = self.dims();
                if h != w {
                    return Err(format!("its window is {h} x {w}, expected a square"));
                }
                self.pool_by(kind.strip_prefix("Global").unwrap_or(kind), h)?;
            }
            "Pad" => self.pad(node, inputs)?,
            "BatchNormalization" => self.normalize_batch(node, inputs)?,
            "Add" | "Sub" | "Mul" | "Div" | "Neg" => {
                let values = match kind {
                    "Neg" => vec![-1.0; self.order.len()],
                    _ => self.spread(input(1 - at).ok_or("it lacks an input")?)?,
                };
                let same = |value: f64| vec![value; values.len()];
                let negated = || values.iter().map(|value| -value).collect();
                let inverted = || values.iter().map(|value| value.recip()).collect();
                match (kind, at) {
                    ("Add", _) => self.scale_and_shift(same(1.0), values)?,
                    ("Sub", 0) => self.scale_and_shift(same(1.0), negated())?,
                    ("Sub", _) => self.scale_and_shift(same(-1.0), values)?,
                    ("Div", _) => self.scale_and_shift(inverted(), same(0.0))?,
                    _ => {
                        let zeros = same(0.0);
                        self.scale_and_shift(values, zeros)?;
                    }
                }
            }
            "Softmax" | "LogSoftmax" | "ArgMax" => {
                self.logits()?;
                let axis =
                    attribute(node, "axis").map_or(if kind == "ArgMax" { 0 } else { -1 }, |a| a.i);
                let axis = index(axis, self.shape.len())?;
                let others = self
                    .shape
                    .iter()
                    .enumerate()
                    .filter(|&(other, _)| other != axis);
                if others
                    .into_iter()
                    .any(|(_, &dim)| !matches!(dim, Int::Batch | Int::Known(1)))
                {
                    return Err(format!(
                        "its axis {axis} of {} is not that of the classes",
                        text(&self.shape)
                    ));
                }
                self.after = Some(kind.to_owned());
            }
            "Shape" => unreachable!("is answered without the image"),
            _ => {
                return Err(format!(
                    "{} of this network has no such operator",
                    self.place()
                ));
            }
        }
        Ok(self)
    }

    /// Returns the number of elements of one image.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Returns the result of the operator `Shape`.
    pub fn shape(&self, node: &Node) -> Result<Constant, String> {
        match self.pads {
            [0, 0, 0, 0] => shape(node, self.shape.clone()),
            _ => Err("it follows a Pad, which only a Conv may do".to_owned()),
        }
    }

    /// Checks that this value is the logits: that all layers are complete and their output is unchanged.
    pub fn logits(&self) -> Result<(), String> {
        match self.layers.get(self.found.len()) {
            Some(layer) => return Err(format!("{}, {layer}, is missing before it", layer.name)),
            None => self.completed()?,
        }
        match self.affine.is_none() && self.order.iter().copied().eq(0..self.order.len()) {
            true => Ok(()),
            false => Err("the logits are changed before it".to_owned()),
        }
    }

    /// Describes the layer to which the next operator must belong.
    fn place(&self) -> String {
        let open = self.completed().is_err();
        let at = self.found.len().saturating_sub(usize::from(open));
        self.layers.get(at).map_or("the end".to_owned(), |layer| {
            format!("{} ({layer})", layer.name)
        })
    }

    /// Returns the last layer whose parameters were found.
    fn last(&self) -> Option<&'a Layer> {
        self.found
            .len()
            .checked_sub(1)
            .and_then(|last| self.layers.get(last))
    }

    /// Returns the shape `(C, H, W)` of the output of the layers so far.
    fn dims(&self) -> [usize; 3] {
        match self.last() {
            None => self.layers[0].input,
            Some(layer) if self.pooled => layer.output,
            Some(layer) => layer.convolved(),
        }
    }

    /// Checks that the pooling and the activation of the last layer have been applied.
    fn completed(&self) -> Result<(), String> {
        let Some(layer) = self.last() else {
            return Ok(());
        };
        if !self.activated && layer.activation != Activation::Identity {
            let (name, activation) = (layer.name, layer.activation.name());
            return Err(format!("the {activation} of {name} is missing before it"));
        }
        if !self.pooled && layer.pool != Pool::Whole {
            return Err(format!(
                "the pooling of {} is missing before it ({layer})",
                layer.name
            ));
        }
        Ok(())
    }

    /// Returns the next layer, which must be of this kind.
    fn next(&self, kind: Kind) -> Result<&'a Layer, String> {
        self.completed()?;
        match self.layers.get(self.found.len()) {
            None => Err("it follows the last layer of this network".to_owned()),
            Some(layer) if layer.kind != kind => {
                Err(format!("expected {}, which is {layer}", layer.name))
            }
            Some(layer) => Ok(layer),
        }
    }

    /// Adds the parameters of the next layer.
    fn begin(&mut self, found: Found) {
        self.found.push(Rc::new(found));
        let layer = &self.layers[self.found.len() - 1];
        (self.pooled, self.activated) = (layer.pool == Pool::Whole, false);
        (self.affine, self.pads) = (None, [0; 4]);
        self.set_dims();
    }

    /// Sets the shape to that of the layers' output, with the elements in order.
    fn set_dims(&mut self) {
        let [c, h, w] = self.dims();
        match self.last().map(|layer| layer.kind) {
            Some(Kind::Linear) => {
                self.shape.pop();
                self.shape.push(Int::Known(c as i64));
            }
            _ => {
                self.shape.truncate(1);
                self.shape
                    .extend([c, h, w].map(|dim| Int::Known(dim as i64)));
            }
        }
        self.order = (0..c * h * w).collect();
    }

    /// Checks that the shape is (N, C, H, W) and the elements are in order.
    fn in_order(&self) -> Result<(), String> {
        let [c, h, w] = self.dims().map(|dim| Int::Known(dim as i64));
        let first = self.shape.first().copied().unwrap_or(Int::Batch);
        let wanted = [first, c, h, w];
        let one = matches!(first, Int::Batch | Int::Known(1));
        if !one || self.shape != wanted {
            return Err(format!(
                "it takes the shape {}, expected {}",
                text(&self.shape),
                text(&[Int::Batch, c, h, w])
            ));
        }
        match self.order.iter().copied().eq(0..self.order.len()) {
            true => Ok(()),
            false => Err("it takes values that a Transpose has moved".to_owned()),
        }
    }

    fn transpose(&mut self, node: &Node) -> Result<(), String> {
        let axes = permutation(node, self.shape.len())?;
        let one_image: Vec<usize> = self
            .shape
            .iter()
            .map(|dim| match dim {
                Int::Known(dim) => *dim as usize,
                Int::Batch => 1,
            })
            .collect();
        let (_, indices) = transposed(&one_image, &axes);
        let shape: Vec<Int> = axes.iter().map(|&axis| self.shape[axis]).collect();
        if shape.iter().skip(1).any(|&dim| dim == Int::Batch) {
            return Err("it moves the axis of the images".to_owned());
        }
        self.order = indices.iter().map(|&i| self.order[i]).collect();
        self.shape = shape;
        let [c, h, w] = self.dims().map(|dim| Int::Known(dim as i64));
        if self.found.is_empty() && self.shape[1..] == [c, h, w] && c != Int::Known(1) {
            return Err("it takes images as (H, W, C), expected (C, H, W)".to_owned());
        }
        Ok(())
    }

    /// Adds a note, unless it is there already: each value has a copy of the notes of those before it.
    fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// Adds a note if the constant is not stored in f32.
    fn note_type(&mut self, constant: &Constant) {
        let note = match constant.stored {
            "f16" | "bf16" => "is widened to f32, which changes no value",
            "f64" => "is rounded to f32",
            _ => return,
        };
        self.note(format!(
            "what the graph stores in {} {note}",
            constant.stored
        ));
    }
}
