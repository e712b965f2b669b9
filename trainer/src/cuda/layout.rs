//! Describes a network to the kernels. From the description of a network, [`Layout`] computes how many images a block processes,
//! where each value lies in a block's shared memory, and how long the buffers are. The launches use these numbers, and
//! [`Layout::source`] writes them as constants in front of step.cu.

use crate::dataset::{MAX_SHIFT, ROUNDS};
use lenet_core::Network;
use lenet_core::layer::{Activation, Pool};
use lenet_core::plan::{Kind, Layer, Tensor};
use std::fmt::Write;

/// The virtual architecture of the PTX. The driver of any GPU since Volta compiles it for that GPU.
pub const ARCH: &str = "compute_70";
/// Threads per block, in all kernels.
pub const THREADS: usize = 512;
/// Bytes of shared memory that a block can use on every GPU without an explicit opt-in.
pub const SHARED_BYTES: usize = 48 << 10;

/// The numbers of outputs and of inputs of a linear layer in one tile of the update.
const TILE: [usize; 2] = [8, 32];
/// Parameters of the convolutions in one tile of the update.
const CONV_TILE: usize = 32;

/// The number of values in step.cu's struct `Coefficients`; see `coefficient_words`.
pub const COEFFICIENTS: usize = 8;
/// The number of words in step.cu's struct `Epoch`; see `epoch_words`.
pub const EPOCH_WORDS: usize = 2 + ROUNDS + 4;

/// The source of the kernels, without the constants that describe the network.
const STEP_CU: &str = include_str!("step.cu");

/// The sizes and memory addresses with which the kernels are compiled for a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    name: &'static str,
    fingerprint: u64,
    layers: &'static [Layer],
    /// The weight and the bias of each layer.
    tensors: &'static [Tensor],
    /// Images per block.
    group: usize,
    /// The offset of the images in a block's shared memory, in floats.
    image: usize,
    /// The offsets of each layer's data.
    places: Vec<Place>,
    /// Bytes of shared memory per block in the kernel `logits`.
    logits_bytes: usize,
    /// Bytes of shared memory per block in the kernel `gradients`.
    gradients_bytes: usize,
    /// The length of a trace in floats. A trace holds what the update needs of one image: the input and the gradient of each
    /// linear layer.
    trace: usize,
}

/// The offsets of a layer's data, in floats. An offset is zero if the layer has no such data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Place {
    /// The output, in a block's shared memory.
    values: usize,
    /// For max-pooling, the number of the largest value in each window, in a block's shared memory.
    winners: usize,
    /// The weight of a convolution, in a block's shared memory.
    weights: usize,
    /// The gradient with respect to the output before pooling and activation, in a block's shared memory.
    grads: usize,
    /// The input of a linear layer, in a trace.
    trace_input: usize,
    /// The gradient of a linear layer, in a trace.
    trace_grad: usize,
}

/// Assigns offsets one after the other, each a multiple of four floats, so that the kernels can read a float4 there.
#[derive(Default)]
struct Places(usize);

impl Places {
    fn take(&mut self, floats: usize) -> usize {
        let place = self.0;
        self.0 += floats.next_multiple_of(4);
        place
    }
}

impl Layout {
    /// Computes the layout of a network. A block processes two images if they fit into [`SHARED_BYTES`], so that each weight
    /// is read once for both, and otherwise one.
    pub fn of<N: Network>() -> Self {
        let two = Self::with_group::<N>(2);
        match two.gradients_bytes <= SHARED_BYTES {
            true => two,
            false => Self::with_group::<N>(1),
        }
    }

