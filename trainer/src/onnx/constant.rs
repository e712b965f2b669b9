//! Evaluates the parts of a graph that depend only on constants and shapes, not on the image.

use super::proto::{Attribute, Node, Tensor};
use half::{bf16, f16};
use std::collections::HashSet;

/// The maximum number of elements in a constant, more than a network for a microcontroller needs.
const MAX_ELEMENTS: usize = 1 << 22;

/// The maximum number of dimensions, which is also PyTorch's. Without a limit, a small file with many dimensions of 1 would take
/// hours to evaluate.
const MAX_DIMENSIONS: usize = 64;

/// An integer in a graph. The batch size is represented symbolically, so that values computed from it hold for any batch size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Int {
    Known(i64),
    /// The number of images in the batch.
    Batch,
}

/// The elements of a constant.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Data {
    /// Floats of any precision. An f64 represents all of them exactly.
    Floats(Vec<f64>),
    Ints(Vec<Int>),
}

/// A constant tensor.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Constant {
    pub dims: Vec<usize>,
    pub data: Data,
    /// The type in which the file stores it, such as `f16`.
    pub stored: &'static str,
}

impl Data {
    pub fn len(&self) -> usize {
        match self {
            Self::Floats(values) => values.len(),
            Self::Ints(values) => values.len(),
        }
    }

    /// Returns the elements at the given indices.
    fn pick(&self, indices: &[usize]) -> Self {
        match self {
            Self::Floats(values) => Self::Floats(indices.iter().map(|&i| values[i]).collect()),
            Self::Ints(values) => Self::Ints(indices.iter().map(|&i| values[i]).collect()),
        }
    }
}

impl Constant {
    pub fn ints(dims: Vec<usize>, values: Vec<Int>) -> Self {
        let data = Data::Ints(values);
        let stored = "i64";
        Self { dims, data, stored }
    }

    /// Returns the elements of a stored tensor.
    pub fn read(tensor: &Tensor) -> Result<Self, String> {
        if tensor.data_location == Tensor::EXTERNAL {
            return Err(
                "its values are in another file; export with them inside (PyTorch: external_data=False)"
                    .to_owned(),
            );
        }
        let dims: Option<Vec<usize>> = tensor.dims.iter().map(|&dim| dim.try_into().ok()).collect();
        let dims = dims.ok_or("it has a negative dimension")?;
        let len = elements(&dims)?;
        let (raw, small) = (&tensor.raw_data, &tensor.int32_data);
        let bits = |value: &i32| *value as u16;

        let (stored, data) = match tensor.data_type {
            Tensor::FLOAT => {
                let listed = tensor.float_data.iter().map(|&value| value.into());
                ("f32", floats(raw, |b| f32::from_le_bytes(b).into(), listed))
            }
            Tensor::DOUBLE => {
                let listed = tensor.double_data.iter().copied();
                ("f64", floats(raw, f64::from_le_bytes, listed))
            }
            Tensor::FLOAT16 => {
                let listed = small.iter().map(|v| f16::from_bits(bits(v)).to_f64());
                (
                    "f16",
                    floats(raw, |b| f16::from_le_bytes(b).to_f64(), listed),
                )
            }
            Tensor::BFLOAT16 => {
                let listed = small.iter().map(|v| bf16::from_bits(bits(v)).to_f64());
                (
                    "bf16",
                    floats(raw, |b| bf16::from_le_bytes(b).to_f64(), listed),
                )
            }
            Tensor::INT64 => {
                let listed = tensor.int64_data.iter().map(|&value| Int::Known(value));
                (
                    "i64",
                    ints(raw, |b| Int::Known(i64::from_le_bytes(b)), listed),
                )
            }
            Tensor::INT32 => {
                let listed = small.iter().map(|&value| Int::Known(value.into()));
                (
                    "i32",
                    ints(raw, |b| Int::Known(i32::from_le_bytes(b).into()), listed),
                )
            }
            Tensor::INT8 => {
                let listed = small.iter().map(|&value| Int::Known(value.into()));
                ("i8", ints(raw, |[b]| Int::Known((b as i8).into()), listed))
            }
            Tensor::UINT8 | Tensor::BOOL => {
                let listed = small.iter().map(|&value| Int::Known(value.into()));
                ("u8", ints(raw, |[b]| Int::Known(b.into()), listed))
            }
            other => return Err(format!("its elements have the unknown data type {other}")),
        };
        match data.len() == len {
            true => Ok(Self { dims, data, stored }),
            false => Err(format!("it has {} values, expected {len}", data.len())),
        }
    }

