//! The computations behind a description: shapes, checks, tables and fingerprint.
//!
//! The macro [`network!`](crate::network!) calls these functions at compile time; tests call them at run time. If a
//! description is invalid, the build stops with a one-sentence error, a [`Refusal`].

use crate::layer::{Activation, Pool};
use core::fmt;
use core::mem::size_of;

/// The maximum size of the outputs of all layers in bytes. On a host they are on the stack of a thread.
pub const MAX_ACTIVATIONS: usize = 256 * 1024;
/// The maximum size of a network's parameters in bytes.
pub const MAX_PARAMS: usize = 4 * 1024 * 1024;
/// The maximum length of a network's name in bytes, which is the size of its field in the weights file.
pub const MAX_NAME: usize = 32;

/// The kind of a layer. Each kind is a module of [`layer`](crate::layer).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// [`layer::conv2d`](crate::layer::conv2d)
    Conv2d,
    /// [`layer::linear`](crate::layer::linear)
    Linear,
}

/// A layer with its shapes. A shape is `(C, H, W)`, or `(N, 1, 1)` for a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The name of the layer in the description.
    pub name: &'static str,
    /// The kind of the layer.
    pub kind: Kind,
    /// The shape of the input.
    pub input: [usize; 3],
    /// The side of the kernel; 1 for a linear layer.
    pub kernel: usize,
    /// The rows and columns of zeros on each side of the input.
    pub padding: usize,
    /// The pooling of the output.
    pub pool: Pool,
    /// The activation.
    pub activation: Activation,
    /// The shape of the output after pooling.
    pub output: [usize; 3],
}

impl Layer {
    /// Returns the number of inputs.
    pub const fn input_len(&self) -> usize {
        product(self.input)
    }

    /// Returns the number of outputs after pooling.
    pub const fn output_len(&self) -> usize {
        product(self.output)
    }

    /// Returns the number of elements of the weight.
    pub const fn weight_len(&self) -> usize {
        match self.kind {
            Kind::Conv2d => self.output[0] * self.input[0] * self.kernel * self.kernel,
            Kind::Linear => self.output[0] * self.input_len(),
        }
    }

    /// Returns the number of parameters, including biases.
    pub const fn params(&self) -> usize {
        self.weight_len() + self.output[0]
    }

    /// Returns the shape of the output before pooling.
    pub const fn convolved(&self) -> [usize; 3] {
        let [c, h, w] = self.output;
        let n = self.pool.window();
        [c, n * h, n * w]
    }

    /// Returns the number of multiply-adds for one image.
    pub const fn multiply_adds(&self) -> usize {
        let [_, h, w] = self.convolved();
        self.weight_len() * h * w
    }

    /// Returns the size of the output in bytes of RAM.
    pub const fn ram(&self) -> usize {
        self.output_len() * size_of::<f32>()
    }
}

/// Writes what the layer computes as text, such as `conv2d 5x5, padding 2, sigmoid, average pool 2`.
impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Conv2d => {
                write!(f, "conv2d {0}x{0}", self.kernel)?;
                if self.padding > 0 {
                    write!(f, ", padding {}", self.padding)?;
                }
            }
            Kind::Linear => write!(f, "linear")?,
        }
        match (self.pool, self.activation) {
            (Pool::Whole, Activation::Identity) => Ok(()),
            (Pool::Whole, activation) => write!(f, ", {}", activation.name()),
            (Pool::Max(n), Activation::Identity) => write!(f, ", max pool {n}"),
            (Pool::Max(n), activation) => write!(f, ", max pool {n}, {}", activation.name()),
            (Pool::Average(n), Activation::Identity) => write!(f, ", average pool {n}"),
            (Pool::Average(n), activation) => {
                write!(f, ", {}, average pool {n}", activation.name())
            }
        }
    }
}

/// Displays a shape as text, such as `6x12x12`, or one number for a vector.
#[derive(Clone, Copy, Debug)]
pub struct ShapeText(pub [usize; 3]);

impl fmt::Display for ShapeText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [n, 1, 1] => write!(f, "{n}"),
            [c, h, w] => write!(f, "{c}x{h}x{w}"),
        }
    }
}

/// Displays a whole network as text, such as `1x28x28; conv1: conv2d 5x5, max pool 2, sigmoid -> 6x12x12; …`.
#[derive(Clone, Copy, Debug)]
pub struct Description<'a>(pub &'a [Layer]);

