//! LeNet as most courses teach it: sigmoid activations and maximum pooling, 44,426 parameters.

network! {
    name: "lenet",
    input: [1, 28, 28],
    conv1: conv2d { maps: 6, kernel: 5, pool: Max(2), activation: Sigmoid },
    conv2: conv2d { maps: 16, kernel: 5, pool: Max(2), activation: Sigmoid },
    fc1: linear { outputs: 120, activation: Sigmoid },
    fc2: linear { outputs: 84, activation: Sigmoid },
    fc3: linear { outputs: 10 },
}
