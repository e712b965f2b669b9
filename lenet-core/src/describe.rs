//! The macro that turns a description into a network, and the trait through which the rest of the crate uses it.

use crate::plan::{Layer, Tensor};
use bytemuck::{NoUninit, Pod, Zeroable};
use core::fmt::{self, Debug};

/// The number format of a network's parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbers {
    /// 32-bit floating point.
    F32 = 0,
    /// 8-bit integers: see [`int8`](crate::int8).
    Int8 = 1,
}

impl fmt::Display for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Int8 => "int8",
        })
    }
}

/// The outputs of a layer, borrowed from memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outputs<'a> {
    /// The outputs as little-endian bytes.
    bytes: &'a [u8],
    /// The number of bytes per output: 4 for f32, 1 for int8.
    width: usize,
}

impl<'a> Outputs<'a> {
    /// Borrows a layer's array of `A`, whose elements are `T`.
    #[doc(hidden)]
    pub fn of<A: Elements>(array: &'a [A]) -> Self {
        Self {
            bytes: bytemuck::cast_slice(array),
            width: A::WIDTH,
        }
    }

    /// Returns the number of outputs.
    pub const fn len(&self) -> usize {
        self.bytes.len() / self.width
    }

    /// Returns whether there are no outputs.
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Returns an iterator over the outputs as f32. The integers of an int8 network are converted.
    pub fn iter(&self) -> impl Iterator<Item = f32> + use<'a> {
        self.bytes
            .chunks_exact(self.width)
            .map(|value| match *value {
                [a, b, c, d] => f32::from_le_bytes([a, b, c, d]),
                [byte] => f32::from(byte),
                _ => f32::NAN,
            })
    }

    /// Returns the bytes of at most `count` outputs, starting at index `offset`, or `None` if there is no such output.
    pub fn page(&self, offset: usize, count: usize) -> Option<&'a [u8]> {
        let rest = self.bytes.get(offset.checked_mul(self.width)?..)?;
        let page = rest.get(..count * self.width).unwrap_or(rest);
        (!page.is_empty()).then_some(page)
    }
}

/// Nested arrays of f32 or of bytes.
#[doc(hidden)]
pub trait Elements: NoUninit {
    /// The size of an element in bytes.
    const WIDTH: usize;
}

impl Elements for f32 {
    const WIDTH: usize = 4;
}

impl Elements for u8 {
    const WIDTH: usize = 1;
}

impl<T: Elements, const N: usize> Elements for [T; N]
where
    [T; N]: NoUninit,
{
    const WIDTH: usize = T::WIDTH;
}

/// A network that [`network!`](crate::network!) generated. The types `Net` (f32) and `int8::Net` of the network's module
/// implement this trait.
pub trait Network: Copy + Debug + PartialEq + 'static {
    /// The name of the network.
    const NAME: &'static str;
    /// The number format of the parameters.
    const NUMBERS: Numbers;
    /// The layers in order.
    const LAYERS: &'static [Layer];
    /// The fields of `Params` in order. The bias of a layer follows its weight.
    const TENSORS: &'static [Tensor];
    /// The fingerprint that identifies the network in a weights file.
    const FINGERPRINT: u64;
    /// The image that the [self-test](crate::self_test) classifies.
    const TEST_IMAGE: &'static Self::Image;

    /// The parameters of all layers.
    type Params: Pod + Send + Sync + Debug + PartialEq;
    /// The outputs of all layers.
    type Activations: Zeroable + Send + Sync;
    /// The input of the first layer, `(C, H, W)`.
    type Image: Pod + Send + Sync;
    /// An image of pixels as stored and sent, `(C, H, W)`: values in 0..=255.
    type Pixels: Pod + Send + Sync + PartialEq;
    /// The outputs of the last layer.
    type Logits: Pod + Send + Sync + Debug + PartialEq + AsRef<[f32]>;

    /// Computes the logits of one image.
    fn forward<'a>(
        params: &Self::Params,
        image: &Self::Image,
        act: &'a mut Self::Activations,
    ) -> &'a Self::Logits;

    /// Converts pixels to the input of the network.
    fn write_image(pixels: &Self::Pixels, image: &mut Self::Image);

    /// Returns the outputs that [`forward`](Self::forward) computed for the layer of this index, or `None` if there is no such
    /// layer.
    fn outputs(act: &Self::Activations, layer: usize) -> Option<Outputs<'_>>;

    /// Returns the first invalid parameter. For f32 it is one that is NaN or infinite, given by the name of its tensor and its
    /// index there. For int8 it is one with which a sum could overflow, given by the name of its layer and its output.
    fn unusable(params: &Self::Params) -> Option<(&'static str, usize)>;
}