impl fmt::Display for Description<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(first) = self.0.first() {
            let [c, h, w] = first.input;
            write!(f, "{c}x{h}x{w}")?;
        }
        for layer in self.0 {
            write!(
                f,
                "; {}: {layer} -> {}",
                layer.name,
                ShapeText(layer.output)
            )?;
        }
        Ok(())
    }
}

const fn product([c, h, w]: [usize; 3]) -> usize {
    c * h * w
}

/// Returns the shape of the input, or stops the build with an error if a network cannot have it.
#[track_caller]
pub const fn input(shape: [usize; 3]) -> [usize; 3] {
    let [c, h, w] = shape;
    let refusal = Refusal::of("input");
    if c != 1 && c != 3 {
        refusal.number(c).text(" channels are not 1 or 3").stop()
    }
    if h < 1 || w < 1 || h > 64 || w > 64 {
        refusal
            .size(h, w)
            .text(" pixels are not 1 to 64 by 1 to 64")
            .stop()
    }
    shape
}

/// Checks the name and the layers as a whole, and stops the build with an error if they are invalid. `Spec::layer` has already
/// checked each layer on its own.
#[track_caller]
pub const fn checked<const N: usize>(name: &str, layers: [Layer; N]) -> [Layer; N] {
    let refusal = Refusal::of("network");
    if name.is_empty() || name.len() > MAX_NAME {
        refusal
            .text("its name has ")
            .number(name.len())
            .text(" bytes, not 1 to ")
            .number(MAX_NAME)
            .stop()
    }
    if N == 0 {
        refusal
            .text("it has no layers; the last must be a linear one")
            .stop()
    }
    let (mut linear, mut activations, mut params) = (false, 0, 0);
    let mut i = 0;
    while i < N {
        let layer = &layers[i];
        let refusal = Refusal::of(layer.name);
        match layer.kind {
            Kind::Linear => linear = true,
            Kind::Conv2d if linear => refusal
                .text("a conv2d layer cannot follow a linear one")
                .stop(),
            Kind::Conv2d => {}
        }
        activations += layer.ram();
        params += layer.params() * size_of::<f32>();
        if activations > MAX_ACTIVATIONS {
            refusal
                .text("the outputs of the layers up to this one take ")
                .number(activations)
                .text(" bytes, more than ")
                .number(MAX_ACTIVATIONS)
                .stop()
        }
        if params > MAX_PARAMS {
            refusal
                .text("the parameters of the layers up to this one take ")
                .number(params)
                .text(" bytes, more than ")
                .number(MAX_PARAMS)
                .stop()
        }
        i += 1;
    }
    let last = layers[N - 1];
    let refusal = Refusal::of(last.name);
    if !matches!(last.kind, Kind::Linear) || !matches!(last.activation, Activation::Identity) {
        refusal
            .text("the last layer must be linear without an activation: its outputs are the logits")
            .stop()
    }
    if last.output[0] < 2 || last.output[0] > 64 {
        refusal
            .number(last.output[0])
            .text(" classes are not 2 to 64")
            .stop()
    }
    layers
}

/// A weight or a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// `LAYER_weight` or `LAYER_bias`.
    pub name: &'static str,
    /// The layer's name.
    pub layer: &'static str,
    /// `weight` or `bias`.
    pub part: &'static str,
    /// The index of the first element among all parameters.
    pub offset: usize,
    dims: [usize; 4],
    rank: usize,
}

impl Tensor {
    const NONE: Self = Self {
        name: "",
        layer: "",
        part: "",
        offset: 0,
        dims: [0; 4],
        rank: 0,
    };

    /// Returns the dimensions, outermost first: `(C_OUT, C_IN, K, K)`, `(OUT, IN)` or `(OUT)`.
    pub const fn dims(&self) -> &[usize] {
        self.dims.split_at(self.rank).0
    }

    /// Returns the number of elements.
    pub const fn len(&self) -> usize {
        let (mut product, mut i) = (1, 0);
        // The rank is at most four. The second condition shows the compiler that indexing cannot panic.
        while i < self.rank && i < self.dims.len() {
            product *= self.dims[i];
            i += 1;
        }
        product
    }

