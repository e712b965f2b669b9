//! The part of [`network!`](crate::network!) that generates the int8 form of a network.

/// Generates the module `int8` inside the module of a network. [`network!`](crate::network!) invokes this macro.
#[doc(hidden)]
#[macro_export]
macro_rules! int8_network {
    ($( $layer:ident: $kind:ident ),*) => {
        /// The network in 8-bit integers: see [`lenet_core::int8`].
        #[allow(dead_code)]
        pub mod int8 {
            use super::{CHANNELS, HEIGHT, LAYERS, WIDTH};
            pub use super::{Logits, Pixels};

            #[allow(non_camel_case_types)]
            enum Index { $($layer),* }

            $(
                #[doc = concat!("The layer `", stringify!($layer), "`.")]
                pub mod $layer {
                    use super::super::LAYERS;
                    use $crate::int8::{Choose, Finish, IsLast, filling};
                    use $crate::layer::$kind::{Array, Weight};

                    const INDEX: usize = super::Index::$layer as usize;
                    /// The layer.
                    pub const LAYER: $crate::plan::Layer = LAYERS[INDEX];
                    const INPUT: [usize; 3] = LAYER.input;
                    const OUTPUT: [usize; 3] = LAYER.output;
                    const LAST: bool = INDEX + 1 == LAYERS.len();
                    const STEPS: usize = if LAST { 0 } else { 1 };
                    const SCRATCH: usize = $crate::int8::pairs::scratch(&LAYER);
                    const FILLING: usize = filling(LAYER.weight_len());

                    /// The layer as a type, for the kernels.
                    #[derive(Clone, Copy, Debug)]
                    pub struct This;

                    impl $crate::layer::Layered for This {
                        const LAYER: $crate::plan::Layer = LAYER;
                    }

                    impl $crate::int8::Quantized for This {
                        const INPUT_ZERO: u8 = $crate::int8::input_zero(&LAYERS, INDEX);
                        type Finish = <IsLast<LAST> as Choose>::Finish;
                        type Scratch = [u32; SCRATCH];
                    }

                    /// The input of the layer.
                    pub type Input =
                        Array<u8, { INPUT[0] }, { INPUT[1] }, { INPUT[2] }, { LAYER.input_len() }>;
                    /// The type of an output: a byte, or an f32 in the last layer.
                    pub type Value = <<IsLast<LAST> as Choose>::Finish as Finish>::Out;
                    /// The output of the layer, after pooling and activation.
                    pub type Output =
                        Array<Value, { OUTPUT[0] }, { OUTPUT[1] }, { OUTPUT[2] }, { LAYER.output_len() }>;

                    /// The parameters of the layer.
                    #[derive(
                        Clone, Copy, Debug, PartialEq, $crate::bytemuck::Pod, $crate::bytemuck::Zeroable,
                    )]
                    #[bytemuck(crate = "lenet_core::bytemuck")]
                    #[repr(C)]
                    pub struct Params {
                        /// The value of one step of an output byte; empty in the last layer. The kernels do not read it.
                        pub step: [f32; STEPS],
                        /// The bias of each output channel, in units of its sums.
                        pub bias: [i32; OUTPUT[0]],
                        /// The numbers that convert the sums of each output channel to bytes, or to logits in the last layer.
                        pub finish: [<IsLast<LAST> as Choose>::Finish; OUTPUT[0]],
                        /// `(C_OUT, C_IN, K, K)` or `(OUT, IN)`, each weight plus 128.
                        pub weight:
                            Weight<u8, { OUTPUT[0] }, { INPUT[0] }, { LAYER.kernel }, { LAYER.input_len() }>,
                        /// Zeros that pad the parameters to a multiple of four bytes.
                        pub filling: [u8; FILLING],
                    }
                }
            )*

            /// The parameters of all layers. They may be large, so borrow them instead of passing them by value.
            #[derive(Clone, Copy, Debug, PartialEq, $crate::bytemuck::Pod, $crate::bytemuck::Zeroable)]
            #[bytemuck(crate = "lenet_core::bytemuck")]
            #[repr(C)]
            pub struct Params {
                $(
                    #[doc = concat!("The parameters of `", stringify!($layer), "`.")]
                    pub $layer: $layer::Params
                ),*
            }

            /// The input of the first layer: the pixels as stored and sent.
            pub type Image = Pixels;

            /// The outputs of all layers for one image, which are the only memory that the forward pass needs besides its stack.
            #[derive(Clone, Copy, Debug, PartialEq, $crate::bytemuck::Zeroable)]
            #[bytemuck(crate = "lenet_core::bytemuck")]
            pub struct Activations {
                $(
                    #[doc = concat!("The output of `", stringify!($layer), "`, after pooling and activation.")]
                    pub $layer: $layer::Output
                ),*
            }

            impl Activations {
                /// Returns zeroed memory.
                #[allow(clippy::new_without_default)]
                pub const fn new() -> Self {
                    $crate::bytemuck::zeroed()
                }

                /// Returns the outputs of the layers in order.
                pub fn layers(&self) -> [$crate::Outputs<'_>; LAYERS.len()] {
                    [$( $crate::Outputs::of(::core::slice::from_ref(&self.$layer)) ),*]
                }
            }

            /// The network as a type.
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub struct Net;

            impl $crate::Network for Net {
                const NAME: &'static str = super::NAME;
                const NUMBERS: $crate::Numbers = $crate::Numbers::Int8;
                const LAYERS: &'static [$crate::plan::Layer] = &LAYERS;
                const TENSORS: &'static [$crate::plan::Tensor] = &super::TENSORS;
                const FINGERPRINT: u64 = super::FINGERPRINT;
                const TEST_IMAGE: &'static Image =
                    &$crate::self_test::pixels::<CHANNELS, HEIGHT, WIDTH>();

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
                    *image = *pixels;
                }

                fn outputs(act: &Activations, layer: usize) -> Option<$crate::Outputs<'_>> {
                    act.layers().get(layer).copied()
                }

                fn unusable(params: &Params) -> Option<(&'static str, usize)> {
                    $crate::int8::unusable::<Self>(params)
                }
            }

            impl $crate::int8::Quantizable for super::Net {
                type Int8 = Net;
            }

            impl $crate::int8::Int8 for Net {
                fn layer(params: &Params, index: usize) -> Option<$crate::int8::LayerParams<'_>> {
                    $(
                        if index == Index::$layer as usize {
                            let params = &params.$layer;
                            return Some($crate::int8::LayerParams {
                                step: params.step.first().copied().unwrap_or(1.0),
                                bias: &params.bias,
                                finish: $crate::int8::Finish::known(&params.finish),
                                weight: $crate::bytemuck::must_cast_slice(
                                    ::core::slice::from_ref(&params.weight),
                                ),
                            });
                        }
                    )*
                    None
                }

                fn layer_mut(
                    params: &mut Params,
                    index: usize,
                ) -> Option<$crate::int8::LayerParamsMut<'_>> {
                    $(
                        if index == Index::$layer as usize {
                            let params = &mut params.$layer;
                            return Some($crate::int8::LayerParamsMut {
                                step: &mut params.step,
                                bias: &mut params.bias,
                                finish: $crate::int8::Finish::known_mut(&mut params.finish),
                                weight: $crate::bytemuck::must_cast_slice_mut(
                                    ::core::slice::from_mut(&mut params.weight),
                                ),
                            });
                        }
                    )*
                    None
                }
            }

            /// Computes the logits of one image by applying every layer in order.
            ///
            /// # Numerics
            /// Gives the same integers, and therefore the same bits of the logits, on every target.
            #[cfg_attr(not(target_os = "none"), inline(always))]
            pub fn forward<'a>(params: &Params, image: &Image, act: &'a mut Activations) -> &'a Logits {
                let x = image;
                $(
                    // A linear layer gets the maps of a convolution as a flat array.
                    let x: &$layer::Input = $crate::bytemuck::must_cast_ref(x);
                    $crate::int8::$kind::forward(
                        $layer::This,
                        x,
                        &params.$layer.weight,
                        &params.$layer.bias,
                        &params.$layer.finish,
                        &mut act.$layer,
                    );
                    let x = &act.$layer;
                )*
                $crate::bytemuck::must_cast_ref(x)
            }

            /// Computes the layers in order like [`forward`], and calls `between` with the index of each layer after it.
            ///
            /// Use this function to measure layers one by one. The layers are not inlined, and so are compiled separately.
            pub fn forward_by_layer(
                params: &Params,
                image: &Image,
                act: &mut Activations,
                mut between: impl FnMut(usize),
            ) {
                $(
                    #[inline(never)]
                    fn $layer(input: &$layer::Input, params: &$layer::Params, out: &mut $layer::Output) {
                        $crate::int8::$kind::forward(
                            $layer::This,
                            input,
                            &params.weight,
                            &params.bias,
                            &params.finish,
                            out,
                        );
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
        }
    };
}
