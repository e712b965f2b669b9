//! Finds the network's parameters among the named tensors of another program, such as PyTorch's `state_dict`: by name, or by
//! shape if the shapes are unambiguous.

use lenet_core::plan::Tensor;

/// A tensor of another program.
pub(crate) struct Named {
    pub name: String,
    /// The type of its elements, such as `F16`.
    pub kind: String,
    pub dims: Vec<usize>,
    /// Its elements, rounded to f32; `None` if they are not floats.
    pub values: Option<Vec<f32>>,
}

/// Copies the parameters to `flat`, and returns notes on how they were found. `names` are PyTorch's names of `tensors`.
pub(crate) fn read(
    found: Vec<Named>,
    names: &[String],
    tensors: &[Tensor],
    flat: &mut [f32],
) -> Result<Vec<String>, String> {
    let mut notes = Vec::new();
    let (matched, by_shape) = if let Some(exact) = by_name(&found, names, "") {
        (exact, false)
    } else if let Some(stripped) = behind_a_prefix(&found, names) {
        notes.push(mapping(
            "matched by name behind a prefix",
            &stripped,
            &found,
            tensors,
        ));
        (stripped, false)
    } else if let Some(shaped) = by_shape(&found, tensors)? {
        notes.push(mapping(
            "matched by shape and order",
            &shaped,
            &found,
            tensors,
        ));
        (shaped, true)
    } else {
        return Err(differences(&found, names, tensors));
    };

    let fits = |(&index, tensor): (&usize, &Tensor)| {
        found[index].values.is_some() && found[index].dims == tensor.dims()
    };
    if !matched.iter().zip(tensors).all(fits) {
        return Err(differences(&found, names, tensors));
    }
    let extra = (0..found.len()).filter(|index| !matched.contains(index));
    let extra: Vec<&Named> = extra.map(|index| &found[index]).collect();
    if let Some(norm) = extra.iter().find(|tensor| {
        ["running_mean", "running_var"]
            .iter()
            .any(|end| tensor.name.ends_with(end))
    }) {
        return Err(format!(
            "{} belongs to a batch normalization, which this network does not have. Fold it into the convolution before it \
             (torch.nn.utils.fusion.fuse_conv_bn_eval), or export the model as ONNX, in which this program folds it",
            norm.name
        ));
    }
    let is_weight = |tensor: &&&Named| tensor.dims.len() > 1 && parts(&tensor.name).1 == "weight";
    if let Some(layer) = extra.iter().find(is_weight).filter(|_| by_shape) {
        return Err(format!(
            "{} {:?} is a layer that this network does not have; to ignore it, give the tensors these names: {}",
            layer.name,
            layer.dims,
            names.join(", ")
        ));
    }
    if !extra.is_empty() {
        let extra: Vec<&str> = extra.iter().map(|tensor| tensor.name.as_str()).collect();
        notes.push(format!(
            "ignored, because this network does not have them: {}",
            extra.join(", ")
        ));
    }

    let mut rounded = false;
    let mut widened: Vec<&str> = Vec::new();
    for (&index, tensor) in matched.iter().zip(tensors) {
        let Named { kind, values, .. } = &found[index];
        let values = values.as_ref().expect("was looked at above");
        flat[tensor.offset..][..tensor.len()].copy_from_slice(values);
        match kind.as_str() {
            "F32" => {}
            "F64" => rounded = true,
            kind if widened.contains(&kind) => {}
            kind => widened.push(kind),
        }
    }
    for kind in widened {
        notes.push(format!("{kind} is widened to F32, which changes no value"));
    }
    if rounded {
        notes.push("F64 is rounded to F32, which the network computes in".to_owned());
    }
    Ok(notes)
}

/// Returns the index in `found` of each name with the prefix, if all are there.
fn by_name(found: &[Named], names: &[String], prefix: &str) -> Option<Vec<usize>> {
    let index = |name: &String| {
        let is_it = |tensor: &Named| tensor.name.strip_prefix(prefix) == Some(name);
        found.iter().position(is_it)
    };
    names.iter().map(index).collect()
}

/// Does the same as [`by_name`], with the prefix that wrappers such as `DataParallel`, `torch.compile` and Lightning add to the
/// names. Returns `None` if there are several such prefixes.
fn behind_a_prefix(found: &[Named], names: &[String]) -> Option<Vec<usize>> {
    let prefixes = found
        .iter()
        .filter_map(|tensor| tensor.name.strip_suffix(&*names[0]));
    let mut matched = prefixes.filter_map(|prefix| by_name(found, names, prefix));
    matched.next().filter(|_| matched.next().is_none())
}

/// Splits the name of a tensor into its module and its part, such as `fc1` and `weight`.
fn parts(name: &str) -> (&str, &str) {
    name.rfind(['.', '/', '_'])
        .map_or(("", name), |at| (&name[..at], &name[at + 1..]))
}

