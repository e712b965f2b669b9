//! The one description of the network: dimensions, types, tensors and layers.
//!
//! Everything that depends on the shape of LeNet reads it from here: the forward pass, the trainer, the file
//! format, the CUDA build, the printed summary. Dimensions are derived from the few numbers at the top, the table
//! of tensors from the type [`Params`], and what must agree is compared at compile time.
//!
//! Architecture: LeCun, Bottou, Bengio, Haffner: Gradient-based learning applied to document recognition, 1998, in
//! the form taught today: 28×28 input without padding, sigmoid after each pool, max-pooling, ten logits.

use bytemuck::{Pod, Zeroable};
use core::mem::{offset_of, size_of};

/// Side of the square input image, in pixels.
pub const SIDE: usize = 28;
/// Side of the square kernels of both convolutions.
pub const K: usize = 5;
/// Side and stride of the pooling windows.
pub const POOL: usize = 2;
/// Maps of the first convolution.
pub const C1: usize = 6;
/// Maps of the second convolution.
pub const C2: usize = 16;
/// Outputs of the first fully connected layer.
pub const FC1: usize = 120;
/// Outputs of the second fully connected layer.
pub const FC2: usize = 84;
/// Classes, the outputs of the last layer.
pub const CLASSES: usize = 10;

/// Side of the output of a convolution without padding, stride 1.
pub const fn conv_out(side: usize, kernel: usize) -> usize {
    side - kernel + 1
}

/// Side of the output of pooling with stride [`POOL`]; the side must divide evenly.
pub const fn pooled(side: usize) -> usize {
    assert!(
        side.is_multiple_of(POOL),
        "a pooling window would stick out"
    );
    side / POOL
}

/// Side of conv1's output.
pub const CONV1_SIDE: usize = conv_out(SIDE, K);
/// Side of pool1's output.
pub const POOL1_SIDE: usize = pooled(CONV1_SIDE);
/// Side of conv2's output.
pub const CONV2_SIDE: usize = conv_out(POOL1_SIDE, K);
/// Side of pool2's output.
pub const POOL2_SIDE: usize = pooled(CONV2_SIDE);
/// Inputs of the first fully connected layer: pool2, flattened.
pub const FLAT: usize = C2 * POOL2_SIDE * POOL2_SIDE;

/// Input of the network, `(1, SIDE, SIDE)`: grey values in 0..=1.
pub type Image = [[[f32; SIDE]; SIDE]; 1];
/// An image as stored and sent, `(SIDE, SIDE)`: grey values in 0..=255.
pub type Pixels = [[u8; SIDE]; SIDE];
/// Output of the network: one unnormalised log-probability a class.
pub type Logits = [f32; CLASSES];

/// The grey value the network sees for a stored pixel: `pixel / 255`, rounded once.
pub const fn grey(pixel: u8) -> f32 {
    pixel as f32 / 255.0
}

/// The image the network sees for stored pixels.
pub const fn image(pixels: &Pixels) -> Image {
    let mut out = [[[0.0; SIDE]; SIDE]; 1];
    write_image(pixels, &mut out);
    out
}

/// As [`image`], into memory of the caller's.
pub const fn write_image(pixels: &Pixels, out: &mut Image) {
    let mut y = 0;
    while y < SIDE {
        let mut x = 0;
        while x < SIDE {
            out[0][y][x] = grey(pixels[y][x]);
            x += 1;
        }
        y += 1;
    }
}

/// All parameters, 177,704 bytes: borrow them, never pass them by value.
///
/// Gradients and Adam's moments have this type too. Weights are `(C_OUT, C_IN, K, K)` and `(OUT, IN)`.
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct Params {
    /// `(C1, 1, K, K)`
    pub conv1_weight: [[[[f32; K]; K]; 1]; C1],
    /// `(C1)`
    pub conv1_bias: [f32; C1],
    /// `(C2, C1, K, K)`
    pub conv2_weight: [[[[f32; K]; K]; C1]; C2],
    /// `(C2)`
    pub conv2_bias: [f32; C2],
    /// `(FC1, FLAT)`
    pub fc1_weight: [[f32; FLAT]; FC1],
    /// `(FC1)`
    pub fc1_bias: [f32; FC1],
    /// `(FC2, FC1)`
    pub fc2_weight: [[f32; FC1]; FC2],
    /// `(FC2)`
    pub fc2_bias: [f32; FC2],
    /// `(CLASSES, FC2)`
    pub fc3_weight: [[f32; FC2]; CLASSES],
    /// `(CLASSES)`
    pub fc3_bias: [f32; CLASSES],
}

/// Number of parameters: 44,426.
pub const NUM_PARAMS: usize = size_of::<Params>() / size_of::<f32>();

impl Params {
    /// All parameters as one run, in the order of [`TENSORS`].
    pub fn as_flat(&self) -> &[f32; NUM_PARAMS] {
        bytemuck::must_cast_ref(self)
    }