    /// Returns the value of a node `Constant`, which may be given by any of its attributes (`value`, `value_float`, ...).
    pub fn of_node(node: &Node) -> Result<Self, String> {
        let [attribute] = &node.attribute[..] else {
            return Err("it has other attributes than one value".to_owned());
        };
        let floats = |dims, values: &[f32]| Self {
            dims,
            data: Data::Floats(values.iter().map(|&value| value.into()).collect()),
            stored: "f32",
        };
        let ints = |dims, values: &[i64]| {
            Self::ints(dims, values.iter().copied().map(Int::Known).collect())
        };
        Ok(match (attribute.name.as_str(), &attribute.t) {
            ("value", Some(tensor)) => Self::read(tensor)?,
            ("value_float", _) => floats(vec![], &[attribute.f]),
            ("value_floats", _) => floats(vec![attribute.floats.len()], &attribute.floats),
            ("value_int", _) => ints(vec![], &[attribute.i]),
            ("value_ints", _) => ints(vec![attribute.ints.len()], &attribute.ints),
            (other, _) => return Err(format!("its value is in the form {other}")),
        })
    }

    /// Returns the elements as floats.
    pub fn floats(&self) -> Result<Vec<f64>, String> {
        match &self.data {
            Data::Floats(values) => Ok(values.clone()),
            Data::Ints(_) => self
                .known()
                .map(|ints| ints.into_iter().map(|i| i as f64).collect()),
        }
    }

    /// Returns the elements as integers, or an error if one of them is the batch size.
    pub fn known(&self) -> Result<Vec<i64>, String> {
        let known = |int: &Int| match int {
            Int::Known(value) => Ok(*value),
            Int::Batch => Err("it computes with the number of images".to_owned()),
        };
        self.as_ints()?.iter().map(known).collect()
    }

    /// Returns the elements, or an error if they are not integers.
    pub fn as_ints(&self) -> Result<&[Int], String> {
        match &self.data {
            Data::Ints(values) => Ok(values),
            Data::Floats(_) => Err("it takes floats where integers are expected".to_owned()),
        }
    }

    /// Returns the only element as a float, or an error if there is not exactly one.
    pub fn scalar(&self) -> Result<f64, String> {
        match self.floats()?[..] {
            [value] => Ok(value),
            _ => Err(format!(
                "it takes a tensor {:?} where one number is expected",
                self.dims
            )),
        }
    }

    fn rearranged(&self, (dims, indices): (Vec<usize>, Vec<usize>)) -> Self {
        Self {
            dims,
            data: self.data.pick(&indices),
            stored: self.stored,
        }
    }

    /// Returns the constant broadcast to these dimensions by ONNX's rules.
    pub fn broadcast(&self, dims: &[usize]) -> Result<Self, String> {
        let missing = dims.len().checked_sub(self.dims.len());
        let missing =
            missing.ok_or_else(|| format!("a constant {:?} does not fit {dims:?}", self.dims))?;
        let padded: Vec<usize> = std::iter::repeat_n(1, missing)
            .chain(self.dims.iter().copied())
            .collect();
        if padded
            .iter()
            .zip(dims)
            .any(|(&own, &dim)| own != 1 && own != dim)
        {
            return Err(format!("a constant {:?} does not fit {dims:?}", self.dims));
        }
        let own = strides(&padded);
        let own: Vec<usize> = own
            .iter()
            .zip(&padded)
            .map(|(&stride, &dim)| if dim == 1 { 0 } else { stride })
            .collect();
        elements(dims)?;
        Ok(self.rearranged((dims.to_vec(), indices(dims, &own, 0))))
    }

