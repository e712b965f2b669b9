//! A network for little memory: at most 10,000 parameters, and 5,416 bytes of outputs, which fit into a micro:bit v1's RAM.

network! {
    name: "tiny",
    input: [1, 28, 28],
    conv1: conv2d { maps: 6, kernel: 5, pool: Max(2), activation: Relu },
    conv2: conv2d { maps: 30, kernel: 5, pool: Max(2), activation: Relu },
    fc1: linear { outputs: 10 },
}
