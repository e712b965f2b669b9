//! Matches the operators that scale and shift values, and folds their constants into the parameters of a layer.

use super::super::constant::{Constant, Data, Int, attribute, text};
use super::super::proto::Node;
use super::{Affine, Found, Image};
use crate::normalize;
use lenet_core::layer::Pool;
use lenet_core::plan::{Kind, Layer};
use std::rc::Rc;

/// If a graph scales its input by less than this, it expects bytes (0 to 255) rather than values from 0 to 1. Normalization
/// divides by the standard deviation, which is at most 1/2 for values from 0 to 1, and greater than 16 for bytes unless the
/// images hardly vary.
const SCALE_OF_BYTES: f64 = 1.0 / 16.0;

impl Image<'_> {
    /// Broadcasts a constant to the image, and returns its value for each element in the order `(C, H, W)`.
    pub(super) fn spread(&mut self, constant: &Constant) -> Result<Vec<f64>, String> {
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

    /// Applies a scale and a shift to the values, both given in the order `(C, H, W)`. If possible, they are folded into the
    /// parameters of the last layer, otherwise they are kept for the next layer.
    pub(super) fn scale_and_shift(
        &mut self,
        scale: Vec<f64>,
        shift: Vec<f64>,
    ) -> Result<(), String> {
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
    pub(super) fn fold(
        &mut self,
        layer: &Layer,
        found: &mut Found,
        pads: bool,
    ) -> Result<(), String> {
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
            self.note(format!(
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

    pub(super) fn normalize_batch(
        &mut self,
        node: &Node,
        inputs: &[Option<&Constant>],
    ) -> Result<(), String> {
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
            data: Data::Floats(values),
            stored: "f32",
        };
        let (scale, shift) = (constant(scale), constant(shift));
        let (scale, shift) = (self.spread(&scale)?, self.spread(&shift)?);
        self.note("batch normalization is folded into the layer beside it".to_owned());
        self.scale_and_shift(scale, shift)
    }
}

/// Returns one value per channel, or `None` if the elements of a channel differ.
pub(super) fn of_channels(values: &[f64], channels: usize) -> Option<Vec<f64>> {
    let mut of_channels = Vec::with_capacity(channels);
    for channel in values.chunks(values.len() / channels) {
        if channel.iter().any(|value| *value != channel[0]) {
            return None;
        }
        of_channels.push(channel[0]);
    }
    Some(of_channels)
}