    /// Computes an operator whose inputs are all constants. Returns `None` if this operator is not supported.
    pub fn compute(node: &Node, inputs: &[Option<&Self>]) -> Option<Result<Self, String>> {
        let first = inputs.first().copied().flatten();
        let by = |compute: &dyn Fn(&Self) -> Result<Self, String>| {
            Some(
                first
                    .ok_or_else(|| "it lacks an input".to_owned())
                    .and_then(compute),
            )
        };
        let of_floats = |function: fn(f64) -> f64| {
            by(&|x| {
                let values = x.floats()?.into_iter().map(function).collect();
                Ok(Self {
                    data: Data::Floats(values),
                    ..x.clone()
                })
            })
        };
        match node.op_type.as_str() {
            "Identity" => by(&|x| Ok(x.clone())),
            "Cast" | "CastLike" => by(&|x| x.cast(attribute(node, "to").map(|to| to.i), inputs)),
            "Shape" => by(&|x| {
                shape(
                    node,
                    x.dims.iter().map(|&dim| Int::Known(dim as i64)).collect(),
                )
            }),
            "Neg" => of_floats(|x| -x),
            "Sqrt" => of_floats(f64::sqrt),
            "Reciprocal" => of_floats(f64::recip),
            "Add" | "Sub" | "Mul" | "Div" | "Pow" => {
                let [Some(a), Some(b)] = inputs else {
                    return Some(Err("it lacks an input".to_owned()));
                };
                Some(arithmetic(&node.op_type, a, b))
            }
            "Reshape" | "Flatten" | "Unsqueeze" | "Squeeze" => by(&|x| {
                let dims: Vec<Int> = x.dims.iter().map(|&dim| Int::Known(dim as i64)).collect();
                let dims = reshaped(node, &dims, inputs.get(1).copied().flatten(), None)?;
                let dims = dims.into_iter().map(|dim| match dim {
                    Int::Known(dim) => Ok(dim as usize),
                    Int::Batch => Err("it gives a constant the shape of the images".to_owned()),
                });
                let dims: Vec<usize> = dims.collect::<Result<_, _>>()?;
                elements(&dims)?;
                Ok(Self { dims, ..x.clone() })
            }),
            "Transpose" => {
                by(&|x| Ok(x.rearranged(transposed(&x.dims, &permutation(node, x.dims.len())?))))
            }
            "Gather" => by(&|x| gathered(node, x, inputs.get(1).copied().flatten())),
            "Slice" => by(&|x| sliced(node, x, inputs)),
            "Concat" => Some(concatenated(node, inputs)),
            "Expand" => by(&|x| {
                let dims = inputs
                    .get(1)
                    .copied()
                    .flatten()
                    .ok_or("it lacks the shape")?
                    .known()?;
                let dims: Vec<usize> = dims.iter().map(|&dim| dim.max(0) as usize).collect();
                x.broadcast(&dims)
            }),
            "ConstantOfShape" => by(&|x| {
                let value = match attribute(node, "value").and_then(|value| value.t.as_ref()) {
                    Some(tensor) => Self::read(tensor)?,
                    None => Self {
                        dims: vec![1],
                        data: Data::Floats(vec![0.0]),
                        stored: "f32",
                    },
                };
                if value.data.len() != 1 {
                    return Err(format!(
                        "its value has {} elements, expected one",
                        value.data.len()
                    ));
                }
                let dims: Vec<usize> = x.known()?.iter().map(|&dim| dim.max(0) as usize).collect();
                Self {
                    dims: vec![],
                    ..value
                }
                .broadcast(&dims)
            }),
            _ => None,
        }
    }

