//! Parameters and logits in the safetensors format; parameters have the names of PyTorch's `state_dict`.

use crate::state_dict::{self, Named};
use bytemuck::zeroed_box;
use half::{bf16, f16};
use lenet_core::layer::{Activation, Pool};
use lenet_core::network::{CLASSES, LAYERS, Logits, Params, TENSORS};
use lenet_core::plan::{Kind, Layer, Tensor};
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};

/// Returns PyTorch's names of [`TENSORS`] in a network of two `nn.Sequential`, `conv` and `fc`, in which each convolution, pool,
/// linear layer and activation is a module with a number.
pub(crate) fn names() -> Vec<String> {
    names_of(&LAYERS)
}

pub(crate) fn names_of(layers: &[Layer]) -> Vec<String> {
    let (mut conv, mut fc) = (0, 0);
    let names = layers.iter().flat_map(|layer| {
        let (prefix, next) = match layer.kind {
            Kind::Conv2d => ("conv", &mut conv),
            Kind::Linear => ("fc", &mut fc),
        };
        let number = *next;
        *next += 1
            + usize::from(layer.pool != Pool::Whole)
            + usize::from(layer.activation != Activation::Identity);
        ["weight", "bias"].map(|part| format!("{prefix}.{number}.{part}"))
    });
    names.collect()
}

/// Returns whether bytes start like a safetensors file: with the length of a JSON header, then the header.
///
/// The format limits the length to 100 MB, and so to four bytes. A weights file has its version at the fifth, so it never looks like
/// one, whatever its fingerprint is.
pub fn looks_like(bytes: &[u8]) -> bool {
    bytes.get(4..9) == Some(b"\0\0\0\0{")
}

/// Reads the parameters in a safetensors file, and returns notes on how they were found.
///
/// # Errors
/// A sentence; if the tensors differ from those expected, it lists both.
pub fn read_params(bytes: &[u8]) -> Result<(Box<Params>, Vec<String>), String> {
    let mut params: Box<Params> = zeroed_box();
    let notes = read(bytes, &names(), &TENSORS, params.as_flat_mut())?;
    Ok((params, notes))
}

/// Copies the parameters to `flat`, and returns notes on how they were found. `names` are PyTorch's names of `expected`.
fn read(
    bytes: &[u8],
    names: &[String],
    expected: &[Tensor],
    flat: &mut [f32],
) -> Result<Vec<String>, String> {
    let file = SafeTensors::deserialize(bytes)
        .map_err(|error| format!("broken safetensors file: {error}"))?;
    let tensors = file.tensors();
    let tensors = tensors.iter().map(|(name, view)| {
        let (data, kind) = (view.data(), view.dtype());
        let values = match kind {
            Dtype::F32 => Some(floats(data, f32::from_le_bytes)),
            Dtype::F16 => Some(floats(data, |bytes| f16::from_le_bytes(bytes).to_f32())),
            Dtype::BF16 => Some(floats(data, |bytes| bf16::from_le_bytes(bytes).to_f32())),
            Dtype::F64 => Some(floats(data, |bytes| f64::from_le_bytes(bytes) as f32)),
            _ => None,
        };
        Named {
            name: name.clone(),
            kind: format!("{kind:?}"),
            dims: view.shape().to_vec(),
            values,
        }
    });
    state_dict::read(tensors.collect(), names, expected, flat)
}

/// Returns a safetensors file with the parameters.
pub fn write_params(params: &Params) -> Vec<u8> {
    serialize(named_params(params), None).expect("names and sizes are known to fit")
}

/// Returns the tensors of the parameters, with their names.
pub(crate) fn named_params(params: &Params) -> impl Iterator<Item = (String, TensorView<'_>)> {
    names().into_iter().zip(TENSORS).map(|(name, tensor)| {
        let values = &params.as_flat()[tensor.offset..][..tensor.len()];
        (name, view(tensor.dims(), values))
    })
}

/// Returns a safetensors file with one tensor, `logits` `(N, CLASSES)`.
pub fn write_logits(logits: &[Logits]) -> Vec<u8> {
    let views = [(
        "logits",
        view(&[logits.len(), CLASSES], logits.as_flattened()),
    )];
    serialize(views, None).expect("the size follows from the shape")
}

