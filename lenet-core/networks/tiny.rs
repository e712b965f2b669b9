//! A network for small flash: at most 10,000 parameters, and 5,416 bytes of outputs, so that a micro:bit v1 has room for them.

network! {
    name: "tiny",
    input: [1, 28, 28],
    conv1: conv2d { maps: 6, kernel: 5, pool: Max(2), activation: Relu },
    conv2: conv2d { maps: 30, kernel: 5, pool: Max(2), activation: Relu },
    fc1: linear { outputs: 10 },
}