    fn cast(&self, to: Option<i64>, inputs: &[Option<&Self>]) -> Result<Self, String> {
        let like = inputs
            .get(1)
            .copied()
            .flatten()
            .map(|like| matches!(like.data, Data::Floats(_)));
        let floats = match to {
            Some(to) => is_float(to),
            None => like.unwrap_or(false),
        };
        let data = match (floats, &self.data) {
            (true, Data::Ints(_)) => Data::Floats(self.floats()?),
            (false, Data::Floats(values)) => Data::Ints(
                values
                    .iter()
                    .map(|&value| Int::Known(value as i64))
                    .collect(),
            ),
            (_, data) => data.clone(),
        };
        // A cast to f32, f16 or bf16 rounds the values. Other casts need no further rounding.
        let rounded = |to: fn(f64) -> f64, stored| match &data {
            Data::Floats(values) => Some((
                Data::Floats(values.iter().map(|&v| to(v)).collect()),
                stored,
            )),
            Data::Ints(_) => None,
        };
        let narrow = match to.map(|to| to as i32) {
            Some(Tensor::FLOAT) => rounded(|value| (value as f32).into(), self.stored),
            Some(Tensor::FLOAT16) => rounded(|value| f16::from_f64(value).to_f64(), "f16"),
            Some(Tensor::BFLOAT16) => rounded(|value| bf16::from_f64(value).to_f64(), "bf16"),
            _ => None,
        };
        let (data, stored) = narrow.unwrap_or((data, self.stored));
        Ok(Self {
            dims: self.dims.clone(),
            data,
            stored,
        })
    }
}

/// Returns whether this number, from ONNX's `TensorProto.DataType`, is that of a floating-point type.
pub(super) fn is_float(data_type: i64) -> bool {
    [
        Tensor::FLOAT,
        Tensor::FLOAT16,
        Tensor::BFLOAT16,
        Tensor::DOUBLE,
    ]
    .contains(&(data_type as i32))
}

/// Returns an attribute of a node.
pub(super) fn attribute<'a>(node: &'a Node, name: &str) -> Option<&'a Attribute> {
    node.attribute
        .iter()
        .find(|attribute| attribute.name == name)
}

/// Returns what `Shape` gives for a value of these dimensions.
pub(super) fn shape(node: &Node, dims: Vec<Int>) -> Result<Constant, String> {
    let bound = |name, default| {
        let index = attribute(node, name).map_or(default, |attribute| attribute.i);
        let index = if index < 0 {
            index.saturating_add(dims.len() as i64)
        } else {
            index
        };
        index.clamp(0, dims.len() as i64) as usize
    };
    let (start, end) = (bound("start", 0), bound("end", dims.len() as i64));
    let dims = dims.get(start..end).unwrap_or_default().to_vec();
    Ok(Constant::ints(vec![dims.len()], dims))
}