/// Returns the index in `found` of each tensor, if the shapes of the weights and biases, and the order of layers with the same
/// shapes, allow only one assignment; `None` if they allow none.
///
/// # Errors
/// A description, if there are several assignments.
fn by_shape(found: &[Named], tensors: &[Tensor]) -> Result<Option<Vec<usize>>, String> {
    // The modules that have a weight and a bias.
    let modules: Vec<(&str, [usize; 2])> = found
        .iter()
        .enumerate()
        .filter_map(|(weight, tensor)| {
            let (module, "weight") = parts(&tensor.name) else {
                return None;
            };
            let bias = found
                .iter()
                .position(|tensor| parts(&tensor.name) == (module, "bias"))?;
            Some((module, [weight, bias]))
        })
        .collect();
    let (layers, _) = tensors.as_chunks::<2>();
    let mut matched = vec![0; tensors.len()];
    for (at, layer) in layers.iter().enumerate() {
        let shapes = [layer[0].dims(), layer[1].dims()];
        let same = |other: &&[Tensor; 2]| [other[0].dims(), other[1].dims()] == shapes;
        let alike = layers.iter().filter(same).count();
        let before = layers[..at].iter().filter(same).count();
        let mut fitting: Vec<&(&str, [usize; 2])> = modules
            .iter()
            .filter(|(_, pair)| pair.map(|index| &found[index].dims[..]) == shapes)
            .collect();
        if fitting.len() < alike {
            return Ok(None);
        }
        let numbered: Option<Vec<_>> = fitting.iter().map(|(module, _)| number(module)).collect();
        let in_series = numbered
            .is_some_and(|numbered| numbered.iter().all(|(around, _)| *around == numbered[0].0));
        if fitting.len() > alike || (alike > 1 && !in_series) {
            let fitting: Vec<&str> = fitting.iter().map(|(module, _)| *module).collect();
            return Err(format!(
                "the tensors can be matched in more than one way: {} each have a weight {:?} as {} has, and their names do \
                 not give an order. Give the tensors the names of PyTorch's state_dict that `trainer export` writes",
                fitting.join(", "),
                shapes[0],
                layer[0].layer
            ));
        }
        fitting.sort_by_key(|(module, _)| number(module).map(|(_, number)| number));
        matched[2 * at..][..2].copy_from_slice(&fitting[before].1);
    }
    Ok(Some(matched))
}

/// Splits a name at its last number.
fn number(module: &str) -> Option<((&str, &str), u64)> {
    let end = module.rfind(|c: char| c.is_ascii_digit())? + 1;
    let digits = module[..end]
        .bytes()
        .rev()
        .take_while(u8::is_ascii_digit)
        .count();
    let number = module[end - digits..end].parse().ok()?;
    Some(((&module[..end - digits], &module[end..]), number))
}

fn mapping(how: &str, matched: &[usize], found: &[Named], tensors: &[Tensor]) -> String {
    let mut text = format!("the tensors have other names, and are {how}:");
    for (&index, tensor) in matched.iter().zip(tensors) {
        text += &format!("\n  {} is {}", found[index].name, tensor.name);
    }
    text
}

/// Lists the expected and the found tensors, by PyTorch's names.
fn differences(found: &[Named], names: &[String], tensors: &[Tensor]) -> String {
    let mut text = "the tensors do not fit this network:".to_owned();
    for (name, tensor) in names.iter().zip(tensors) {
        let wanted = tensor.dims();
        match found.iter().find(|found| found.name == *name) {
            Some(found) if found.values.is_some() && found.dims == wanted => {}
            Some(Named { kind, dims, .. }) => {
                let hint = transpose_hint(dims, wanted);
                text +=
                    &format!("\n  {name}: found {kind} {dims:?}, expected F32 {wanted:?}{hint}");
            }
            None => text += &format!("\n  {name}: missing, expected F32 {wanted:?}"),
        }
    }
    for tensor in found.iter().filter(|tensor| !names.contains(&tensor.name)) {
        text += &format!("\n  {}: not a tensor of this network", tensor.name);
    }
    text
}