    /// As [`as_flat`](Self::as_flat), to write.
    pub fn as_flat_mut(&mut self) -> &mut [f32; NUM_PARAMS] {
        bytemuck::must_cast_mut(self)
    }
}

/// One field of [`Params`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// The field's name.
    pub name: &'static str,
    /// Index of its first element in [`Params::as_flat`].
    pub offset: usize,
    shape: Shape,
}

impl Tensor {
    /// Its dimensions, outermost first: `(C_OUT, C_IN, K, K)`, `(OUT, IN)` or `(OUT)`.
    pub const fn dims(&self) -> &[usize] {
        self.shape.dims.split_at(self.shape.rank).0
    }

    /// Number of elements.
    pub const fn len(&self) -> usize {
        let (mut product, mut i) = (1, 0);
        while i < self.shape.rank {
            product *= self.shape.dims[i];
            i += 1;
        }
        product
    }

    /// Never true: the compiler has compared the table with [`Params`].
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Dimensions of a nested array of f32, read off its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    rank: usize,
    dims: [usize; 4],
}

trait HasShape {
    const SHAPE: Shape;
}

impl HasShape for f32 {
    const SHAPE: Shape = Shape {
        rank: 0,
        dims: [0; 4],
    };
}

impl<T: HasShape, const N: usize> HasShape for [T; N] {
    const SHAPE: Shape = {
        let inner = T::SHAPE;
        let mut dims = [N, 0, 0, 0];
        let mut i = 0;
        while i < inner.rank {
            dims[i + 1] = inner.dims[i];
            i += 1;
        }
        Shape {
            rank: inner.rank + 1,
            dims,
        }
    };
}

/// The shape of a field, through its accessor, which is never called.
const fn shape_of<T: HasShape>(_field: fn(&Params) -> &T) -> Shape {
    T::SHAPE
}

macro_rules! tensors {
    ($($field:ident),* $(,)?) => {
        [$(Tensor {
            name: stringify!($field),
            offset: offset_of!(Params, $field) / size_of::<f32>(),
            shape: shape_of(|params| &params.$field),
        }),*]
    };
}

/// The fields of [`Params`] in order; a weight is followed by its bias.
pub const TENSORS: [Tensor; 10] = tensors![
    conv1_weight,
    conv1_bias,
    conv2_weight,
    conv2_bias,
    fc1_weight,
    fc1_bias,
    fc2_weight,
    fc2_bias,
    fc3_weight,
    fc3_bias,
];

const _: () = {
    let (mut next, mut i) = (0, 0);
    while i < TENSORS.len() {
        assert!(
            TENSORS[i].offset == next,
            "TENSORS must list the fields of Params in order, without a gap"
        );
        next += TENSORS[i].len();
        i += 1;
    }
    assert!(
        next == NUM_PARAMS,
        "TENSORS must list every field of Params"
    );
};

/// The tensor that holds element `index` of [`Params::as_flat`], and the element's index in it.
pub fn locate(index: usize) -> Option<(&'static Tensor, usize)> {
    const TABLE: &[Tensor] = &TENSORS;
    let tensor = TABLE
        .iter()
        .find(|tensor| (tensor.offset..tensor.offset + tensor.len()).contains(&index))?;
    Some((tensor, index - tensor.offset))
}

/// What a layer computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Convolution with a square kernel [`K`], stride 1, no padding.
    Conv2d,
    /// Max-pooling over windows of [`POOL`], then the sigmoid (the same as the sigmoid first: it is monotone).
    MaxPool2dSigmoid,
    /// Fully connected, then the sigmoid.
    LinearSigmoid,
    /// Fully connected.
    Linear,
}

impl Op {
    /// In words, for people and for the [`FINGERPRINT`].
    pub const fn describe(self) -> &'static str {
        match self {
            Op::Conv2d => "conv2d",
            Op::MaxPool2dSigmoid => "max_pool2d, sigmoid",
            Op::LinearSigmoid => "linear, sigmoid",
            Op::Linear => "linear",
        }
    }
}

/// A layer, as the summary shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Its name; its tensors, if any, are `name_weight` and `name_bias`.
    pub name: &'static str,
    /// What it computes.
    pub op: Op,
    /// Shape of its output, `(C, H, W)`; a vector is `(C, 1, 1)`.
    pub out: [usize; 3],
    /// Its weight, if it has one; its bias is the next of [`TENSORS`].
    pub weight: Option<Tensor>,
}

impl Layer {
    /// Elements of its output.
    pub const fn out_len(&self) -> usize {
        self.out[0] * self.out[1] * self.out[2]
    }

    /// Parameters, biases included.
    pub const fn params(&self) -> usize {
        match self.weight {
            Some(weight) => weight.len() + self.out[0],
            None => 0,
        }
    }

    /// Multiply-adds for one image.
    pub const fn multiply_adds(&self) -> usize {
        match self.weight {
            Some(weight) => weight.len() * self.out[1] * self.out[2],
            None => 0,
        }
    }

    /// Bytes of RAM its output takes: none for a convolution, whose output goes straight into the pool.
    pub const fn ram(&self) -> usize {
        match self.op {
            Op::Conv2d => 0,
            _ => self.out_len() * size_of::<f32>(),
        }
    }
}