/// Returns the dimensions after `Reshape`, `Flatten`, `Unsqueeze` or `Squeeze`. `batch` is the batch size if the graph was
/// exported for a fixed one.
pub(super) fn reshaped(
    node: &Node,
    dims: &[Int],
    argument: Option<&Constant>,
    batch: Option<i64>,
) -> Result<Vec<Int>, String> {
    let axes = |rank: usize| -> Result<Option<Vec<usize>>, String> {
        let axes = match (argument, attribute(node, "axes")) {
            (Some(axes), _) => axes.known()?,
            (None, Some(axes)) => axes.ints.clone(),
            (None, None) => return Ok(None),
        };
        axes.into_iter()
            .map(|axis| index(axis, rank))
            .collect::<Result<_, _>>()
            .map(Some)
    };
    match node.op_type.as_str() {
        "Unsqueeze" => {
            let count = match (argument, attribute(node, "axes")) {
                (Some(axes), _) => axes.data.len(),
                (None, axes) => axes.map_or(0, |axes| axes.ints.len()),
            };
            check_dimensions(dims.len() + count)?;
            let axes = axes(dims.len() + count)?.ok_or("it lacks the axes")?;
            let mut rest = dims.iter().copied();
            let shape = (0..dims.len() + count).map(|axis| {
                if axes.contains(&axis) {
                    Some(Int::Known(1))
                } else {
                    rest.next()
                }
            });
            shape
                .collect::<Option<_>>()
                .ok_or_else(|| "its axes are not distinct".to_owned())
        }
        "Squeeze" => {
            let axes = axes(dims.len())?;
            let gone = |axis: usize, dim: Int| match &axes {
                Some(axes) => axes.contains(&axis),
                None => dim == Int::Known(1),
            };
            if (0..dims.len()).any(|axis| gone(axis, dims[axis]) && dims[axis] != Int::Known(1)) {
                return Err("it removes a dimension that is not 1".to_owned());
            }
            let left = dims
                .iter()
                .copied()
                .enumerate()
                .filter(|&(axis, dim)| !gone(axis, dim));
            Ok(left.map(|(_, dim)| dim).collect())
        }
        "Flatten" => {
            let axis = attribute(node, "axis").map_or(1, |axis| axis.i);
            let axis = match axis == dims.len() as i64 {
                true => dims.len(),
                false => index(axis, dims.len())?,
            };
            let (outer, inner) = dims.split_at(axis);
            Ok(vec![product(outer)?, product(inner)?])
        }
        _ => {
            let target = match (argument, attribute(node, "shape")) {
                (Some(shape), _) => shape.as_ints()?.to_vec(),
                (None, Some(shape)) => shape.ints.iter().copied().map(Int::Known).collect(),
                (None, None) => return Err("it lacks the shape".to_owned()),
            };
            check_dimensions(target.len())?;
            let zero_is_zero = attribute(node, "allowzero").is_some_and(|allow| allow.i != 0);
            reshape(dims, target, zero_is_zero, batch)
        }
    }
}

fn reshape(
    dims: &[Int],
    mut target: Vec<Int>,
    zero_is_zero: bool,
    batch: Option<i64>,
) -> Result<Vec<Int>, String> {
    let wrong = format!("its shape {} does not fit {}", text(&target), text(dims));
    if !zero_is_zero {
        for (axis, dim) in target.iter_mut().enumerate() {
            if *dim == Int::Known(0) {
                *dim = *dims.get(axis).ok_or(&wrong)?;
            }
        }
    }
    let known = |dims: &[Int]| {
        let known = dims.iter().filter_map(|&dim| match dim {
            Int::Known(-1) | Int::Batch => None,
            Int::Known(dim) => Some(dim),
        });
        known
            .into_iter()
            .try_fold(1_i64, |product, dim| product.checked_mul(dim))
            .ok_or(&wrong)
    };
    let has_batch = |dims: &[Int]| dims.contains(&Int::Batch);
    let all = known(dims)?;
    if has_batch(dims) && !has_batch(&target) {
        let open = target.iter().position(|&dim| dim == Int::Known(-1));
        match (open, target.first()) {
            // The batch is either the dimension -1, or the first dimension if that is the batch size of the export or 1.
            (Some(open), _) if known(&target)? == all => target[open] = Int::Batch,
            (_, Some(&Int::Known(first))) if Some(first) == batch || first == 1 => {
                target[0] = Int::Batch;
            }
            _ => return Err(wrong),
        }
    }
    let rest = known(&target)?;
    if let Some(open) = target.iter().position(|&dim| dim == Int::Known(-1)) {
        if rest == 0 || all % rest != 0 {
            return Err(wrong);
        }
        target[open] = Int::Known(all / rest);
    }
    let negative = |dim: &Int| matches!(dim, Int::Known(dim) if *dim < 0);
    let batches = target.iter().filter(|&&dim| dim == Int::Batch).count();
    match known(&target)? == all
        && batches == usize::from(has_batch(dims))
        && !target.iter().any(negative)
    {
        true => Ok(target),
        false => Err(wrong),
    }
}

