//! Matches the operators that a graph applies to the image with the layers of a network, one by one.

use super::constant::{
    Constant, Int, attribute, index, is_float, permutation, reshaped, shape, text, transposed,
};
use super::proto::Node;
use crate::normalize;
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

/// If a graph scales its input by less than this, it expects bytes (0 to 255) rather than values from 0 to 1. Normalization
/// divides by the standard deviation, which is at most 1/2 for values from 0 to 1, and greater than 16 for bytes unless the
/// images hardly vary.
const SCALE_OF_BYTES: f64 = 1.0 / 16.0;

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
                    self.notes
                        .push("the graph computes in 16 bits, this program in f32".to_owned());
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

    /// Broadcasts a constant to the image, and returns its value for each element in the order `(C, H, W)`.
    fn spread(&mut self, constant: &Constant) -> Result<Vec<f64>, String> {
        self.note_type(constant);
        let one_image: Vec<usize> = self
            .shape
            .iter()
            .map(|dim| match dim {
                Int::Known(dim) => *dim as usize,
                Int::Batch => 1,
            })
            .collect();
        let values = constant.broadcast(&one_image)?.floats()?;
        let mut spread = vec![0.0; values.len()];
        for (value, &at) in values.iter().zip(&self.order) {
            spread[at] = *value;
        }
        Ok(spread)
    }

    /// Adds a note if the constant is not stored in f32.
    fn note_type(&mut self, constant: &Constant) {
        let note = match constant.stored {
            "f16" | "bf16" => "is widened to f32, which changes no value",
            "f64" => "is rounded to f32",
            _ => return,
        };
        self.notes.push(format!(
            "what the graph stores in {} {note}",
            constant.stored
        ));
    }

    /// Applies a scale and a shift to the values, both given in the order `(C, H, W)`. If possible, they are folded into the
    /// parameters of the last layer, otherwise they are kept for the next layer.
    fn scale_and_shift(&mut self, scale: Vec<f64>, shift: Vec<f64>) -> Result<(), String> {
        if scale.iter().chain(&shift).any(|value| !value.is_finite()) {
            return Err("it gives values that are NaN or infinite".to_owned());
        }
        if let Some(layer) = self.last()
            && !self.activated
        {
            let channels = layer.output[0];
            let scales = of_channels(&scale, channels);
            let shifts = of_channels(&shift, channels);
            // Max-pooling commutes with a shift and with a positive scale, average pooling with any shift and scale.
            let commutes = |scales: &[f64]| match layer.pool {
                Pool::Max(_) if self.pooled => scales.iter().all(|&scale| scale > 0.0),
                _ => true,
            };
            if let (Some(scales), Some(shifts)) = (scales, shifts)
                && commutes(&scales)
            {
                let found = self
                    .found
                    .last_mut()
                    .map(Rc::make_mut)
                    .expect("there is a last layer");
                let row = found.weight.len() / channels;
                for (weights, scale) in found.weight.chunks_mut(row).zip(&scales) {
                    weights.iter_mut().for_each(|weight| *weight *= scale);
                }
                let moved = shifts.iter().any(|&shift| shift != 0.0);
                found.bias = match found.bias.take() {
                    None if moved => Some(shifts),
                    None => None,
                    Some(bias) => {
                        let terms = bias.iter().zip(&scales).zip(&shifts);
                        Some(
                            terms
                                .map(|((bias, scale), shift)| bias * scale + shift)
                                .collect(),
                        )
                    }
                };
                return Ok(());
            }
        }
        let affine = match self.affine.take() {
            None => Affine { scale, shift },
            Some(before) => Affine {
                shift: before
                    .shift
                    .iter()
                    .zip(&scale)
                    .zip(&shift)
                    .map(|((b, s), t)| b * s + t)
                    .collect(),
                scale: before
                    .scale
                    .iter()
                    .zip(&scale)
                    .map(|(before, scale)| before * scale)
                    .collect(),
            },
        };
        self.affine = Some(affine);
        Ok(())
    }

    /// Folds the scale and shift of the layer's input into the parameters of the layer. `pads` states whether the layer pads its
    /// input with zeros.
    fn fold(&mut self, layer: &Layer, found: &mut Found, pads: bool) -> Result<(), String> {
        let Some(mut affine) = self.affine.take() else {
            return Ok(());
        };
        let parts = match layer.kind {
            Kind::Conv2d => layer.input[0],
            Kind::Linear => layer.input_len(),
        };
        let first = self.found.is_empty();
        let parted = [&affine.scale, &affine.shift].map(|values| of_channels(values, parts));
        let [Some(scale), Some(shift)] = parted else {
            return Err(format!(
                "{} cannot take in a constant before it that differs between the pixels of a channel",
                layer.name
            ));
        };
        affine = Affine { scale, shift };
        let named_for_bytes = first
            && affine
                .scale
                .iter()
                .all(|scale| scale.abs() < SCALE_OF_BYTES);
        if named_for_bytes {
            affine.scale.iter_mut().for_each(|scale| *scale *= 255.0);
        }
        if first
            && self
                .notes
                .iter()
                .all(|note| !note.contains("images of bytes"))
        {
            let of_channels = |values: Vec<f64>| {
                // A linear layer has one value per pixel; show only one per channel if the pixels of a channel agree.
                let values = of_channels(&values, layer.input[0]).unwrap_or(values);
                normalize::list(&values)
            };
            let mean = affine
                .shift
                .iter()
                .zip(&affine.scale)
                .map(|(shift, scale)| 0.0 - shift / scale);
            let (mean, std) = (
                of_channels(mean.collect()),
                of_channels(affine.scale.iter().map(|s| 1.0 / s).collect()),
            );
            let bytes = match named_for_bytes {
                true => ". Its constants are for bytes, so the factor 255 is folded too",
                false => "",
            };
            self.notes.push(format!(
                "the graph begins with (x - {mean}) / {std}, which is folded into {}: images go in as 0..1 as always{bytes}",
                layer.name
            ));
        }
        if pads && affine.shift.iter().any(|&shift| shift != 0.0) {
            return Err(match first {
                true => normalize::padded(layer.name),
                false => format!(
                    "{} pads its input with zeros after something is added to it, which this network cannot do",
                    layer.name
                ),
            });
        }
        let mut bias = found
            .bias
            .take()
            .unwrap_or_else(|| vec![0.0; layer.output[0]]);
        normalize::fold(&mut found.weight, &mut bias, &affine.scale, &affine.shift);
        found.bias = Some(bias);
        Ok(())
    }

    fn convolve(
        &mut self,
        node: &Node,
        weight: Option<&Constant>,
        bias: Option<&Constant>,
    ) -> Result<(), String> {
        let layer = self.next(Kind::Conv2d)?;
        self.in_order()?;
        let weight = weight.ok_or("it lacks a weight")?;
        let k = layer.kernel;
        let wanted = [layer.output[0], layer.input[0], k, k];
        if weight.dims != wanted {
            return Err(format!(
                "its weight is {:?}, expected {wanted:?} ({})",
                weight.dims, layer.name
            ));
        }
        let ints = |name, default| {
            attribute(node, name).map_or(default, |attribute| attribute.ints.clone())
        };
        let side = k as i64;
        for (name, found, expected) in [
            (
                "kernel_shape",
                ints("kernel_shape", vec![side; 2]),
                vec![side; 2],
            ),
            ("strides", ints("strides", vec![1; 2]), vec![1; 2]),
            ("dilations", ints("dilations", vec![1; 2]), vec![1; 2]),
            (
                "group",
                vec![attribute(node, "group").map_or(1, |group| group.i)],
                vec![1],
            ),
        ] {
            if found != expected {
                return Err(format!(
                    "its {name} is {found:?}, expected {expected:?} ({})",
                    layer.name
                ));
            }
        }
        let [_, h, w] = layer.input;
        let own = pads(node, [h, w], [k, k], [1, 1])?;
        let pads: [i64; 4] = std::array::from_fn(|side| own[side].saturating_add(self.pads[side]));
        let padding = layer.padding as i64;
        if pads != [padding; 4] {
            return Err(format!(
                "its padding is {pads:?}, expected {:?} ({})",
                [padding; 4], layer.name
            ));
        }
        self.note_type(weight);
        let mut found = Found {
            weight: weight.floats()?,
            bias: bias.map(Constant::floats).transpose()?,
        };
        if let Some(bias) = &found.bias
            && bias.len() != layer.output[0]
        {
            return Err(format!(
                "its bias has {} values, expected {}",
                bias.len(),
                layer.output[0]
            ));
        }
        self.fold(layer, &mut found, own != [0; 4])?;
        self.begin(found);
        Ok(())
    }

    fn gemm(
        &mut self,
        node: &Node,
        weight: Option<&Constant>,
        bias: Option<&Constant>,
    ) -> Result<(), String> {
        let flag = |name| attribute(node, name).is_some_and(|attribute| attribute.i != 0);
        let factor = |name| attribute(node, name).map_or(1.0, |attribute| f64::from(attribute.f));
        if flag("transA") {
            return Err("it transposes the images".to_owned());
        }
        if self.shape.len() != 2 {
            return Err(format!(
                "it takes the shape {}, expected two dimensions",
                text(&self.shape)
            ));
        }
        let weight = weight.ok_or("it lacks a weight")?;
        self.linear(weight, flag("transB"), factor("alpha"))?;
        if let Some(bias) = bias {
            let bias = self
                .spread(bias)?
                .iter()
                .map(|bias| bias * factor("beta"))
                .collect();
            self.scale_and_shift(vec![1.0; self.order.len()], bias)?;
        }
        Ok(())
    }

    /// Multiplies by a weight `(IN, OUT)`, or `(OUT, IN)` if it is transposed.
    fn linear(&mut self, weight: &Constant, transposed: bool, factor: f64) -> Result<(), String> {
        let layer = self.next(Kind::Linear)?;
        let (inputs, outputs) = (layer.input_len(), layer.output[0]);
        let last = self.shape.last() == Some(&Int::Known(inputs as i64));
        let ones = self
            .shape
            .iter()
            .rev()
            .skip(1)
            .all(|dim| matches!(dim, Int::Batch | Int::Known(1)));
        if !last || !ones {
            return Err(format!(
                "it takes the shape {}, expected [N, {inputs}] ({})",
                text(&self.shape),
                layer.name
            ));
        }
        let wanted = if transposed {
            [outputs, inputs]
        } else {
            [inputs, outputs]
        };
        if weight.dims != wanted {
            return Err(format!(
                "its weight is {:?}, expected {wanted:?} ({})",
                weight.dims, layer.name
            ));
        }
        self.note_type(weight);
        let values = weight.floats()?;
        let mut weight = vec![0.0; values.len()];
        for (i, &at) in self.order.iter().enumerate() {
            for o in 0..outputs {
                let value = if transposed {
                    values[o * inputs + i]
                } else {
                    values[i * outputs + o]
                };
                weight[o * inputs + at] = value * factor;
            }
        }
        if !self.order.iter().copied().eq(0..inputs) {
            self.notes.push(format!(
                "the graph flattens its maps in another order than (C, H, W): the weights of {} are put in that order",
                layer.name
            ));
        }
        let mut found = Found { weight, bias: None };
        self.fold(layer, &mut found, false)?;
        self.begin(found);
        Ok(())
    }

    fn activate(&mut self, activation: Activation) -> Result<(), String> {
        let Some(layer) = self.last().filter(|_| !self.activated) else {
            return Err(format!("expected {} first", self.place()));
        };
        if layer.activation != activation {
            return Err(match layer.activation {
                Activation::Identity => format!("{} of this network has no activation", layer.name),
                wanted => format!(
                    "expected {}, the activation of {}",
                    wanted.name(),
                    layer.name
                ),
            });
        }
        if self.pooled && matches!(layer.pool, Pool::Average(_)) {
            return Err(format!(
                "it follows the average pooling of {}, expected before it",
                layer.name
            ));
        }
        if self.affine.is_some() {
            return Err(format!(
                "the values are changed before it in a way that {} has no parameters for",
                layer.name
            ));
        }
        self.activated = true;
        Ok(())
    }

    fn pool(&mut self, node: &Node) -> Result<(), String> {
        let Some(window) = attribute(node, "kernel_shape") else {
            return Err("it lacks its kernel_shape".to_owned());
        };
        let &[rows, columns] = &window.ints[..] else {
            return Err(format!(
                "its window is {:?}, expected two sides",
                window.ints
            ));
        };
        let Some(side) = usize::try_from(rows)
            .ok()
            .filter(|&side| side > 0 && rows == columns)
        else {
            return Err(format!(
                "its window is {:?}, expected a square",
                window.ints
            ));
        };
        let strides = attribute(node, "strides").map_or(vec![1; 2], |strides| strides.ints.clone());
        if strides != window.ints && side > 1 {
            return Err(format!(
                "its strides are {strides:?}, expected {:?} as its window",
                window.ints
            ));
        }
        let dilated = attribute(node, "dilations")
            .is_some_and(|dilations| dilations.ints.iter().any(|&d| d != 1));
        if dilated {
            return Err("its window has gaps (dilations)".to_owned());
        }
        let [_, h, w] = self.dims();
        if pads(node, [h, w], [side; 2], [side; 2])? != [0; 4] {
            return Err("it pads its input".to_owned());
        }
        self.pool_by(&node.op_type, side)
    }

    fn pool_by(&mut self, kind: &str, side: usize) -> Result<(), String> {
        if side == 1
            && self
                .last()
                .is_some_and(|layer| self.pooled || layer.pool.window() != 1)
        {
            return Ok(()); // A window of 1 x 1 changes nothing.
        }
        let Some(layer) = self.last().filter(|_| !self.pooled) else {
            return Err(format!("expected {}", self.place()));
        };
        self.in_order()?;
        let found = match kind {
            "MaxPool" => Pool::Max(side),
            _ => Pool::Average(side),
        };
        if layer.pool != found {
            return Err(format!(
                "its window is {side} x {side}, expected {} ({layer})",
                layer.name
            ));
        }
        if matches!(found, Pool::Average(_))
            && !self.activated
            && layer.activation != Activation::Identity
        {
            return Err(format!(
                "it comes before the {} of {}, expected after it",
                layer.activation.name(),
                layer.name
            ));
        }
        let channels = layer.output[0];
        if let Some(affine) = self.affine.take() {
            let [scale, shift] =
                [&affine.scale, &affine.shift].map(|values| of_channels(values, channels));
            let (Some(scale), Some(shift)) = (scale, shift) else {
                return Err(
                    "its input is changed by constants that differ between pixels".to_owned(),
                );
            };
            if matches!(found, Pool::Max(_)) && scale.iter().any(|&scale| scale <= 0.0) {
                return Err("its input is multiplied by a number below 0".to_owned());
            }
            let size = layer.output_len() / channels;
            let spread = |values: Vec<f64>| {
                values
                    .into_iter()
                    .flat_map(|v| std::iter::repeat_n(v, size))
                    .collect()
            };
            self.affine = Some(Affine {
                scale: spread(scale),
                shift: spread(shift),
            });
        }
        self.pooled = true;
        self.set_dims();
        Ok(())
    }

    fn pad(&mut self, node: &Node, inputs: &[Option<&Constant>]) -> Result<(), String> {
        let input = |at: usize| inputs.get(at).copied().flatten();
        self.completed()?;
        self.in_order()?;
        let mode = attribute(node, "mode")
            .map_or("constant".into(), |mode| String::from_utf8_lossy(&mode.s));
        let value = match (input(2), attribute(node, "value")) {
            (Some(value), _) => value.scalar()?,
            (None, value) => value.map_or(0.0, |value| value.f.into()),
        };
        let pads = match (input(1), attribute(node, "pads")) {
            (Some(pads), _) => pads.known()?,
            (None, pads) => pads.map_or(vec![], |pads| pads.ints.clone()),
        };
        let (&[0, 0, top, left, 0, 0, bottom, right], "constant", true, None) =
            (&pads[..], &*mode, value == 0.0, input(3))
        else {
            return Err(format!(
                "it pads by {pads:?} with {value} ({mode}), expected zeros around each map"
            ));
        };
        if self
            .affine
            .as_ref()
            .is_some_and(|affine| affine.shift.iter().any(|&shift| shift != 0.0))
        {
            let layer = self
                .layers
                .get(self.found.len())
                .map_or("it", |layer| layer.name);
            return Err(normalize::padded(layer));
        }
        self.pads = [top, left, bottom, right];
        Ok(())
    }

    fn normalize_batch(&mut self, node: &Node, inputs: &[Option<&Constant>]) -> Result<(), String> {
        if attribute(node, "training_mode").is_some_and(|training| training.i != 0) {
            return Err("it is in training mode, and depends on the other images".to_owned());
        }
        let [_, scale, bias, mean, variance, ..] = inputs else {
            return Err("it lacks inputs".to_owned());
        };
        let given = [scale, bias, mean, variance].map(|constant| constant.map(Constant::floats));
        let [Some(scale), Some(bias), Some(mean), Some(variance)] = given else {
            return Err("it lacks inputs".to_owned());
        };
        let (scale, bias, mean, variance) = (scale?, bias?, mean?, variance?);
        let Some(&Int::Known(channels)) = self.shape.get(1) else {
            return Err(format!("it takes the shape {}", text(&self.shape)));
        };
        let lengths = [&scale, &bias, &mean, &variance].map(Vec::len);
        if lengths != [channels as usize; 4] {
            return Err(format!(
                "its constants have {lengths:?} values, expected {channels}"
            ));
        }
        let epsilon = attribute(node, "epsilon").map_or(1e-5_f32, |epsilon| epsilon.f);
        let scale: Vec<f64> = scale
            .iter()
            .zip(&variance)
            .map(|(s, v)| s / (v + f64::from(epsilon)).sqrt())
            .collect();
        let shift = bias
            .iter()
            .zip(&mean)
            .zip(&scale)
            .map(|((b, m), s)| b - m * s)
            .collect();
        let mut dims = vec![1; self.shape.len() - 1];
        dims[0] = channels as usize;
        let constant = |values| Constant {
            dims: dims.clone(),
            data: super::constant::Data::Floats(values),
            stored: "f32",
        };
        let (scale, shift) = (constant(scale), constant(shift));
        let (scale, shift) = (self.spread(&scale)?, self.spread(&shift)?);
        self.notes
            .push("batch normalization is folded into the layer beside it".to_owned());
        self.scale_and_shift(scale, shift)
    }
}