    /// Computes the layout of a network with `group` images per block.
    fn with_group<N: Network>(group: usize) -> Self {
        let layers = N::LAYERS;
        let padding = |index: usize| layers.get(index).map_or(0, |layer| layer.padding);
        let padded = |[c, h, w]: [usize; 3], p: usize| group * c * (h + 2 * p) * (w + 2 * p);
        let mut places = vec![Place::default(); layers.len()];
        // Four words per image: its index and its augmentation (step.cu's struct `Source`).
        let mut memory = Places(4 * group);
        let image = memory.take(padded(layers[0].input, padding(0)));
        for (i, (layer, place)) in layers.iter().zip(&mut places).enumerate() {
            place.values = memory.take(padded(layer.output, padding(i + 1)));
        }
        let is_conv2d = |layer: &Layer| layer.kind == Kind::Conv2d;
        for (layer, place) in layers.iter().zip(&mut places) {
            if is_conv2d(layer) {
                place.weights = memory.take(layer.weight_len());
            }
        }
        let logits_bytes = memory.0 * size_of::<f32>();
        for (i, (layer, place)) in layers.iter().zip(&mut places).enumerate() {
            let outputs = group * layer.output_len();
            let is_max = matches!(layer.pool, Pool::Max(_));
            if is_max {
                place.winners = memory.take(outputs.div_ceil(size_of::<f32>()));
            }
            let [c, h, w] = layer.convolved();
            place.grads = memory.take(match layer.kind {
                // Each map is followed by four floats of padding, except in a first layer with max-pooling, which stores one
                // gradient per window.
                Kind::Conv2d if i > 0 || !is_max => group * c * (h * w + 4),
                _ => outputs,
            });
        }
        let gradients_bytes = memory.0 * size_of::<f32>();
        let mut trace = Places::default();
        let linear = |(layer, _): &(&Layer, &mut Place)| !is_conv2d(layer);
        for (layer, place) in layers.iter().zip(&mut places).filter(linear) {
            place.trace_input = trace.take(layer.input_len());
        }
        for (layer, place) in layers.iter().zip(&mut places).filter(linear) {
            place.trace_grad = trace.take(layer.output_len());
        }
        Self {
            name: N::NAME,
            fingerprint: N::FINGERPRINT,
            layers,
            tensors: N::TENSORS,
            group,
            image,
            places,
            logits_bytes,
            gradients_bytes,
            trace: trace.0,
        }
    }

    /// Returns the network's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the network's fingerprint.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Returns the number of images per block.
    pub fn group(&self) -> usize {
        self.group
    }

    /// Returns the number of bytes in an image.
    pub fn image_len(&self) -> usize {
        self.layers[0].input_len()
    }

    /// Returns the number of classes.
    pub fn classes(&self) -> usize {
        self.layers[self.layers.len() - 1].output_len()
    }

    /// Returns the number of parameters.
    pub fn params(&self) -> usize {
        self.tensors.iter().map(Tensor::len).sum()
    }

    /// Returns the number of parameters of the convolutions, which come first.
    pub fn conv_params(&self) -> usize {
        let layers = self.layers.iter().zip(self.tensors.chunks(2));
        let conv2d = layers.filter(|(layer, _)| layer.kind == Kind::Conv2d);
        conv2d
            .flat_map(|(_, tensors)| tensors)
            .map(Tensor::len)
            .sum()
    }

    /// Returns the length of a trace in floats. A trace holds what the update needs of one image.
    pub fn trace_len(&self) -> usize {
        self.trace
    }

    /// Returns the bytes of shared memory that a block of the kernel `logits` needs.
    pub fn logits_bytes(&self) -> usize {
        self.logits_bytes
    }

    /// Returns the bytes of shared memory that a block of the kernel `gradients` needs, which is the most of all kernels.
    pub fn gradients_bytes(&self) -> usize {
        self.gradients_bytes
    }

    /// Returns the number of blocks of the update: one for each tile of a linear layer's weight and of the convolutions'
    /// parameters.
    pub fn update_blocks(&self) -> usize {
        let linear = self.layers.iter().filter(|l| l.kind == Kind::Linear);
        let tiles = |l: &Layer| l.output_len().div_ceil(TILE[0]) * l.input_len().div_ceil(TILE[1]);
        linear.map(tiles).sum::<usize>() + self.conv_params().div_ceil(CONV_TILE)
    }

