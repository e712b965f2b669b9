//! A network for small flash: at most 10,000 parameters.

network! {
    name: "tiny",
    input: [1, 28, 28],
    conv1: conv2d { maps: 8, kernel: 5, pool: Max(2), activation: Relu },
    conv2: conv2d { maps: 32, kernel: 3, pool: Max(2), activation: Relu },
    conv3: conv2d { maps: 40, kernel: 2, pool: Max(2), activation: Relu },
    fc1: linear { outputs: 10 },
}
