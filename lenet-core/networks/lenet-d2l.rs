//! LeNet as in the English edition of "Dive into Deep Learning": padding and average pooling, 61,706 parameters.

network! {
    name: "lenet-d2l",
    input: [1, 28, 28],
    conv1: conv2d { maps: 6, kernel: 5, padding: 2, activation: Sigmoid, pool: Average(2) },
    conv2: conv2d { maps: 16, kernel: 5, activation: Sigmoid, pool: Average(2) },
    fc1: linear { outputs: 120, activation: Sigmoid },
    fc2: linear { outputs: 84, activation: Sigmoid },
    fc3: linear { outputs: 10 },
}