/// The outputs that another program computed for images, for all or some of [`LAYERS`].
#[derive(Clone, Debug, PartialEq)]
pub struct Outputs {
    /// The number of images.
    pub images: usize,
    /// The values of each layer, image after image. The logits, the last layer, are always there.
    pub layers: [Option<Vec<f32>>; LAYERS.len()],
}

/// Reads the outputs from a safetensors file with a tensor `logits`; `None` if it is no such file. Values in f64 are rounded.
///
/// # Errors
/// A sentence about the invalid tensor.
pub fn read_outputs(bytes: &[u8]) -> Option<Result<Outputs, String>> {
    let file = SafeTensors::deserialize(bytes).ok()?;
    let images = *file.tensor("logits").ok()?.shape().first()?;
    if images == 0 {
        return Some(Err("logits: of no image".to_owned()));
    }
    let mut outputs = Outputs {
        images,
        layers: [const { None }; LAYERS.len()],
    };
    for (index, (layer, out)) in LAYERS.iter().zip(&mut outputs.layers).enumerate() {
        let (name, len) = match index + 1 == LAYERS.len() {
            true => ("logits", CLASSES),
            false => (layer.name, layer.output_len()),
        };
        let Ok(view) = file.tensor(name) else {
            continue;
        };
        let shape = view.shape();
        if shape.first() != Some(&images) || shape.iter().skip(1).product::<usize>() != len {
            return Some(Err(format!(
                "{name}: found {shape:?}, expected [{images}, ...] with {len} values per image"
            )));
        }
        *out = Some(match view.dtype() {
            Dtype::F32 => floats(view.data(), f32::from_le_bytes),
            Dtype::F64 => floats(view.data(), |bytes| f64::from_le_bytes(bytes) as f32),
            other => return Some(Err(format!("{name}: found {other:?}, expected F32 or F64"))),
        });
    }
    Some(Ok(outputs))
}

pub(crate) fn floats<const N: usize>(bytes: &[u8], read: fn([u8; N]) -> f32) -> Vec<f32> {
    bytes
        .as_chunks()
        .0
        .iter()
        .map(|&value| read(value))
        .collect()
}

pub(crate) fn view<'a>(dims: &[usize], values: &'a [f32]) -> TensorView<'a> {
    TensorView::new(Dtype::F32, dims.to_vec(), bytemuck::cast_slice(values))
        .expect("as many values as dims say")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init::initial_params;
    use crate::networks::lenet;
    use crate::weights_file;
    use lenet_core::weights::{MAGIC, VERSION};

    #[test]
    fn what_is_written_is_read() {
        let params = initial_params(5);
        let file = write_params(&params);
        assert!(looks_like(&file));
        assert_eq!(read_params(&file).unwrap(), (params, Vec::new()));
    }

    #[test]
    fn a_weights_file_looks_like_no_other_format() {
        // The bytes of the fingerprint depend on the network. `{` and 3 are those by which other formats are recognized.
        for fingerprint in [*b"{\"a\": 1}", [0x08, 3, 0, 0, 0, 0, 0, 0], [0; 8]] {
            for numbers in [0, 1] {
                let start = [&MAGIC[..], &[VERSION, numbers, 0, 0], &fingerprint].concat();
                assert!(weights_file::import(&start).is_none());
            }
        }
    }

    #[test]
    fn differences_are_listed() {
        let values = [0.0; 256 * 120];
        let views = [
            ("fc.0.weight", view(&[256, 120], &values)),
            ("extra", view(&[1], &values[..1])),
        ];
        let bytes = serialize(views, None).unwrap();
        let mut params = [0.0; lenet::NUM_PARAMS];
        let names = names_of(&lenet::LAYERS);
        let problem = read(&bytes, &names, &lenet::TENSORS, &mut params).unwrap_err();
        let has = |line: &str| assert!(problem.contains(line), "{problem}");
        has("fc.0.weight: found F32 [256, 120], expected F32 [120, 256] (its transpose would fit)");
        has("conv.0.weight: missing, expected F32 [6, 1, 5, 5]");
        has("extra: not a tensor of this network");
        assert!(
            read_params(&write_params(&initial_params(0))[..100])
                .unwrap_err()
                .starts_with("broken safetensors")
        );
    }
}