/// Returns dimensions as text, such as `[N, 784]`.
pub(super) fn text(dims: &[Int]) -> String {
    let dims: Vec<String> = dims
        .iter()
        .map(|dim| match dim {
            Int::Known(dim) => dim.to_string(),
            Int::Batch => "N".to_owned(),
        })
        .collect();
    format!("[{}]", dims.join(", "))
}

fn product(dims: &[Int]) -> Result<Int, String> {
    dims.iter()
        .try_fold(Int::Known(1), |product, &dim| times(product, dim))
}

fn times(a: Int, b: Int) -> Result<Int, String> {
    match (a, b) {
        (Int::Known(1), other) | (other, Int::Known(1)) => Ok(other),
        (Int::Known(a), Int::Known(b)) => a
            .checked_mul(b)
            .map(Int::Known)
            .ok_or_else(|| "it overflows".to_owned()),
        _ => Err("it computes with the number of images".to_owned()),
    }
}

/// Returns the index of an axis, which counts from the end if it is negative.
pub(super) fn index(axis: i64, rank: usize) -> Result<usize, String> {
    let from_start = if axis < 0 {
        axis.saturating_add(rank as i64)
    } else {
        axis
    };
    match usize::try_from(from_start) {
        Ok(index) if index < rank => Ok(index),
        _ => Err(format!("it has axis {axis} of {rank}")),
    }
}

/// Returns, for each axis of the output of `Transpose`, the axis of the input that it is.
pub(super) fn permutation(node: &Node, rank: usize) -> Result<Vec<usize>, String> {
    let Some(given) = attribute(node, "perm") else {
        return Ok((0..rank).rev().collect());
    };
    let axes: Vec<usize> = given
        .ints
        .iter()
        .map(|&axis| index(axis, rank))
        .collect::<Result<_, _>>()?;
    match (0..rank).all(|axis| axes.contains(&axis)) && axes.len() == rank {
        true => Ok(axes),
        false => Err(format!(
            "its perm {:?} is no permutation of {rank} axes",
            given.ints
        )),
    }
}

/// Returns the dimensions after a transposition, and the index in the input of each element of the output.
pub(super) fn transposed(dims: &[usize], axes: &[usize]) -> (Vec<usize>, Vec<usize>) {
    let strides = strides(dims);
    let out: Vec<usize> = axes.iter().map(|&axis| dims[axis]).collect();
    let steps: Vec<usize> = axes.iter().map(|&axis| strides[axis]).collect();
    let indices = indices(&out, &steps, 0);
    (out, indices)
}

fn check_dimensions(count: usize) -> Result<(), String> {
    if count > MAX_DIMENSIONS {
        return Err(format!(
            "it has {count} dimensions; at most {MAX_DIMENSIONS} are supported"
        ));
    }
    Ok(())
}

/// Returns the number of elements, or an error if there are more than [`MAX_ELEMENTS`] or [`MAX_DIMENSIONS`].
fn elements(dims: &[usize]) -> Result<usize, String> {
    check_dimensions(dims.len())?;
    // Count a dimension of 0 as 1, because it would hide dimensions whose product overflows.
    dims.iter()
        .try_fold(1_usize, |product, &dim| product.checked_mul(dim.max(1)))
        .filter(|&count| count <= MAX_ELEMENTS)
        .map(|_| dims.iter().product())
        .ok_or_else(|| {
            format!("it has the dimensions {dims:?}; at most {MAX_ELEMENTS} elements are supported")
        })
}

fn strides(dims: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; dims.len()];
    for axis in (1..dims.len()).rev() {
        strides[axis - 1] = strides[axis] * dims[axis];
    }
    strides
}