/// Generates a network from a description, in the module that contains the invocation.
///
/// ```
/// #[macro_use]
/// extern crate lenet_core;
///
/// mod small {
///     network! {
///         name: "small",
///         input: [1, 16, 12],
///         conv1: conv2d { maps: 4, kernel: 3, padding: 1, pool: Max(2), activation: Relu },
///         fc1: linear { outputs: 3 },
///     }
/// }
///
/// fn main() {
///     let mut params = small::Params::ZERO;
///     params.fc1.bias = [0.5, 2.0, -1.0];
///     let image = lenet_core::image::grey(&[[[255; 12]; 16]; 1]);
///     let mut act = small::Activations::new();
///     assert_eq!(small::forward(&params, &image, &mut act), &[0.5, 2.0, -1.0]);
///     assert_eq!(small::NUM_PARAMS, 4 * 9 + 4 + 3 * (4 * 8 * 6) + 3);
/// }
/// ```
///
/// A layer is `name: kind { field: value, … }`, where `kind` is a module of [`layer`](crate::layer) and the fields are those of
/// its `Spec`. Fields that are left out have their defaults. Any number of convolutions come first, then at least one linear
/// layer. The last layer has 2 to 64 outputs, which are the logits, and no activation. An invalid description stops the build
/// with a one-sentence error:
///
/// ```compile_fail
/// #[macro_use]
/// extern crate lenet_core;
///
/// network! {
///     name: "odd",
///     input: [1, 28, 28],
///     // error: conv1: a pooling window of 3 does not divide its output of 26 x 26
///     conv1: conv2d { maps: 4, kernel: 3, pool: Max(3) },
///     fc1: linear { outputs: 10 },
/// }
/// # fn main() {}
/// ```
///
/// The macro generates `Net` (the type that implements [`Network`](crate::Network)), `NAME`, `LAYERS`, `TENSORS`,
/// `FINGERPRINT`, `CLASSES`, `CHANNELS`, `HEIGHT`, `WIDTH`, `NUM_PARAMS`, the types `Params`, `Activations`, `Image`, `Pixels`
/// and `Logits`, the function `forward`, and for each layer a module of the same name with its types. The module
/// `int8` has the same items for the network in 8-bit integers: see [`int8`](crate::int8).
///
/// If the module is in its own file, the root of your crate needs `#[macro_use] extern crate lenet_core;`. Do not rename the
/// dependency.
#[macro_export]
macro_rules! network {
    (
        name: $name:literal,
        input: $input:expr,
        $( $layer:ident: $kind:ident { $($field:ident: $value:expr),* $(,)? } ),* $(,)?
    ) => {
        /// The network's name.
        #[allow(dead_code)]
        pub const NAME: &str = $name;

        /// The layers in order.
        pub const LAYERS: [$crate::plan::Layer; <[&str]>::len(&[$(stringify!($layer)),*])] = {
            #[allow(unused_imports)]
            use $crate::layer::{Activation::*, Pool::*};
            let shape = $crate::plan::input($input);
            $(
                #[allow(clippy::needless_update)]
                let spec = $crate::layer::$kind::Spec {
                    $($field: $value,)*
                    ..$crate::layer::$kind::Spec::DEFAULT
                };
                let $layer = spec.layer(stringify!($layer), shape);
                let shape = $layer.output;
            )*
            let _ = shape;
            $crate::plan::checked(NAME, [$($layer),*])
        };

        #[allow(non_camel_case_types)]
        enum Index { $($layer),* }

        $(
            #[doc = concat!("The layer `", stringify!($layer), "`: `", stringify!($kind { $($field: $value),* }), "`.")]
            pub mod $layer {
                use $crate::layer::$kind::{Array, Weight};

                /// The layer.
                pub const LAYER: $crate::plan::Layer = super::LAYERS[super::Index::$layer as usize];
                const INPUT: [usize; 3] = LAYER.input;
                const OUTPUT: [usize; 3] = LAYER.output;

                /// The layer as a type, for the kernels.
                #[derive(Clone, Copy, Debug)]
                pub struct This;

                impl $crate::layer::Layered for This {
                    const LAYER: $crate::plan::Layer = LAYER;
                }

                /// The input of the layer.
                pub type Input<T = f32> =
                    Array<T, { INPUT[0] }, { INPUT[1] }, { INPUT[2] }, { LAYER.input_len() }>;
                /// The output of the layer, after pooling and activation.
                pub type Output<T = f32> =
                    Array<T, { OUTPUT[0] }, { OUTPUT[1] }, { OUTPUT[2] }, { LAYER.output_len() }>;

                /// The parameters of the layer.
                #[derive(
                    Clone, Copy, Debug, PartialEq, $crate::bytemuck::Pod, $crate::bytemuck::Zeroable,
                )]
                #[bytemuck(crate = "lenet_core::bytemuck")]
                #[repr(C)]
                pub struct Params {
                    /// `(C_OUT, C_IN, K, K)` or `(OUT, IN)`
                    pub weight:
                        Weight<f32, { OUTPUT[0] }, { INPUT[0] }, { LAYER.kernel }, { LAYER.input_len() }>,
                    /// `(C_OUT)` or `(OUT)`
                    pub bias: [f32; OUTPUT[0]],
                }
            }
        )*

        /// The parameters of all layers. They may be large, so borrow them instead of passing them by value.
        ///
        /// Gradients and Adam's moments also have this type.
        #[derive(Clone, Copy, Debug, PartialEq, $crate::bytemuck::Pod, $crate::bytemuck::Zeroable)]
        #[bytemuck(crate = "lenet_core::bytemuck")]
        #[repr(C)]
        pub struct Params {
            $(
                #[doc = concat!("The parameters of `", stringify!($layer), "`.")]
                pub $layer: $layer::Params
            ),*
        }

        /// The number of parameters.
        #[allow(dead_code)]
        pub const NUM_PARAMS: usize = ::core::mem::size_of::<Params>() / ::core::mem::size_of::<f32>();

        #[allow(dead_code)]
        impl Params {
            /// Parameters that are all zero.
            pub const ZERO: Self = $crate::bytemuck::zeroed();

            /// Returns all parameters as one flat array, in the order of [`TENSORS`].
            pub fn as_flat(&self) -> &[f32; NUM_PARAMS] {
                $crate::bytemuck::must_cast_ref(self)
            }

            /// Returns all parameters as one mutable flat array.
            pub fn as_flat_mut(&mut self) -> &mut [f32; NUM_PARAMS] {
                $crate::bytemuck::must_cast_mut(self)
            }
        }

        /// The fields of [`Params`] in order. The bias of a layer follows its weight.
        #[allow(dead_code)]
        pub const TENSORS: [$crate::plan::Tensor; 2 * LAYERS.len()] = $crate::plan::tensors(
            &LAYERS,
            &[$([
                concat!(stringify!($layer), "_weight"),
                concat!(stringify!($layer), "_bias"),
            ]),*],
        );

        const _: () = $crate::plan::agree(
            &TENSORS,
            [$([
                ::core::mem::offset_of!(Params, $layer.weight),
                ::core::mem::offset_of!(Params, $layer.bias),
            ]),*],
        );

        /// The fingerprint that identifies the network in a weights file.
        #[allow(dead_code)]
        pub const FINGERPRINT: u64 = $crate::plan::fingerprint(&LAYERS);

        /// The number of classes, which is the number of outputs of the last layer.
        #[allow(dead_code)]
        pub const CLASSES: usize = LAYERS[LAYERS.len() - 1].output[0];
        /// The channels of the input: 1 (grayscale) or 3 (red, green and blue).
        #[allow(dead_code)]
        pub const CHANNELS: usize = LAYERS[0].input[0];
        /// The rows of the input.
        pub const HEIGHT: usize = LAYERS[0].input[1];
        /// The columns of the input.
        pub const WIDTH: usize = LAYERS[0].input[2];

        /// The input of the first layer, `(C, H, W)`: values in 0..=1.
        pub type Image<T = f32> = [[[T; WIDTH]; HEIGHT]; CHANNELS];
        /// An image of pixels as stored and sent, `(C, H, W)`: values in 0..=255.
        #[allow(dead_code)]
        pub type Pixels = Image<u8>;
        /// The outputs of the last layer: one unnormalized log-probability per class.
        pub type Logits<T = f32> = [T; CLASSES];

        /// The outputs of all layers for one image, which are the only memory that the forward pass needs besides its stack.
        ///
        /// Each layer has its own memory, so that you can compare two machines layer by layer.
        #[derive(Clone, Copy, Debug, PartialEq, $crate::bytemuck::Pod, $crate::bytemuck::Zeroable)]
        #[bytemuck(crate = "lenet_core::bytemuck")]
        #[repr(C)]
        pub struct Activations {
            $(
                #[doc = concat!("The output of `", stringify!($layer), "`, after pooling and activation.")]
                pub $layer: $layer::Output
            ),*
        }

        #[allow(dead_code)]
        impl Activations {
            /// Returns zeroed memory.
            #[allow(clippy::new_without_default)]
            pub const fn new() -> Self {
                Self {
                    $($layer: $crate::layer::$kind::zeros()),*
                }
            }

            /// Returns the outputs of the layers in order, each as a flat slice.
            pub fn layers(&self) -> [&[f32]; LAYERS.len()] {
                [$($crate::bytemuck::must_cast_slice(::core::slice::from_ref(&self.$layer))),*]
            }
        }

        /// The network as a type.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(dead_code)]
        pub struct Net;

        impl $crate::Network for Net {
            const NAME: &'static str = NAME;
            const NUMBERS: $crate::Numbers = $crate::Numbers::F32;
            const LAYERS: &'static [$crate::plan::Layer] = &LAYERS;
            const TENSORS: &'static [$crate::plan::Tensor] = &TENSORS;
            const FINGERPRINT: u64 = FINGERPRINT;
            const TEST_IMAGE: &'static Image =
                &$crate::image::grey(&$crate::self_test::pixels::<CHANNELS, HEIGHT, WIDTH>());

            type Params = Params;
            type Activations = Activations;
            type Image = Image;
            type Pixels = Pixels;
            type Logits = Logits;

            #[cfg_attr(not(target_os = "none"), inline(always))]
            fn forward<'a>(params: &Params, image: &Image, act: &'a mut Activations) -> &'a Logits {
                forward(params, image, act)
            }

            fn write_image(pixels: &Pixels, image: &mut Image) {
                $crate::image::write_grey(pixels, image);
            }

            fn outputs(act: &Activations, layer: usize) -> Option<$crate::Outputs<'_>> {
                let layers = [$( $crate::Outputs::of(::core::slice::from_ref(&act.$layer)) ),*];
                layers.get(layer).copied()
            }

            fn unusable(params: &Params) -> Option<(&'static str, usize)> {
                $crate::plan::first_not_finite(&TENSORS, params.as_flat())
            }
        }

        $crate::int8_network! { $( $layer: $kind ),* }

        /// Computes the logits of one image by applying every layer in order.
        ///
        /// # Numerics
        /// Gives the same bits on every target. Each kernel documents the order of its sums.
        #[cfg_attr(not(target_os = "none"), inline(always))]
        #[allow(dead_code)]
        pub fn forward<'a>(params: &Params, image: &Image, act: &'a mut Activations) -> &'a Logits {
            let x = image;
            $(
                // A linear layer gets the maps of a convolution as a flat array.
                let x: &$layer::Input = $crate::bytemuck::must_cast_ref(x);
                $crate::layer::$kind::forward(
                    $layer::This,
                    x,
                    &params.$layer.weight,
                    &params.$layer.bias,
                    &mut act.$layer,
                );
                let x = &act.$layer;
            )*
            $crate::bytemuck::must_cast_ref(x)
        }

        /// Computes the layers in order like [`forward`], and calls `between` with the index of each layer after it.
        ///
        /// Use this function to measure layers one by one. The layers are not inlined, and so are compiled separately.
        #[allow(dead_code)]
        pub fn forward_by_layer(
            params: &Params,
            image: &Image,
            act: &mut Activations,
            mut between: impl FnMut(usize),
        ) {
            $(
                #[inline(never)]
                fn $layer(input: &$layer::Input, params: &$layer::Params, out: &mut $layer::Output) {
                    $crate::layer::$kind::forward($layer::This, input, &params.weight, &params.bias, out);
                }
            )*
            let x = image;
            $(
                $layer($crate::bytemuck::must_cast_ref(x), &params.$layer, &mut act.$layer);
                between(Index::$layer as usize);
                let x = &act.$layer;
            )*
            let _ = x;
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_counted_and_read_in_pages() {
        let (floats, bytes) = ([[1.5f32, -2.0], [3.0, 0.25]], [7u8, 255, 0]);
        let floats = Outputs::of(&floats);
        assert_eq!((floats.len(), floats.is_empty()), (4, false));
        assert!(floats.iter().eq([1.5, -2.0, 3.0, 0.25]));
        assert_eq!(floats.page(3, 2), Some(&0.25f32.to_le_bytes()[..]));
        assert_eq!(floats.page(0, 2).map(<[u8]>::len), Some(8));
        assert_eq!(floats.page(4, 1), None);
        assert_eq!(floats.page(usize::MAX, 1), None);
        let bytes = Outputs::of(&bytes);
        assert_eq!(bytes.len(), 3);
        assert!(bytes.iter().eq([7.0, 255.0, 0.0]));
        assert_eq!(bytes.page(1, 1), Some(&[255][..]));
        assert!(Outputs::of::<f32>(&[]).is_empty());
    }
}