    /// Returns the CUDA source of the network's kernels: the constants, followed by step.cu.
    pub fn source(&self) -> String {
        let [rows, row] = TILE;
        let mut source = format!(
            "constexpr unsigned long long FINGERPRINT = {:#018x};\n\
             constexpr unsigned ROUNDS = {ROUNDS}, MAX_SHIFT = {MAX_SHIFT}, EPOCH_WORDS = {EPOCH_WORDS}, COEFFICIENTS = {COEFFICIENTS};\n\
             constexpr unsigned THREADS = {THREADS}, GROUP = {}, TILE_OUT = {rows}, TILE_IN = {row}, CONV_TILE = {CONV_TILE};\n\
             constexpr unsigned IMAGE_AT = {}, TRACE_LEN = {}, UPDATE_BLOCKS = {};\n\
             constexpr unsigned LOGITS_BYTES = {}, GRADIENTS_BYTES = {};\n\
             #undef LAYERS\n#define LAYERS",
            self.fingerprint,
            self.group,
            self.image,
            self.trace,
            self.update_blocks(),
            self.logits_bytes,
            self.gradients_bytes,
        );
        let layers = self.layers.iter().zip(self.tensors.chunks(2));
        for (i, ((layer, tensors), place)) in layers.zip(&self.places).enumerate() {
            let kind = match layer.kind {
                Kind::Conv2d => "CONV2D",
                Kind::Linear => "LINEAR",
            };
            let pool = match layer.pool {
                Pool::Whole => "WHOLE",
                Pool::Max(_) => "MAX",
                Pool::Average(_) => "AVERAGE",
            };
            let activation = match layer.activation {
                Activation::Identity => "IDENTITY",
                Activation::Sigmoid => "SIGMOID",
                Activation::Tanh => "TANH",
                Activation::Relu => "RELU",
            };
            let ([c, h, w], [maps, oh, ow]) = (layer.input, layer.output);
            let (kernel, padding, window) = (layer.kernel, layer.padding, layer.pool.window());
            let (weight, bias) = (tensors[0].offset, tensors[1].offset);
            let Place {
                values,
                winners,
                weights,
                grads,
                trace_input,
                trace_grad,
            } = place;
            let separator = if i == 0 { "" } else { "," };
            write!(
                source,
                "{separator} \\\n    {{{kind}, {{{c}, {h}, {w}}}, {kernel}, {padding}, {pool}, {window}, {activation}, \
                 {{{maps}, {oh}, {ow}}}, {weight}, {bias}, {values}, {winners}, {weights}, {grads}, {trace_input}, \
                 {trace_grad}}}"
            )
            .expect("a string takes everything");
        }
        source + "\n\n" + STEP_CU
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::networks::{color, lenet, rgb};

    #[test]
    fn a_block_takes_two_images_of_lenet_and_one_of_a_large_network() {
        let lenet = Layout::of::<lenet::Net>();
        assert_eq!((lenet.group, lenet.conv_params()), (2, 2572));
        assert_eq!((lenet.trace_len(), lenet.update_blocks()), (676, 251));
        assert!(lenet.gradients_bytes() <= SHARED_BYTES);
        let color = Layout::of::<color::Net>();
        assert_eq!((color.group, color.image_len()), (1, 3 * 32 * 32));
        assert!(color.gradients_bytes() > SHARED_BYTES);
    }

    #[test]
    fn the_source_describes_each_layer_in_one_line() {
        let source = Layout::of::<rgb::Net>().source();
        for line in [
            "\n    {CONV2D, {3, 10, 8}, 3, 0, AVERAGE, 2, TANH, {4, 4, 3}, 0, 108, ",
            "\n    {LINEAR, {4, 4, 3}, 1, 0, WHOLE, 1, RELU, {5, 1, 1}, 112, 352, ",
            "\n    {LINEAR, {5, 1, 1}, 1, 0, WHOLE, 1, IDENTITY, {3, 1, 1}, 357, 372, ",
        ] {
            assert!(source.contains(line), "{source}");
        }
    }
}