/// Returns the index of each element of a tensor with these dimensions and strides, in row-major order. The first element has the
/// index `start`.
fn indices(dims: &[usize], strides: &[usize], start: usize) -> Vec<usize> {
    let mut indices = vec![start];
    for (&dim, &stride) in dims.iter().zip(strides) {
        indices = indices
            .iter()
            .flat_map(|&index| (0..dim).map(move |step| index + step * stride))
            .collect();
    }
    indices
}

/// Returns the elements of a tensor, which the file stores either as raw bytes or as a list.
fn floats<const N: usize>(
    raw: &[u8],
    read: fn([u8; N]) -> f64,
    listed: impl Iterator<Item = f64>,
) -> Data {
    Data::Floats(
        raw.as_chunks()
            .0
            .iter()
            .map(|&bytes| read(bytes))
            .chain(listed)
            .collect(),
    )
}

fn ints<const N: usize>(
    raw: &[u8],
    read: fn([u8; N]) -> Int,
    listed: impl Iterator<Item = Int>,
) -> Data {
    Data::Ints(
        raw.as_chunks()
            .0
            .iter()
            .map(|&bytes| read(bytes))
            .chain(listed)
            .collect(),
    )
}

fn arithmetic(operator: &str, a: &Constant, b: &Constant) -> Result<Constant, String> {
    let rank = a.dims.len().max(b.dims.len());
    let dim = |constant: &Constant, axis: usize| {
        let missing = rank - constant.dims.len();
        axis.checked_sub(missing)
            .map_or(1, |axis| constant.dims[axis])
    };
    let dims: Vec<usize> = (0..rank)
        .map(|axis| match (dim(a, axis), dim(b, axis)) {
            (1, other) | (other, 1) => other,
            (own, _) => own,
        })
        .collect();
    let (a, b) = (a.broadcast(&dims)?, b.broadcast(&dims)?);
    let data = match (&a.data, &b.data) {
        (Data::Ints(a), Data::Ints(b)) => {
            let compute = |(&a, &b): (&Int, &Int)| match (operator, a, b) {
                ("Mul", a, b) => times(a, b),
                ("Div", a, Int::Known(1)) => Ok(a),
                (_, Int::Known(a), Int::Known(b)) => match operator {
                    "Add" => a.checked_add(b),
                    "Sub" => a.checked_sub(b),
                    "Div" => a.checked_div(b),
                    _ => u32::try_from(b).ok().and_then(|b| a.checked_pow(b)),
                }
                .map(Int::Known)
                .ok_or_else(|| "it overflows or divides by zero".to_owned()),
                _ => Err("it computes with the number of images".to_owned()),
            };
            Data::Ints(a.iter().zip(b).map(compute).collect::<Result<_, _>>()?)
        }
        _ => {
            let compute = match operator {
                "Add" => |a: f64, b: f64| a + b,
                "Sub" => |a: f64, b: f64| a - b,
                "Mul" => |a: f64, b: f64| a * b,
                "Div" => |a: f64, b: f64| a / b,
                _ => f64::powf,
            };
            let (a, b) = (a.floats()?, b.floats()?);
            Data::Floats(a.into_iter().zip(b).map(|(a, b)| compute(a, b)).collect())
        }
    };
    Ok(Constant {
        dims,
        data,
        stored: a.stored,
    })
}

fn gathered(node: &Node, x: &Constant, at: Option<&Constant>) -> Result<Constant, String> {
    let at = at.ok_or("it lacks the indices")?;
    let axis = index(
        attribute(node, "axis").map_or(0, |axis| axis.i),
        x.dims.len(),
    )?;
    let picked = at.known()?;
    let picked = picked.into_iter().map(|i| index(i, x.dims[axis]));
    let picked: Vec<usize> = picked.collect::<Result<_, _>>()?;
    let inner: usize = x.dims[axis + 1..].iter().product();
    let outer: usize = x.dims[..axis].iter().product();
    let dims = [&x.dims[..axis], &at.dims[..], &x.dims[axis + 1..]].concat();
    elements(&dims)?;
    let mut indices = Vec::new();
    for o in 0..outer {
        for &i in &picked {
            let start = (o * x.dims[axis] + i) * inner;
            indices.extend(start..start + inner);
        }
    }
    Ok(x.rearranged((dims, indices)))
}

