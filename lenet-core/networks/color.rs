//! A network for 32 x 32 colour images: three padded convolutions, both kinds of pooling, twelve classes.

network! {
    name: "color",
    input: [3, 32, 32],
    conv1: conv2d { maps: 8, kernel: 3, padding: 1, pool: Max(2), activation: Relu },
    conv2: conv2d { maps: 13, kernel: 3, padding: 1, activation: Tanh },
    conv3: conv2d { maps: 16, kernel: 3, padding: 1, activation: Tanh, pool: Average(2) },
    dense: linear { outputs: 40, activation: Tanh },
    classes: linear { outputs: 12 },
}