/// Returns one value per channel, or `None` if the elements of a channel differ.
fn of_channels(values: &[f64], channels: usize) -> Option<Vec<f64>> {
    let mut of_channels = Vec::with_capacity(channels);
    for channel in values.chunks(values.len() / channels) {
        if channel.iter().any(|value| *value != channel[0]) {
            return None;
        }
        of_channels.push(channel[0]);
    }
    Some(of_channels)
}

/// Returns the padding of a convolution or pooling: top, left, bottom, right. If `ceil_mode` makes the last window extend beyond
/// the input, this counts as padding too.
fn pads(
    node: &Node,
    size: [usize; 2],
    window: [usize; 2],
    stride: [usize; 2],
) -> Result<[i64; 4], String> {
    let given = attribute(node, "pads").map_or(vec![0; 4], |pads| pads.ints.clone());
    let auto = attribute(node, "auto_pad")
        .map_or("NOTSET".into(), |auto| String::from_utf8_lossy(&auto.s));
    let mut pads = [0; 4];
    match (&*auto, &given[..]) {
        ("NOTSET" | "", &[top, left, bottom, right]) => pads = [top, left, bottom, right],
        ("VALID", _) => {}
        ("SAME_UPPER" | "SAME_LOWER", _) => {
            for axis in 0..2 {
                let outputs = size[axis].div_ceil(stride[axis]);
                let all =
                    ((outputs - 1) * stride[axis] + window[axis]).saturating_sub(size[axis]) as i64;
                let (less, more) = (all / 2, all - all / 2);
                (pads[axis], pads[axis + 2]) = if auto == "SAME_UPPER" {
                    (less, more)
                } else {
                    (more, less)
                };
            }
        }
        _ => return Err(format!("its padding is {given:?} ({auto})")),
    }
    let ceil = attribute(node, "ceil_mode").is_some_and(|ceil| ceil.i != 0);
    for axis in 0..2 {
        // Without `ceil_mode`, an incomplete window at the edge is left out, which is no padding.
        if ceil && !size[axis].is_multiple_of(stride[axis]) {
            pads[axis + 2] += 1;
        }
    }
    Ok(pads)
}