fn transpose_hint(found: &[usize], wanted: &[usize]) -> &'static str {
    match (found, wanted) {
        (&[rows, columns], &[out, inputs]) if rows == inputs && columns == out => {
            " (its transpose would fit)"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::networks::{flat, flat_net as net, params};

    fn names() -> Vec<String> {
        crate::safetensors::names_of(&net::LAYERS)
    }

    /// Returns the parameters under other names, which `rename` makes from the index of each layer.
    fn tensors(rename: impl Fn(usize, &str) -> String) -> Vec<Named> {
        let params = params::<net::Net>();
        let named = net::TENSORS
            .iter()
            .enumerate()
            .map(|(index, tensor)| Named {
                name: rename(index / 2, tensor.part),
                kind: "F32".to_owned(),
                dims: tensor.dims().to_vec(),
                values: Some(flat(&*params)[tensor.offset..][..tensor.len()].to_vec()),
            });
        let mut named: Vec<Named> = named.collect();
        // In the order of safetensors.
        named.sort_by(|a, b| a.name.cmp(&b.name));
        named
    }

    fn found(tensors: Vec<Named>) -> Result<Vec<String>, String> {
        let mut out = vec![0.0; net::NUM_PARAMS];
        let notes = read(tensors, &names(), &net::TENSORS, &mut out)?;
        assert!(out == flat(&*params::<net::Net>()), "{notes:?}");
        Ok(notes)
    }

    #[test]
    fn prefixes_numbers_and_other_names_are_understood() {
        let state_dict = |layer: usize, part: &str| format!("fc.{}.{part}", 2 * layer);
        assert_eq!(found(tensors(state_dict)).unwrap(), [""; 0]);
        for prefix in [
            "module.",
            "_orig_mod.",
            "model.",
            "_orig_mod.module.",
            "my.own.",
        ] {
            let notes = found(tensors(|layer, part| {
                prefix.to_owned() + &state_dict(layer, part)
            }));
            let notes = notes.unwrap();
            let start =
                "the tensors have other names, and are matched by name behind a prefix:\n  ";
            assert!(notes[0].starts_with(start), "{notes:?}");
            assert!(
                notes[0].contains(&format!("\n  {prefix}fc.6.bias is fc4_bias")),
                "{notes:?}"
            );
        }
        // A single nn.Sequential, in which layer 10 comes after 8 although its name sorts before it.
        let sequential = |layer: usize, part: &str| format!("{}.{part}", 6 + 2 * layer);
        let numbered = |layer: usize, part: &str| format!("dense{layer}.{part}");
        let layers = |layer: usize, part: &str| format!("net.layers.{}.linear.{part}", 9 + layer);
        let flat = |layer: usize, part: &str| format!("fc{layer}_{part}");
        for rename in [
            &sequential as &dyn Fn(usize, &str) -> String,
            &numbered,
            &layers,
            &flat,
        ] {
            let notes = found(tensors(rename)).unwrap();
            assert_eq!(notes.len(), 1, "{notes:?}");
            assert!(
                notes[0].starts_with(
                    "the tensors have other names, and are matched by shape and order:"
                )
            );
            assert!(
                notes[0].contains(&format!("\n  {} is fc2_weight", rename(1, "weight"))),
                "{notes:?}"
            );
        }
    }

    #[test]
    fn ambiguous_tensors_are_rejected() {
        // The layers in the middle have the same shape, and their names have no order.
        let named =
            |layer: usize, part: &str| format!("{}.{part}", ["top", "one", "two", "out"][layer]);
        assert_eq!(
            found(tensors(named)).unwrap_err(),
            "the tensors can be matched in more than one way: one, two each have a weight [6, 6] as fc2 has, and their names do \
             not give an order. Give the tensors the names of PyTorch's state_dict that `trainer export` writes"
        );
        let copy = |name: &str| {
            let mut all = tensors(|layer, part| format!("fc{layer}.{part}"));
            let twins = all
                .iter()
                .filter(|tensor| tensor.name.starts_with("fc1."))
                .map(|tensor| Named {
                    name: tensor.name.replace("fc1", name),
                    kind: "F32".to_owned(),
                    dims: tensor.dims.clone(),
                    values: tensor.values.clone(),
                });
            let twins: Vec<Named> = twins.collect();
            all.extend(twins);
            found(all).unwrap_err()
        };
        assert_eq!(
            copy("ema"),
            "the tensors can be matched in more than one way: fc1, fc2, ema each have a weight [6, 6] as fc2 has, and their names do \
             not give an order. Give the tensors the names of PyTorch's state_dict that `trainer export` writes"
        );
    }

    #[test]
    fn extra_tensors_are_named_and_layers_that_are_missing_here_are_refused() {
        let extra = |name: &str, dims: &[usize], rename: &dyn Fn(usize, &str) -> String| {
            let mut all = tensors(rename);
            all.push(Named {
                name: name.to_owned(),
                kind: "I64".to_owned(),
                dims: dims.to_vec(),
                values: None,
            });
            found(all)
        };
        let state_dict = |layer: usize, part: &str| format!("fc.{}.{part}", 2 * layer);
        let other = |layer: usize, part: &str| format!("fc{layer}.{part}");
        let note = "ignored, because this network does not have them: epoch";
        assert_eq!(extra("epoch", &[], &state_dict).unwrap(), [note]);
        assert_eq!(extra("epoch", &[], &other).unwrap()[1..], [note]);
        assert_eq!(
            extra("aux.weight", &[3, 6], &state_dict).unwrap(),
            ["ignored, because this network does not have them: aux.weight"]
        );
        let refused = extra("aux.weight", &[3, 6], &other).unwrap_err();
        assert!(
            refused.starts_with("aux.weight [3, 6] is a layer that this network does not have"),
            "{refused}"
        );
        let refused = extra("bn.running_mean", &[6], &state_dict).unwrap_err();
        assert!(
            refused.starts_with("bn.running_mean belongs to a batch normalization"),
            "{refused}"
        );
    }
}
