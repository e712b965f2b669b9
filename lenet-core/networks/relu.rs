//! LeNet with ReLU in place of the sigmoid. It needs no exponentials and trains faster.

network! {
    name: "relu",
    input: [1, 28, 28],
    conv1: conv2d { maps: 6, kernel: 5, pool: Max(2), activation: Relu },
    conv2: conv2d { maps: 16, kernel: 5, pool: Max(2), activation: Relu },
    fc1: linear { outputs: 120, activation: Relu },
    fc2: linear { outputs: 84, activation: Relu },
    fc3: linear { outputs: 10 },
}
