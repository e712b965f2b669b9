//! Converts weights trained on normalized images, `(x - mean) / std` as in PyTorch's `Normalize`, to weights that compute the
//! same function of plain images in 0..=1.

use lenet_core::network::{LAYERS, Params, TENSORS};
use lenet_core::plan::Layer;

/// The mean and the standard deviation of each channel, for values in 0..=1.
#[derive(Clone, Debug, PartialEq)]
pub struct Normalization {
    /// One value for each channel, or one for all.
    pub mean: Vec<f64>,
    /// One value for each channel, or one for all.
    pub std: Vec<f64>,
}

impl Normalization {
    /// Folds the normalization into the first layer, so that the network takes plain images. The sums are computed in f64, and
    /// each parameter is rounded once.
    ///
    /// # Errors
    /// A sentence, if the numbers do not fit this network's images, or its first layer pads them.
    pub fn fold_into(&self, params: &mut Params) -> Result<(), String> {
        let [weight, bias] = [&TENSORS[0], &TENSORS[1]];
        let flat = params.as_flat_mut();
        let (weights, rest) = flat[weight.offset..].split_at_mut(weight.len());
        self.fold_into_first(&LAYERS[0], weights, &mut rest[..bias.len()])
    }

    fn fold_into_first(
        &self,
        layer: &Layer,
        weight: &mut [f32],
        bias: &mut [f32],
    ) -> Result<(), String> {
        let channels = layer.input[0];
        let each = |name: &str, values: &[f64]| match values {
            [one] => Ok(vec![*one; channels]),
            all if all.len() == channels => Ok(all.to_vec()),
            all => Err(format!(
                "{name} has {} values, but the images have {}; give one value for each channel, or one for all",
                all.len(),
                match channels {
                    1 => "1 channel".to_owned(),
                    _ => format!("{channels} channels"),
                }
            )),
        };
        let (mean, std) = (each("--mean", &self.mean)?, each("--std", &self.std)?);
        if layer.padding > 0 && mean.iter().any(|&mean| mean != 0.0) {
            return Err(padded(layer.name));
        }
        // The weights of a channel are contiguous, in a linear layer as in a convolution.
        let scale: Vec<f64> = std.iter().map(|std| std.recip()).collect();
        let shift: Vec<f64> = mean
            .iter()
            .zip(&std)
            .map(|(mean, std)| -mean / std)
            .collect();
        let widened = |values: &[f32]| values.iter().map(|&value| value.into()).collect();
        let (mut weights, mut biases): (Vec<f64>, Vec<f64>) = (widened(weight), widened(bias));
        fold(&mut weights, &mut biases, &scale, &shift);
        for (out, value) in weight
            .iter_mut()
            .chain(bias)
            .zip(weights.into_iter().chain(biases))
        {
            *out = value as f32;
        }
        Ok(())
    }

    /// Returns the normalization as text, such as `(x - 0.286) / 0.353`.
    pub fn text(&self) -> String {
        format!("(x - {}) / {}", list(&self.mean), list(&self.std))
    }
}

/// Folds `scale * x + shift` of a layer's input into the layer. Each row of the weight consists of one equal part per scale.
pub(crate) fn fold(weight: &mut [f64], bias: &mut [f64], scale: &[f64], shift: &[f64]) {
    let row = weight.len() / bias.len();
    let part = row / scale.len();
    for (row, bias) in weight.chunks_mut(row).zip(bias) {
        for ((part, scale), shift) in row.chunks_mut(part).zip(scale).zip(shift) {
            *bias += part.iter().sum::<f64>() * shift;
            part.iter_mut().for_each(|weight| *weight *= scale);
        }
    }
}

/// Explains why a normalization cannot be folded into a layer that pads.
pub(crate) fn padded(layer: &str) -> String {
    format!(
        "{layer} puts zeros around the normalized image, where a zero stands for the mean; this network puts them around the \
         plain image, where a zero is black. The pixels near the border would get other values, so these weights cannot be \
         folded. Train without Normalize, or with mean 0: a scale alone is exact with padding too"
    )
}

/// Returns values as text; one value if all are the same.
pub(crate) fn list(values: &[f64]) -> String {
    // Enough digits for a mean, and few enough to hide rounding errors.
    let text = |value: &f64| {
        let rounded = format!("{value:.4}");
        let trimmed = rounded.trim_end_matches('0').trim_end_matches('.');
        match trimmed {
            "" | "-0" | "-" => "0".to_owned(),
            _ => trimmed.to_owned(),
        }
    };
    match values {
        [first, rest @ ..] if rest.iter().all(|value| text(value) == text(first)) => text(first),
        values if values.len() <= 4 => {
            let values: Vec<String> = values.iter().map(text).collect();
            format!("[{}]", values.join(", "))
        }
        values => format!("[{}, ...]", text(&values[0])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::networks::{assert_close, color, flat_net, lenet, logits, params, pixel, rgb};
    use lenet_core::Network;

    fn folded<N: Network>(mean: &[f64], std: &[f64]) -> Result<Box<N::Params>, String> {
        let normalization = Normalization {
            mean: mean.to_vec(),
            std: std.to_vec(),
        };
        let mut params = params::<N>();
        let values: &mut [f32] = bytemuck::cast_slice_mut(std::slice::from_mut(&mut *params));
        let (weight, rest) = values.split_at_mut(N::TENSORS[0].len());
        normalization
            .fold_into_first(&N::LAYERS[0], weight, &mut rest[..N::TENSORS[1].len()])
            .map(|()| params)
    }

    /// The folded network must give the same logits for a plain image as the original one for the normalized image.
    #[test]
    fn folding_changes_no_logit_but_by_rounding() {
        fn check<N: Network>(mean: &[f64], std: &[f64]) {
            let of = |values: &[f64], c: usize| values[c.min(values.len() - 1)] as f32;
            let found = logits::<N>(&folded::<N>(mean, std).unwrap(), |_, i| pixel(i));
            let expected =
                logits::<N>(&params::<N>(), |c, i| (pixel(i) - of(mean, c)) / of(std, c));
            assert_close(&found, &expected, N::NAME);
        }
        check::<lenet::Net>(&[0.286], &[0.353]);
        check::<rgb::Net>(&[0.485, 0.456, 0.406], &[0.229, 0.224, 0.225]);
        check::<rgb::Net>(&[0.5], &[0.5]);
        check::<flat_net::Net>(&[0.2, 0.4, 0.6], &[0.5]);
        check::<color::Net>(&[0.0], &[0.25, 0.5, 0.125]);
    }

    #[test]
    fn what_cannot_be_folded_is_refused() {
        let refused = folded::<color::Net>(&[0.5], &[0.5]).unwrap_err();
        assert!(
            refused.starts_with("conv1 puts zeros around the normalized image"),
            "{refused}"
        );
        assert_eq!(
            folded::<rgb::Net>(&[0.5, 0.5], &[0.5]).unwrap_err(),
            "--mean has 2 values, but the images have 3 channels; give one value for each channel, or one for all"
        );
        assert_eq!(
            folded::<lenet::Net>(&[0.5], &[0.5; 3]).unwrap_err(),
            "--std has 3 values, but the images have 1 channel; give one value for each channel, or one for all"
        );
    }
}