    /// Returns whether the tensor has no elements. No tensor of a network is empty.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Returns the weight and the bias of each layer in order. `N` is twice the number of layers.
pub const fn tensors<const N: usize>(layers: &[Layer], names: &[[&'static str; 2]]) -> [Tensor; N] {
    assert!(N == 2 * layers.len() && names.len() == layers.len());
    let mut out = [Tensor::NONE; N];
    let (mut i, mut offset) = (0, 0);
    while i < layers.len() {
        let layer = &layers[i];
        let outputs = layer.output[0];
        let (dims, rank) = match layer.kind {
            Kind::Conv2d => ([outputs, layer.input[0], layer.kernel, layer.kernel], 4),
            Kind::Linear => ([outputs, layer.input_len(), 0, 0], 2),
        };
        out[2 * i] = Tensor {
            name: names[i][0],
            layer: layer.name,
            part: "weight",
            offset,
            dims,
            rank,
        };
        offset += layer.weight_len();
        out[2 * i + 1] = Tensor {
            name: names[i][1],
            layer: layer.name,
            part: "bias",
            offset,
            dims: [outputs, 0, 0, 0],
            rank: 1,
        };
        offset += outputs;
        i += 1;
    }
    out
}

/// Returns the tensor that holds the parameter of this index, and the index of the element in it.
pub fn locate(tensors: &[Tensor], index: usize) -> Option<(&Tensor, usize)> {
    let tensor = tensors
        .iter()
        .find(|tensor| (tensor.offset..tensor.offset + tensor.len()).contains(&index))?;
    Some((tensor, index - tensor.offset))
}

/// Returns the first parameter that is NaN or infinite, as the name of its tensor and its index there.
pub fn first_not_finite(tensors: &[Tensor], params: &[f32]) -> Option<(&'static str, usize)> {
    let index = params.iter().position(|value| !value.is_finite())?;
    Some(locate(tensors, index).map_or(("?", index), |(tensor, i)| (tensor.name, i)))
}

/// Stops the build unless the table of tensors has the given offsets, in bytes, of the fields of `Params`.
pub const fn agree<const N: usize>(tensors: &[Tensor], offsets: [[usize; 2]; N]) {
    let mut i = 0;
    while i < tensors.len() {
        assert!(tensors[i].offset * size_of::<f32>() == offsets[i / 2][i % 2]);
        i += 1;
    }
}

/// Returns the fingerprint that identifies a network in a weights file: a 64-bit FNV-1a hash over all properties of its layers.
/// It does not cover the network's own name.
pub const fn fingerprint(layers: &[Layer]) -> u64 {
    let (mut hash, mut i) = (0xcbf2_9ce4_8422_2325, 0);
    while i < layers.len() {
        let Layer {
            name,
            kind,
            input: [c, h, w],
            kernel,
            padding,
            pool,
            activation,
            output,
        } = layers[i];
        hash = fnv(hash, name.as_bytes());
        let kind = match kind {
            Kind::Conv2d => 1,
            Kind::Linear => 2,
        };
        let pool = match pool {
            Pool::Whole => [0, 1],
            Pool::Max(n) => [1, n as u8],
            Pool::Average(n) => [2, n as u8],
        };
        let activation = match activation {
            Activation::Identity => 0,
            Activation::Sigmoid => 1,
            Activation::Tanh => 2,
            Activation::Relu => 3,
        };
        hash = fnv(hash, &[0, kind, kernel as u8, padding as u8]);
        hash = fnv(hash, &[pool[0], pool[1], activation]);
        let (mut n, shape) = (0, [c, h, w, output[0]]);
        while n < shape.len() {
            // Each number is hashed as four bytes, so that 32-bit and 64-bit machines agree.
            hash = fnv(hash, &(shape[n] as u32).to_le_bytes());
            n += 1;
        }
        i += 1;
    }
    hash
}

const fn fnv(mut hash: u64, bytes: &[u8]) -> u64 {
    let mut i = 0;
    while i < bytes.len() {
        hash = (hash ^ bytes[i] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        i += 1;
    }
    hash
}

/// An error message that is assembled at compile time and stops the build.
#[derive(Clone, Copy, Debug)]
pub struct Refusal {
    text: [u8; 160],
    len: usize,
}

impl Refusal {
    /// Starts a message with the name of the part of the description that is invalid.
    pub const fn of(name: &str) -> Self {
        Self {
            text: [0; 160],
            len: 0,
        }
        .text(name)
        .text(": ")
    }

    /// Appends text.
    pub const fn text(mut self, text: &str) -> Self {
        let mut i = 0;
        while i < text.len() && self.len < self.text.len() {
            self.text[self.len] = text.as_bytes()[i];
            (self.len, i) = (self.len + 1, i + 1);
        }
        self
    }

    /// Appends a number.
    pub const fn number(self, n: usize) -> Self {
        let more = if n < 10 { self } else { self.number(n / 10) };
        let (_, digit) = "0123456789".split_at(n % 10);
        more.text(digit.split_at(1).0)
    }

    /// Appends a size, such as `7 x 8`.
    pub const fn size(self, h: usize, w: usize) -> Self {
        self.number(h).text(" x ").number(w)
    }

    /// Stops the build with this message.
    #[track_caller]
    pub const fn stop(&self) -> ! {
        match core::str::from_utf8(self.text.split_at(self.len).0) {
            Ok(text) => panic!("{}", text),
            Err(_) => panic!("the description is refused"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::{conv2d, linear};

    fn conv(spec: conv2d::Spec, input: [usize; 3]) -> Layer {
        spec.layer("conv1", input)
    }

    const CONV: conv2d::Spec = conv2d::Spec {
        maps: 4,
        kernel: 3,
        ..conv2d::Spec::DEFAULT
    };

    fn fc(outputs: usize, input: [usize; 3]) -> Layer {
        linear::Spec {
            outputs,
            activation: Activation::Identity,
        }
        .layer("fc", input)
    }

    #[test]
    fn shapes_follow_from_kernel_padding_and_window() {
        let spec = conv2d::Spec {
            padding: 1,
            pool: Pool::Average(3),
            ..CONV
        };
        let layer = conv(spec, [3, 9, 12]);
        assert_eq!(layer.output, [4, 3, 4]);
        assert_eq!(layer.convolved(), [4, 9, 12]);
        assert_eq!(layer.params(), 4 * 3 * 9 + 4);
        assert_eq!(layer.multiply_adds(), 4 * 3 * 9 * 9 * 12);
        assert_eq!(
            std::format!("{layer} {}", ShapeText(layer.output)),
            "conv2d 3x3, padding 1, average pool 3 4x3x4"
        );
    }

    #[test]
    #[should_panic = "conv1: a pooling window of 2 does not divide its output of 7 x 8"]
    fn a_window_that_does_not_divide_is_refused() {
        let pool = Pool::Max(2);
        conv(conv2d::Spec { pool, ..CONV }, [1, 9, 10]);
    }

    #[test]
    #[should_panic = "conv1: a pooling window of 4 is not 2 or 3"]
    fn a_window_of_4_is_refused() {
        let pool = Pool::Max(4);
        conv(conv2d::Spec { pool, ..CONV }, [1, 10, 10]);
    }

    #[test]
    #[should_panic = "conv1: kernel 3 is larger than its input of 2 x 8"]
    fn a_kernel_larger_than_its_input_is_refused() {
        conv(CONV, [1, 2, 8]);
    }

    #[test]
    #[should_panic = "conv1: kernel 8 is not 1 to 7"]
    fn a_kernel_of_8_is_refused() {
        conv(conv2d::Spec { kernel: 8, ..CONV }, [1, 20, 20]);
    }

    #[test]
    #[should_panic = "conv1: padding 2 is more than half of kernel 3"]
    fn padding_beyond_half_the_kernel_is_refused() {
        conv(conv2d::Spec { padding: 2, ..CONV }, [1, 20, 20]);
    }

    #[test]
    #[should_panic = "conv1: a conv2d layer needs `maps: 1` or more"]
    fn no_maps_are_refused() {
        conv(conv2d::Spec { maps: 0, ..CONV }, [1, 20, 20]);
    }

    #[test]
    #[should_panic = "input: 2 channels are not 1 or 3"]
    fn two_channels_are_refused() {
        input([2, 28, 28]);
    }

    #[test]
    #[should_panic = "input: 28 x 65 pixels are not 1 to 64 by 1 to 64"]
    fn a_wide_input_is_refused() {
        input([1, 28, 65]);
    }

    #[test]
    #[should_panic = "input: 0 x 1 pixels are not 1 to 64 by 1 to 64"]
    fn an_input_without_rows_is_refused() {
        input([1, 0, 1]);
    }

    #[test]
    fn the_smallest_and_the_largest_are_accepted() {
        for shape in [[1, 1, 1], [3, 64, 64]] {
            assert_eq!(input(shape), shape);
        }
        let largest = conv2d::Spec {
            maps: 256,
            kernel: 7,
            padding: 3,
            ..CONV
        };
        assert_eq!(conv(largest, [3, 4, 4]).output, [256, 4, 4]);
        for pool in [Pool::Whole, Pool::Max(2), Pool::Average(3)] {
            conv(conv2d::Spec { pool, ..CONV }, [1, 8, 8]);
        }
        // A name of 32 bytes; 2 and 64 classes; parameters of 4 MiB.
        checked("abcdefghijklmnopqrstuvwxyz123456", [fc(2, [1, 1, 1])]);
        checked("a", [fc(64, [(1 << 14) - 1, 1, 1])]);
    }

    #[test]
    #[should_panic = "conv1: 257 maps are more than 256"]
    fn too_many_maps_are_refused() {
        conv(conv2d::Spec { maps: 257, ..CONV }, [1, 4, 4]);
    }

    #[test]
    #[should_panic = "fc: 4097 outputs are more than 4096"]
    fn too_many_outputs_are_refused() {
        assert_eq!(fc(4096, [1, 1, 1]).output, [4096, 1, 1]);
        fc(4097, [1, 1, 1]);
    }

    #[test]
    #[should_panic = "network: its name has 0 bytes, not 1 to 32"]
    fn an_empty_name_is_refused() {
        checked("", [fc(2, [1, 1, 1])]);
    }

    #[test]
    #[should_panic = "fc: 1 classes are not 2 to 64"]
    fn one_class_is_refused() {
        checked("net", [fc(1, [1, 5, 5])]);
    }

    #[test]
    fn a_parameter_is_located_in_its_tensor() {
        let tensors = &crate::network::TENSORS;
        let [first, second, ..] = tensors;
        assert_eq!((first.offset, second.offset), (0, first.len()));
        let found = |index| locate(tensors, index).map(|(tensor, i)| (tensor.name, i));
        assert_eq!(found(0), Some((first.name, 0)));
        assert_eq!(
            found(second.offset - 1),
            Some((first.name, second.offset - 1))
        );
        assert_eq!(found(second.offset), Some((second.name, 0)));
        assert_eq!(found(crate::network::NUM_PARAMS), None);
    }

    #[test]
    #[should_panic = "assertion failed"]
    fn other_offsets_than_those_of_the_fields_are_refused() {
        agree(&crate::network::TENSORS[..1], [[4, 0]]);
    }

    #[test]
    #[should_panic = "network: it has no layers; the last must be a linear one"]
    fn no_layers_are_refused() {
        checked("net", []);
    }

    #[test]
    #[should_panic = "conv1: the last layer must be linear without an activation: its outputs are the logits"]
    fn a_convolution_at_the_end_is_refused() {
        checked("net", [conv(CONV, [1, 10, 10])]);
    }

    #[test]
    #[should_panic = "conv1: a conv2d layer cannot follow a linear one"]
    fn a_convolution_after_a_linear_layer_is_refused() {
        checked("net", [fc(4, [1, 1, 1]), conv(CONV, [4, 10, 10])]);
    }

    #[test]
    #[should_panic = "fc: 65 classes are not 2 to 64"]
    fn too_many_classes_are_refused() {
        checked("net", [fc(65, [1, 5, 5])]);
    }

    #[test]
    #[should_panic = "fc: the parameters of the layers up to this one take 16781312 bytes, more than 4194304"]
    fn too_many_parameters_are_refused() {
        checked("net", [fc(1024, [1, 64, 64])]);
    }

    #[test]
    #[should_panic = "conv1: the outputs of the layers up to this one take 984064 bytes, more than 262144"]
    fn too_large_outputs_are_refused() {
        checked(
            "net",
            [conv(conv2d::Spec { maps: 64, ..CONV }, [1, 64, 64])],
        );
    }

    #[test]
    #[should_panic = "network: its name has 33 bytes, not 1 to 32"]
    fn a_long_name_is_refused() {
        checked("abcdefghijklmnopqrstuvwxyz1234567", [fc(2, [1, 5, 5])]);
    }

    #[test]
    fn the_fingerprint_covers_every_field() {
        let base = Layer {
            activation: Activation::Relu,
            ..conv(CONV, [1, 10, 10])
        };
        let others = [
            Layer {
                name: "conv2",
                ..base
            },
            Layer {
                kind: Kind::Linear,
                ..base
            },
            Layer {
                input: [3, 10, 10],
                ..base
            },
            Layer {
                input: [1, 9, 10],
                ..base
            },
            Layer {
                input: [1, 10, 9],
                ..base
            },
            Layer { kernel: 5, ..base },
            Layer { padding: 1, ..base },
            Layer {
                pool: Pool::Max(2),
                ..base
            },
            Layer {
                pool: Pool::Average(2),
                ..base
            },
            Layer {
                activation: Activation::Tanh,
                ..base
            },
            Layer {
                output: [5, 8, 8],
                ..base
            },
        ];
        for (i, a) in others.iter().enumerate() {
            assert_ne!(fingerprint(&[*a]), fingerprint(&[base]), "{a:?}");
            for b in &others[..i] {
                assert_ne!(fingerprint(&[*a]), fingerprint(&[*b]), "{a:?} {b:?}");
            }
        }
    }
}