fn sliced(node: &Node, x: &Constant, inputs: &[Option<&Constant>]) -> Result<Constant, String> {
    let argument = |at: usize, name: &str| match inputs.get(at).copied().flatten() {
        Some(values) => values.known().map(Some),
        None => Ok(attribute(node, name).map(|attribute| attribute.ints.clone())),
    };
    let starts = argument(1, "starts")?.ok_or("it lacks the starts")?;
    let ends = argument(2, "ends")?.ok_or("it lacks the ends")?;
    let axes = argument(3, "axes")?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = argument(4, "steps")?.unwrap_or_else(|| vec![1; starts.len()]);
    if ends.len() != starts.len() || axes.len() != starts.len() || steps.iter().any(|&s| s != 1) {
        return Err("it takes a slice in steps, or one that is not whole".to_owned());
    }
    let (mut dims, all, mut start) = (x.dims.clone(), strides(&x.dims), 0);
    let mut sliced = HashSet::new();
    for ((&axis, &from), &to) in axes.iter().zip(&starts).zip(&ends) {
        let axis = index(axis, dims.len())?;
        if !sliced.insert(axis) {
            return Err("its axes are not distinct".to_owned());
        }
        let size = x.dims[axis] as i64;
        let bound =
            |at: i64| (if at < 0 { at.saturating_add(size) } else { at }).clamp(0, size) as usize;
        let (from, to) = (bound(from), bound(to));
        dims[axis] = to.saturating_sub(from);
        start += from * all[axis];
    }
    Ok(x.rearranged((dims.clone(), indices(&dims, &all, start))))
}

fn concatenated(node: &Node, inputs: &[Option<&Constant>]) -> Result<Constant, String> {
    let parts: Option<Vec<&Constant>> = inputs.iter().copied().collect();
    let parts = parts
        .filter(|parts| !parts.is_empty())
        .ok_or("it lacks an input")?;
    let first = parts[0];
    let axis = attribute(node, "axis").map_or(0, |axis| axis.i);
    let axis = index(axis, first.dims.len())?;
    let around = |part: &Constant| {
        let mut dims = part.dims.clone();
        (dims.len() > axis)
            .then(|| std::mem::replace(&mut dims[axis], 0))
            .map(|_| dims)
    };
    if parts.iter().any(|part| around(part) != around(first)) {
        return Err("it joins constants of shapes that do not fit".to_owned());
    }
    let mut dims = first.dims.clone();
    dims[axis] = parts.iter().map(|part| part.dims[axis]).sum();
    elements(&dims)?;
    let outer: usize = dims[..axis].iter().product();
    let rows = |part: &Constant| part.data.len() / outer.max(1);
    let floats = parts
        .iter()
        .any(|part| matches!(part.data, Data::Floats(_)));
    let data = match floats {
        true => {
            let values = parts.iter().map(|part| part.floats());
            let values: Vec<Vec<f64>> = values.collect::<Result<_, _>>()?;
            let row = |o: usize| {
                let parts = parts.iter().zip(&values);
                parts.flat_map(move |(part, values)| &values[o * rows(part)..][..rows(part)])
            };
            Data::Floats((0..outer).flat_map(row).copied().collect())
        }
        false => {
            let values = parts.iter().map(|part| part.as_ints());
            let values: Vec<&[Int]> = values.collect::<Result<_, _>>()?;
            let row = |o: usize| {
                let parts = parts.iter().zip(&values);
                parts.flat_map(move |(part, values)| &values[o * rows(part)..][..rows(part)])
            };
            Data::Ints((0..outer).flat_map(row).copied().collect())
        }
    };
    Ok(Constant {
        dims,
        data,
        stored: first.stored,
    })
}
