//! Matches the operators that pool the output of a layer or pad the input of the next one.

use super::super::constant::{Constant, attribute};
use super::super::proto::Node;
use super::scaling::of_channels;
use super::{Affine, Image};
use crate::normalize;
use lenet_core::layer::{Activation, Pool};

impl Image<'_> {
    pub(super) fn pool(&mut self, node: &Node) -> Result<(), String> {
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

    pub(super) fn pool_by(&mut self, kind: &str, side: usize) -> Result<(), String> {
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

    pub(super) fn pad(&mut self, node: &Node, inputs: &[Option<&Constant>]) -> Result<(), String> {
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
}

/// Returns the padding of a convolution or pooling: top, left, bottom, right. If `ceil_mode` makes the last window extend beyond
/// the input, this counts as padding too.
pub(super) fn pads(
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
            pads[axis + 2] = pads[axis + 2].saturating_add(1);
        }
    }
    Ok(pads)
}