/// The layers in order.
pub const LAYERS: [Layer; 7] = [
    Layer {
        name: "conv1",
        op: Op::Conv2d,
        out: [C1, CONV1_SIDE, CONV1_SIDE],
        weight: Some(TENSORS[0]),
    },
    Layer {
        name: "pool1",
        op: Op::MaxPool2dSigmoid,
        out: [C1, POOL1_SIDE, POOL1_SIDE],
        weight: None,
    },
    Layer {
        name: "conv2",
        op: Op::Conv2d,
        out: [C2, CONV2_SIDE, CONV2_SIDE],
        weight: Some(TENSORS[2]),
    },
    Layer {
        name: "pool2",
        op: Op::MaxPool2dSigmoid,
        out: [C2, POOL2_SIDE, POOL2_SIDE],
        weight: None,
    },
    Layer {
        name: "fc1",
        op: Op::LinearSigmoid,
        out: [FC1, 1, 1],
        weight: Some(TENSORS[4]),
    },
    Layer {
        name: "fc2",
        op: Op::LinearSigmoid,
        out: [FC2, 1, 1],
        weight: Some(TENSORS[6]),
    },
    Layer {
        name: "fc3",
        op: Op::Linear,
        out: [CLASSES, 1, 1],
        weight: Some(TENSORS[8]),
    },
];

const _: () = {
    let (mut total, mut i) = (0, 0);
    while i < LAYERS.len() {
        total += LAYERS[i].params();
        i += 1;
    }
    assert!(total == NUM_PARAMS, "LAYERS must use every tensor");
};

/// Identifies the architecture in a weights file: 64-bit FNV-1a over the input side, the layers' names, operations and
/// output shapes, and the tensors' names and shapes.
pub const FINGERPRINT: u64 = {
    let mut hash = fnv_usize(FNV_START, SIDE);
    let mut i = 0;
    while i < LAYERS.len() {
        hash = fnv(hash, LAYERS[i].name.as_bytes());
        hash = fnv(hash, LAYERS[i].op.describe().as_bytes());
        let mut d = 0;
        while d < 3 {
            hash = fnv_usize(hash, LAYERS[i].out[d]);
            d += 1;
        }
        i += 1;
    }
    i = 0;
    while i < TENSORS.len() {
        hash = fnv(hash, TENSORS[i].name.as_bytes());
        let dims = TENSORS[i].dims();
        let mut d = 0;
        while d < dims.len() {
            hash = fnv_usize(hash, dims[d]);
            d += 1;
        }
        i += 1;
    }
    hash
};

const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;

const fn fnv(mut hash: u64, bytes: &[u8]) -> u64 {
    let mut i = 0;
    while i < bytes.len() {
        hash = (hash ^ bytes[i] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        i += 1;
    }
    hash
}

/// As four little-endian bytes, so that 32-bit and 64-bit machines agree.
const fn fnv_usize(hash: u64, value: usize) -> u64 {
    fnv(hash, &(value as u32).to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dimensions_are_those_of_lenet() {
        assert_eq!(
            (CONV1_SIDE, POOL1_SIDE, CONV2_SIDE, POOL2_SIDE, FLAT),
            (24, 12, 8, 4, 256)
        );
        assert_eq!(NUM_PARAMS, 44_426);
        assert_eq!(
            LAYERS.iter().map(Layer::multiply_adds).sum::<usize>(),
            281_640
        );
    }

    #[test]
    fn tensors_have_the_shapes_of_the_course() {
        let dims: [&[usize]; 10] = [
            &[6, 1, 5, 5],
            &[6],
            &[16, 6, 5, 5],
            &[16],
            &[120, 256],
            &[120],
            &[84, 120],
            &[84],
            &[10, 84],
            &[10],
        ];
        assert_eq!(TENSORS.each_ref().map(Tensor::dims), dims);
    }

    #[test]
    fn every_layer_with_a_weight_is_named_after_it() {
        for layer in LAYERS.iter() {
            if let Some(weight) = layer.weight {
                assert_eq!(weight.name.strip_suffix("_weight"), Some(layer.name));
            }
        }
    }

    #[test]
    fn locate_finds_first_and_last_elements() {
        assert_eq!(
            locate(0).map(|(t, i)| (t.name, i)),
            Some(("conv1_weight", 0))
        );
        assert_eq!(
            locate(150).map(|(t, i)| (t.name, i)),
            Some(("conv1_bias", 0))
        );
        assert_eq!(
            locate(NUM_PARAMS - 1).map(|(t, i)| (t.name, i)),
            Some(("fc3_bias", 9))
        );
        assert_eq!(locate(NUM_PARAMS), None);
    }

    #[test]
    fn the_fingerprint_changes_only_on_purpose() {
        // A change here means that no weights file written before can be read: bump the version in WEIGHTS.md too.
        assert_eq!(FINGERPRINT, 0x08f4_650d_6aff_a530);
    }
}
