//! The networks of the tests, each in its own module: unusual ones, which together use everything that a description can express,
//! those of `lenet-core/networks`, and the one that `LENET_NETWORK` names.

use lenet_training::cpu;

/// A network with the gradient of the reference backend and the passes of the CPU backend.
pub trait Case: cpu::Network {
    /// Adds the gradient of one image's loss to `grads`, and returns the loss.
    fn gradient(
        params: &Self::Params,
        image: &Self::Image,
        label: u8,
        scale: f32,
        grads: &mut Self::Params,
    ) -> f32;
}

/// Expands a description to everything that is derived from it.
macro_rules! network {
    ($($description:tt)*) => {
        lenet_core::network! { $($description)* }
        lenet_training::gradient! { $($description)* }
        lenet_training::passes! { $($description)* }

        impl $crate::networks::Case for Net {
            fn gradient(
                params: &Params,
                image: &Image,
                label: u8,
                scale: f32,
                grads: &mut Params,
            ) -> f32 {
                image_gradient(params, image, label, scale, grads).loss
            }
        }
    };
}

/// Defines a module for each network, and a macro that calls a generic function for each of them.
macro_rules! networks {
    ($( #[doc = $doc:literal] $name:ident $body:tt )*) => {
        $(
            #[doc = $doc]
            #[allow(missing_docs)]
            pub mod $name {
                network! $body
            }
        )*

        /// Calls a generic function for each network of this module: `for_each_network!(check)`. The network that `LENET_NETWORK`
        /// names replaces `lenet`, which is the default.
        #[macro_export]
        macro_rules! for_each_network {
            ($check:ident) => {
                $( $check::<$crate::networks::$name::Net>(); )*
                $crate::for_each_shipped_network!($check, selected);
            };
        }
    };
}

/// Calls a generic function for each network of `lenet-core/networks`, or with another one in the place of `lenet`.
#[macro_export]
macro_rules! for_each_shipped_network {
    ($check:ident) => {
        $crate::for_each_shipped_network!($check, lenet);
    };
    ($check:ident, $first:ident) => {
        $check::<$crate::networks::$first::Net>();
        $check::<$crate::networks::lenet_d2l::Net>();
        $check::<$crate::networks::relu::Net>();
        $check::<$crate::networks::color::Net>();
        $check::<$crate::networks::tiny::Net>();
    };
}

networks! {
    #[doc = "Softmax regression: one linear layer, the fewest classes."]
    regression {
        name: "regression",
        input: [1, 5, 7],
        fc1: linear { outputs: 2 },
    }
    #[doc = "The most classes, two linear layers, one unit between them."]
    narrow {
        name: "narrow",
        input: [1, 6, 6],
        fc1: linear { outputs: 1, activation: Tanh },
        fc2: linear { outputs: 64 },
    }
    #[doc = "Kernels of 1, colour, no pooling, no activation."]
    pointwise {
        name: "pointwise",
        input: [3, 4, 9],
        conv1: conv2d { maps: 5, kernel: 1 },
        fc1: linear { outputs: 3 },
    }
    #[doc = "Kernels of 7 with the most padding, unequal sides, ReLU without pooling."]
    wide {
        name: "wide",
        input: [1, 9, 20],
        conv1: conv2d { maps: 3, kernel: 7, padding: 3, activation: Relu },
        fc1: linear { outputs: 5 },
    }
    #[doc = "Windows of 3 of both kinds, even kernels."]
    thirds {
        name: "thirds",
        input: [3, 11, 17],
        conv1: conv2d { maps: 4, kernel: 2, padding: 1, pool: Max(3), activation: Tanh },
        conv2: conv2d { maps: 7, kernel: 4, padding: 2, activation: Sigmoid },
        fc1: linear { outputs: 9 },
    }
    #[doc = "Average pooling over windows of 3 with ReLU; one map."]
    one_map {
        name: "one-map",
        input: [1, 10, 13],
        conv1: conv2d { maps: 1, kernel: 2, activation: Relu, pool: Average(3) },
        fc1: linear { outputs: 4 },
    }
    #[doc = "Winograd's sizes for the second layer's kernels, another number of maps."]
    maps {
        name: "maps",
        input: [1, 28, 28],
        conv1: conv2d { maps: 8, kernel: 5, pool: Max(2), activation: Sigmoid },
        conv2: conv2d { maps: 12, kernel: 5, pool: Max(2), activation: Tanh },
        fc1: linear { outputs: 26 },
    }
    #[doc = "Kernels of 5 on an input of another size, without an activation."]
    square {
        name: "square",
        input: [1, 32, 32],
        conv1: conv2d { maps: 6, kernel: 5, pool: Max(2) },
        conv2: conv2d { maps: 16, kernel: 5, pool: Average(2), activation: Relu },
        fc1: linear { outputs: 120, activation: Sigmoid },
        fc2: linear { outputs: 47 },
    }
    #[doc = "Three convolutions without pooling, kernels of 3 and 6."]
    deep {
        name: "deep",
        input: [1, 14, 11],
        conv1: conv2d { maps: 4, kernel: 3, activation: Relu },
        conv2: conv2d { maps: 6, kernel: 3, padding: 1, activation: Sigmoid },
        conv3: conv2d { maps: 5, kernel: 6, padding: 1, pool: Max(3), activation: Relu },
        fc1: linear { outputs: 13, activation: Relu },
        fc2: linear { outputs: 7, activation: Tanh },
        fc3: linear { outputs: 3 },
    }
    #[doc = "The smallest image there is."]
    pixel {
        name: "pixel",
        input: [3, 1, 1],
        conv1: conv2d { maps: 2, kernel: 3, padding: 1, activation: Sigmoid },
        fc1: linear { outputs: 2 },
    }
    #[doc = "One row."]
    row {
        name: "row",
        input: [1, 1, 64],
        conv1: conv2d { maps: 3, kernel: 3, padding: 1, activation: Relu },
        fc1: linear { outputs: 10 },
    }
    #[doc = "Layers whose names are words of Rust's libraries."]
    named {
        name: "named",
        input: [1, 8, 8],
        core: conv2d { maps: 2, kernel: 3, pool: Max(2), activation: Relu },
        x: linear { outputs: 6, activation: Sigmoid },
        out: linear { outputs: 2 },
    }
}

/// The networks of `lenet-core/networks`.
#[path = "../../../lenet-core/networks/color.rs"]
#[allow(missing_docs)]
pub mod color;
#[path = "../../../lenet-core/networks/lenet.rs"]
#[allow(missing_docs)]
pub mod lenet;
#[path = "../../../lenet-core/networks/lenet-d2l.rs"]
#[allow(missing_docs)]
pub mod lenet_d2l;
#[path = "../../../lenet-core/networks/relu.rs"]
#[allow(missing_docs)]
pub mod relu;
#[path = "../../../lenet-core/networks/tiny.rs"]
#[allow(missing_docs)]
pub mod tiny;

/// The network that `LENET_NETWORK` names, or else `lenet`.
#[allow(missing_docs)]
pub mod selected {
    lenet_core::description!(network);
}
