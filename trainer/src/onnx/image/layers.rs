//! Matches the operators of a layer itself: its convolution or matrix product, and its activation.

use super::super::constant::{Constant, Int, attribute, text};
use super::super::proto::Node;
use super::pooling::pads;
use super::{Found, Image};
use lenet_core::layer::{Activation, Pool};
use lenet_core::plan::Kind;

impl Image<'_> {
    pub(super) fn convolve(
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

    pub(super) fn gemm(
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
    pub(super) fn linear(
        &mut self,
        weight: &Constant,
        transposed: bool,
        factor: f64,
    ) -> Result<(), String> {
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
            self.note(format!(
                "the graph flattens its maps in another order than (C, H, W): the weights of {} are put in that order",
                layer.name
            ));
        }
        let mut found = Found { weight, bias: None };
        self.fold(layer, &mut found, false)?;
        self.begin(found);
        Ok(())
    }

    pub(super) fn activate(&mut self, activation: Activation) -> Result<(), String> {
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
}
