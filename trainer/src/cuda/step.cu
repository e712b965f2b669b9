// One training step of a network in two kernels, and the forward pass alone in a third.
//
//   gradients  a block for GROUP images: forward, loss, every gradient by an activation, and the gradient by the
//              convolutions' parameters, summed over the block's images
//   update     the linear layers' gradients as tiles over the batch, the convolutions' partial sums added up, and Adam,
//              each parameter by one thread
//   logits     a block for GROUP images: forward
//
// Where devices share a batch, two kernels stand in for `update`, and the devices' gradients are added up in between:
//
//   sum_gradients  as `update` up to Adam, over the device's images
//   adam           Adam, a thread a parameter
//
// and where there is a mean of the parameters, one ends the step:
//
//   average        the parameters into it, a thread a parameter
//
// Every sum has a fixed order and there are no atomics, so that two runs give the same bits. Two kernels, because the
// whole batch must be through the first before the second may change a parameter; what crosses is a trace an image.
//
// The network is LAYERS, a table that layout.rs writes before this text from the description, with the other constants: the
// sizes of each layer, the index of its parameters, and where its values and gradients lie in a block's memory. The kernels
// are templates on the number L of a layer, in which its row of the table is constant.
//
// Left out: launches, buffers, the order of steps (engine.rs). The arithmetic is that of trainer/training/src/reference, which is
// easier to read.
//
// Shapes are in the types; n counts images of the block, the rest is as in lenet_core. A layer's gradient is that by its
// output before pooling and activation.

#ifndef CUDA_HOST // The host build of tests/cuda-host says otherwise.
#define EXPORT extern "C" __global__
#define SHARED(type, name) __shared__ type name
#define SHARED_AT_LAUNCH(name)                                                                                         \
    extern __shared__ float4 shared[];                                                                                 \
    float *const name = reinterpret_cast<float *>(shared)
#define KERNEL(name, bytes)
typedef unsigned char uint8_t;
#endif
#define DEVICE __device__ __forceinline__

constexpr unsigned LANES = 32;
constexpr unsigned WARPS = THREADS / LANES;
constexpr unsigned ALL_LANES = 0xffffffff;
static_assert(THREADS % LANES == 0, "whole warps, so that shuffles have all their lanes");
static_assert(THREADS >= GROUP * LANES, "a warp for the loss of each image");

enum Kind { CONV2D, LINEAR };
enum Pool { WHOLE, MAX, AVERAGE };
enum Activation { IDENTITY, SIGMOID, TANH, RELU };

// A layer, lenet_core::plan::Layer; shapes are (C, H, W). Then the index of its parameters among all, and where something
// begins: in a block's memory and in a trace, both in floats.
struct Layer {
    Kind kind;
    unsigned input[3], kernel, padding;
    Pool pool;
    unsigned window;
    Activation activation;
    unsigned output[3];
    unsigned weight, bias;
    unsigned values, winners, weights, grads; // Its output; of each window the largest; the convolution's weight; gradient.
    unsigned trace_input, trace_grad;
};
constexpr Layer layers[] = {LAYERS};
constexpr unsigned NUM_LAYERS = sizeof(layers) / sizeof(Layer);
constexpr unsigned CLASSES = layers[NUM_LAYERS - 1].output[0];
constexpr unsigned NUM_PARAMS = layers[NUM_LAYERS - 1].bias + CLASSES;

// Layers before the linear ones, and the number of their parameters, whose gradients are added up by block.
__device__ constexpr unsigned convolutions() {
    unsigned count = 0;
    while (layers[count].kind == CONV2D)
        count++;
    return count;
}
constexpr unsigned CONVOLUTIONS = convolutions(), CONV_PARAMS = layers[CONVOLUTIONS].weight;

// Where a part of an epoch takes its images from: dataset::Permutation, whose half_bits is 0 for the order of the file,
// the position in it at which the part begins, and dataset::Augment, if `augment` is not 0.
struct Epoch {
    unsigned len, half_bits, keys[ROUNDS];
    unsigned first, augment, augment_keys[2];
};
static_assert(sizeof(Epoch) == EPOCH_WORDS * sizeof(unsigned), "as many as epoch_words hands in");

// adam::Coefficients of one step.
struct __align__(16) Coefficients {
    float keep1, beta2, keep2, step_size, scale2, eps, kept, keep_mean;
};
static_assert(sizeof(Coefficients) == COEFFICIENTS * sizeof(float), "as many as coefficient_words hands in");

// What `update` needs of an image: what each linear layer took, and its gradient.
struct __align__(16) Trace {
    float at[TRACE_LEN];
};
static_assert(sizeof(Trace) == TRACE_LEN * sizeof(float), "traces are read as float4");

// An image of the block, at the start of its memory, and how dataset::Augment moves it. A block with too few images repeats
// its first, without effect.
struct __align__(16) Source {
    unsigned index;
    int down, right, mirrored;
};
static_assert(IMAGE_AT * sizeof(float) == GROUP * sizeof(Source), "the images' values are next");

// The values that layer L takes: the image, or the output of the layer before, with the zeros around that pad them.
template <unsigned L> struct Values {
    static __device__ constexpr unsigned shape(unsigned i) { return L < NUM_LAYERS ? layers[L % NUM_LAYERS].input[i] : layers[NUM_LAYERS - 1].output[i]; }
    static constexpr unsigned C = shape(0), H = shape(1), W = shape(2), LEN = C * H * W;
    static constexpr unsigned PADDING = L < CONVOLUTIONS ? layers[L % NUM_LAYERS].padding : 0;
    static constexpr unsigned AT = L == 0 ? IMAGE_AT : layers[L == 0 ? 0 : L - 1].values;
    typedef float Maps[GROUP][C][H + 2 * PADDING][W + 2 * PADDING];
    typedef float Vectors[GROUP][LEN];
    static_assert(AT % 4 == 0 && AT * sizeof(float) + sizeof(Maps) <= LOGITS_BYTES, "vectors are read as float4");
};
template <unsigned L> DEVICE typename Values<L>::Maps &maps(float *memory) {
    return *reinterpret_cast<typename Values<L>::Maps *>(memory + Values<L>::AT);
}
template <unsigned L> DEVICE typename Values<L>::Vectors &vectors(float *memory) {
    static_assert(Values<L>::PADDING == 0, "no zeros in between");
    return *reinterpret_cast<typename Values<L>::Vectors *>(memory + Values<L>::AT);
}

// A convolution.
template <unsigned L> struct Conv2d {
    static_assert(layers[L].kind == CONV2D, "the number of a convolution");
    static constexpr unsigned C_IN = layers[L].input[0], C_OUT = layers[L].output[0], K = layers[L].kernel;
    static constexpr unsigned N = layers[L].window, AREA = N * N;
    static constexpr unsigned OUT_H = layers[L].output[1], OUT_W = layers[L].output[2], H = N * OUT_H, W = N * OUT_W;
    static_assert(H + K == layers[L].input[1] + 2 * layers[L].padding + 1 && W + K == layers[L].input[2] + 2 * layers[L].padding + 1,
                  "whole windows");
    // The first layer's gradient under a maximum is kept by window: nothing needs the zeros in between.
    static constexpr bool BY_WINDOW = L == 0 && layers[L].pool == MAX;
    struct Map {
        float at[H][W];
        float padding[4]; // So that threads that read four floats each of different maps use different banks.
    };
    typedef float Weight[C_OUT][C_IN][K][K];
    typedef uint8_t Winners[GROUP][C_OUT][OUT_H][OUT_W]; // Which of its window's outputs, numbered in row order, is largest.
    typedef Map Grads[GROUP][C_OUT];
    typedef float WindowGrads[GROUP][C_OUT][OUT_H][OUT_W];
    static_assert(layers[L].grads % 4 == 0 && layers[L].weights % 4 == 0, "rows are read as float4");
    static_assert(layers[L].weights * sizeof(float) + sizeof(Weight) <= LOGITS_BYTES, "it lies in the block's memory");
    static_assert(layers[L].winners * sizeof(float) + sizeof(Winners) * (layers[L].pool == MAX) <= GRADIENTS_BYTES, "as does this");
    static_assert(layers[L].grads * sizeof(float) + (BY_WINDOW ? sizeof(WindowGrads) : sizeof(Grads)) <= GRADIENTS_BYTES, "and this");

    static DEVICE Weight &weight(float *memory) { return *reinterpret_cast<Weight *>(memory + layers[L].weights); }
    static DEVICE Winners &winners(float *memory) { return *reinterpret_cast<Winners *>(memory + layers[L].winners); }
    static DEVICE Grads &grads(float *memory) { return *reinterpret_cast<Grads *>(memory + layers[L].grads); }
    static DEVICE WindowGrads &window_grads(float *memory) { return *reinterpret_cast<WindowGrads *>(memory + layers[L].grads); }

    // Maps that a thread computes at a time, as registers allow.
    static constexpr unsigned MAPS = C_OUT % 2 == 0 && (K + N - 1) * (K + N - 1) + 2 * AREA <= 64 ? 2 : 1;
};

// A linear layer. Its rows are read four floats at a time where they begin at multiples of four.
template <unsigned L> struct Linear {
    static_assert(layers[L].kind == LINEAR, "the number of a linear layer");
    static constexpr unsigned IN = Values<L>::LEN, OUT = layers[L].output[0];
    static constexpr unsigned WIDTH = IN % 4 == 0 && layers[L].weight % 4 == 0 ? 4 : 1;
    typedef float Grads[GROUP][OUT];
    static_assert(layers[L].trace_input % 4 == 0, "traces are read as float4");
    static_assert(layers[L].trace_input + IN <= TRACE_LEN && layers[L].trace_grad + OUT <= TRACE_LEN, "they lie in the trace");
    static_assert(layers[L].grads * sizeof(float) + sizeof(Grads) <= GRADIENTS_BYTES, "they lie in the block's memory");
    static DEVICE Grads &grads(float *memory) { return *reinterpret_cast<Grads *>(memory + layers[L].grads); }
};

// WIDTH floats as one access.
template <unsigned WIDTH> DEVICE void load(const float *from, float (&to)[WIDTH]) {
    if constexpr (WIDTH == 4) {
        const float4 four = *reinterpret_cast<const float4 *>(from);
        to[0] = four.x;
        to[1] = four.y;
        to[2] = four.z;
        to[3] = four.w;
    } else
        to[0] = from[0];
}

// A bijection; the same function as dataset::order::mix.
DEVICE unsigned mix(unsigned x) {
    x = (x ^ (x >> 16)) * 0x85ebca6b;
    x = (x ^ (x >> 13)) * 0xc2b2ae35;
    return x ^ (x >> 16);
}

// The image at a position of the epoch; the same function as Permutation::index.
DEVICE unsigned order_index(const Epoch &order, unsigned position) {
    if (order.half_bits == 0)
        return position;
    const unsigned mask = (1u << order.half_bits) - 1;
    unsigned x = position;
    do {
        unsigned left = x >> order.half_bits, right = x & mask;
        for (unsigned round = 0; round < ROUNDS; round++) {
            const unsigned mixed = left ^ (mix(right ^ order.keys[round]) & mask);
            left = right;
            right = mixed;
        }
        x = (left << order.half_bits) | right;
    } while (x >= order.len);
    return x;
}

template <Activation ACTIVATION> DEVICE float activation(float x) {
    if constexpr (ACTIVATION == SIGMOID)
        return 1 / (1 + expf(-x));
    if constexpr (ACTIVATION == TANH)
        return tanhf(x);
    if constexpr (ACTIVATION == RELU)
        return x < 0 ? 0 : x; // NaN stays NaN.
    return x;
}

// The derivative by the input, from the output.
template <Activation ACTIVATION> DEVICE float derivative([[maybe_unused]] float y) {
    if constexpr (ACTIVATION == SIGMOID)
        return y * (1 - y);
    if constexpr (ACTIVATION == TANH)
        return 1 - y * y;
    if constexpr (ACTIVATION == RELU)
        return y > 0;
    return 1;
}

// Adds up over lanes whose numbers differ in the bits FROM..TO; all of them get the sum.
template <unsigned FROM, unsigned TO> DEVICE float lane_sum(float x) {
#pragma unroll
    for (unsigned bit = FROM; bit < TO; bit *= 2)
        x += __shfl_xor_sync(ALL_LANES, x, bit);
    return x;
}

// Takes the block's images in; MOVED by the rule of dataset::Augment.
template <bool MOVED> DEVICE void load_images(const uint8_t *images, float *memory) {
    typedef Values<0> Image;
    constexpr unsigned H = Image::H + 2 * Image::PADDING, W = Image::W + 2 * Image::PADDING;
    const Source *sources = reinterpret_cast<const Source *>(memory);
    for (unsigned i = threadIdx.x; i < GROUP * Image::C * H * W; i += THREADS) {
        const unsigned n = i / (Image::C * H * W), c = i / (H * W) % Image::C, y = i / W % H, x = i % W;
        const uint8_t *image = images + sources[n].index * size_t(Image::LEN) + c * (Image::H * Image::W);
        // Below 0 is above every side.
        const unsigned to_y = y - Image::PADDING, to_x = x - Image::PADDING;
        unsigned from_y = to_y, from_x = to_x;
        bool inside = Image::PADDING == 0 || (to_y < Image::H && to_x < Image::W);
        if (MOVED) {
            from_y -= sources[n].down;
            from_x -= sources[n].right;
            inside = inside && from_y < Image::H && from_x < Image::W;
            if (sources[n].mirrored)
                from_x = Image::W - 1 - from_x;
        }
        maps<0>(memory)[n][c][y][x] = inside ? image[from_y * Image::W + from_x] / 255.0f : 0;
    }
}

// Takes the convolutions' weights in, from that of layer L on, and zeros around the values that they pad.
template <unsigned L = 0> DEVICE void load_weights(const float *params, float *memory) {
    if constexpr (L < CONVOLUTIONS) {
        constexpr unsigned LEN = sizeof(typename Conv2d<L>::Weight) / sizeof(float);
        constexpr unsigned WIDTH = LEN % 4 == 0 && layers[L].weight % 4 == 0 ? 4 : 1;
        for (unsigned i = threadIdx.x * WIDTH; i < LEN; i += THREADS * WIDTH) {
            float weight[WIDTH];
            load(&params[layers[L].weight + i], weight);
#pragma unroll
            for (unsigned k = 0; k < WIDTH; k++)
                memory[layers[L].weights + i + k] = weight[k];
        }
        if constexpr (L > 0 && layers[L].padding > 0)
            for (unsigned i = threadIdx.x; i < sizeof(typename Values<L>::Maps) / sizeof(float); i += THREADS)
                memory[Values<L>::AT + i] = 0;
        load_weights<L + 1>(params, memory);
    }
}

// Convolution, pooling, activation; to TRAIN, with what the gradient needs: which outputs are largest, or all of them. A
// thread computes one window of some maps, its input patch in registers.
template <unsigned L, bool TRAIN> DEVICE void conv2d(const float *params, float *memory) {
    typedef Conv2d<L> Conv;
    constexpr unsigned K = Conv::K, N = Conv::N, SIDE = K + N - 1, MAPS = Conv::MAPS, OUT_H = Conv::OUT_H, OUT_W = Conv::OUT_W;
    constexpr unsigned PADDING = Values<L + 1>::PADDING;
    const auto &input = maps<L>(memory);
    const auto &weight = Conv::weight(memory);
    const float *bias = params + layers[L].bias;
    auto &out = maps<L + 1>(memory);
    for (unsigned item = threadIdx.x; item < GROUP * OUT_H * OUT_W * (Conv::C_OUT / MAPS); item += THREADS) {
        const unsigned x = item % OUT_W, y = item / OUT_W % OUT_H, n = item / (OUT_W * OUT_H) % GROUP;
        const unsigned first = item / (OUT_W * OUT_H * GROUP) * MAPS;
        float window[MAPS][Conv::AREA];
#pragma unroll
        for (unsigned c = 0; c < MAPS; c++)
#pragma unroll
            for (unsigned w = 0; w < Conv::AREA; w++)
                window[c][w] = bias[first + c];
#pragma unroll 1
        for (unsigned c_in = 0; c_in < Conv::C_IN; c_in++) {
            float patch[SIDE][SIDE];
#pragma unroll
            for (unsigned i = 0; i < SIDE; i++)
#pragma unroll
                for (unsigned j = 0; j < SIDE; j++)
                    patch[i][j] = input[n][c_in][N * y + i][N * x + j];
#pragma unroll
            for (unsigned c = 0; c < MAPS; c++)
#pragma unroll
                for (unsigned i = 0; i < K; i++)
#pragma unroll
                    for (unsigned j = 0; j < K; j++)
#pragma unroll
                        for (unsigned w = 0; w < Conv::AREA; w++)
                            window[c][w] += patch[i + w / N][j + w % N] * weight[first + c][c_in][i][j];
        }
#pragma unroll
        for (unsigned c = 0; c < MAPS; c++) {
            float pooled = window[c][0];
            if constexpr (layers[L].pool == AVERAGE) {
                pooled = 0;
#pragma unroll
                for (unsigned w = 0; w < Conv::AREA; w++) {
                    const float value = activation<layers[L].activation>(window[c][w]);
                    if (TRAIN)
                        Conv::grads(memory)[n][first + c].at[N * y + w / N][N * x + w % N] = value;
                    pooled += value;
                }
                pooled /= Conv::AREA;
            } else {
                [[maybe_unused]] unsigned best = 0;
#pragma unroll
                for (unsigned w = 1; w < Conv::AREA; w++)
                    if (window[c][w] > pooled) {
                        pooled = window[c][w];
                        best = w;
                    }
                pooled = activation<layers[L].activation>(pooled);
                if constexpr (TRAIN && layers[L].pool == MAX)
                    Conv::winners(memory)[n][first + c][y][x] = best;
            }
            out[n][first + c][y + PADDING][x + PADDING] = pooled;
        }
    }
}

// A linear layer, `out[n][o] = activation(bias[o] + sum of weight[o][i] * input[n][i])`.
// A warp takes eight outputs: four lanes share one, each reads a quarter of its row, and their sums are added.
template <unsigned L> DEVICE void linear(const float *params, float *memory) {
    constexpr unsigned IN = Linear<L>::IN, OUT = Linear<L>::OUT, WIDTH = Linear<L>::WIDTH;
    const auto &input = vectors<L>(memory);
    auto &out = vectors<L + 1>(memory);
    const float *weight = params + layers[L].weight, *bias = params + layers[L].bias;
    const unsigned lane = threadIdx.x % LANES, quarter = lane % 4;
    for (unsigned first = threadIdx.x / LANES * 8; first < OUT; first += WARPS * 8) {
        const unsigned o = first + lane / 4;
        float sum[GROUP] = {};
        auto add = [&](unsigned i) {
            float w[WIDTH];
            load(&weight[o * IN + i], w);
#pragma unroll
            for (unsigned n = 0; n < GROUP; n++) {
                float product = w[0] * input[n][i];
#pragma unroll
                for (unsigned k = 1; k < WIDTH; k++)
                    product += w[k] * input[n][i + k];
                sum[n] += product;
            }
        };
        if (o < OUT) {
            if constexpr (IN <= 64 * WIDTH) {
#pragma unroll
                for (unsigned i = quarter * WIDTH; i < IN; i += 4 * WIDTH)
                    add(i);
            } else {
#pragma unroll 8
                for (unsigned i = quarter * WIDTH; i < IN; i += 4 * WIDTH)
                    add(i);
            }
        }
#pragma unroll
        for (unsigned n = 0; n < GROUP; n++) {
            const float total = lane_sum<1, 4>(sum[n]);
            if (o < OUT && quarter == 0)
                out[n][o] = activation<layers[L].activation>(total + bias[o]);
        }
    }
}

// The forward pass of the block's images, from layer L on.
template <bool TRAIN, unsigned L = 0> DEVICE void forward(const float *params, float *memory) {
    if constexpr (L < NUM_LAYERS) {
        if constexpr (layers[L].kind == CONV2D)
            conv2d<L, TRAIN>(params, memory);
        else
            linear<L>(params, memory);
        __syncthreads();
        forward<TRAIN, L + 1>(params, memory);
    }
}

// Softmax cross-entropy of one image: its loss, whether the largest logit (of equal ones the first) is the label's,
// and the gradient of `scale` times the loss by the logits.
DEVICE void cross_entropy(const float (&logits)[CLASSES], unsigned label, float scale, float (&grad_logits)[CLASSES], float &loss,
                          uint8_t &correct) {
    unsigned best = 0;
    float largest = logits[0];
    for (unsigned k = 1; k < CLASSES; k++)
        if (logits[k] > largest) {
            largest = logits[k];
            best = k;
        }
    float sum = 0;
    for (unsigned k = 0; k < CLASSES; k++)
        sum += grad_logits[k] = expf(logits[k] - largest);
    for (unsigned k = 0; k < CLASSES; k++)
        grad_logits[k] = (grad_logits[k] / sum - (k == label)) * scale;
    loss = logf(sum) - (logits[label] - largest);
    correct = best == label;
}

// Stores the gradient of a convolution, from that by one of its outputs after pooling.
template <unsigned L> DEVICE void store_conv2d_grad(float *memory, unsigned n, unsigned c, unsigned y, unsigned x, float grad) {
    typedef Conv2d<L> Conv;
    constexpr unsigned N = Conv::N, PADDING = Values<L + 1>::PADDING;
    constexpr Activation ACTIVATION = layers[L].activation;
    [[maybe_unused]] const float out = maps<L + 1>(memory)[n][c][y + PADDING][x + PADDING];
    if constexpr (Conv::BY_WINDOW)
        Conv::window_grads(memory)[n][c][y][x] = grad * derivative<ACTIVATION>(out);
    else {
        auto &at = Conv::grads(memory)[n][c].at;
        if constexpr (layers[L].pool == MAX) {
            // To the window's largest output; the others get zero.
            grad *= derivative<ACTIVATION>(out);
            const unsigned winner = Conv::winners(memory)[n][c][y][x];
            for (unsigned w = 0; w < Conv::AREA; w++)
                at[N * y + w / N][N * x + w % N] = w == winner ? grad : 0;
        } else if constexpr (layers[L].pool == AVERAGE) {
            // The forward pass has left the outputs here.
            grad /= Conv::AREA;
            for (unsigned w = 0; w < Conv::AREA; w++) {
                float &place = at[N * y + w / N][N * x + w % N];
                place = grad * derivative<ACTIVATION>(place);
            }
        } else
            at[y][x] = grad * derivative<ACTIVATION>(out);
    }
}

// Stores the gradient of the layer before linear layer L, from that by its output number `i`.
template <unsigned L> DEVICE void store_grad_before(float *memory, unsigned n, unsigned i, float grad) {
    if constexpr (layers[L - 1].kind == CONV2D) {
        constexpr unsigned H = Values<L>::H, W = Values<L>::W;
        store_conv2d_grad<L - 1>(memory, n, i / (H * W), i / W % H, i % W, grad);
    } else
        Linear<L - 1>::grads(memory)[n][i] = grad * derivative<layers[L - 1].activation>(vectors<L>(memory)[n][i]);
}

// The gradient of the layer before, through linear layer L: by input i, `sum of weight[o][i] * grad[n][o]`.
// A warp takes four times WIDTH inputs: four lanes of WIDTH inputs, eight times over, each for an eighth of the outputs.
template <unsigned L> DEVICE void linear_grad_input(const float *params, float *memory) {
    constexpr unsigned IN = Linear<L>::IN, OUT = Linear<L>::OUT, WIDTH = Linear<L>::WIDTH;
    const auto &grads = Linear<L>::grads(memory);
    const float *weight = params + layers[L].weight;
    const unsigned lane = threadIdx.x % LANES, eighth = lane / 4;
    for (unsigned first = threadIdx.x / LANES * (4 * WIDTH); first < IN; first += WARPS * (4 * WIDTH)) {
        const unsigned i = first + lane % 4 * WIDTH;
        float sum[GROUP][WIDTH] = {};
        auto add = [&](unsigned o) {
            float w[WIDTH];
            load(&weight[o * IN + i], w);
#pragma unroll
            for (unsigned n = 0; n < GROUP; n++)
#pragma unroll
                for (unsigned k = 0; k < WIDTH; k++)
                    sum[n][k] += w[k] * grads[n][o];
        };
        if (i < IN) {
            if constexpr (OUT <= 128) {
#pragma unroll
                for (unsigned o = eighth; o < OUT; o += 8)
                    add(o);
            } else {
#pragma unroll 8
                for (unsigned o = eighth; o < OUT; o += 8)
                    add(o);
            }
        }
#pragma unroll
        for (unsigned n = 0; n < GROUP; n++)
#pragma unroll
            for (unsigned k = 0; k < WIDTH; k++) {
                const float total = lane_sum<4, LANES>(sum[n][k]);
                if (i < IN && eighth == 0)
                    store_grad_before<L>(memory, n, i + k, total);
            }
    }
}

// The gradient of the convolution before, through convolution L: by input (c, y, x),
// `sum of grad[o][y-i][x-j] * weight[o][c][i][j]`. A thread computes a row of one map, with the zeros that pad it.
template <unsigned L> DEVICE void conv2d_grad_input(float *memory) {
    typedef Conv2d<L> Conv;
    constexpr unsigned K = Conv::K, PADDING = layers[L].padding, IN_H = Values<L>::H, IN_W = Values<L>::W;
    const auto &grads = Conv::grads(memory);
    const auto &weight = Conv::weight(memory);
    for (unsigned item = threadIdx.x; item < GROUP * Conv::C_IN * IN_H; item += THREADS) {
        const unsigned c = item % Conv::C_IN, row = item / Conv::C_IN % IN_H, n = item / (Conv::C_IN * IN_H), y = row + PADDING;
        float sum[IN_W + 2 * PADDING] = {};
#pragma unroll 1
        for (unsigned o = 0; o < Conv::C_OUT; o++)
#pragma unroll(Conv::W * K * K <= 512 ? K : 1)
            for (unsigned i = 0; i < K; i++)
                if (i <= y && y - i < Conv::H) {
#pragma unroll
                    for (unsigned x = 0; x < Conv::W; x++) {
                        const float grad = grads[n][o].at[y - i][x];
#pragma unroll
                        for (unsigned j = 0; j < K; j++)
                            sum[x + j] += grad * weight[o][c][i][j];
                    }
                }
#pragma unroll
        for (unsigned x = 0; x < IN_W; x++)
            store_conv2d_grad<L - 1>(memory, n, c, row, x, sum[x + PADDING]);
    }
}

// The gradient by a convolution's parameters, summed over the block's images. A thread computes a row of one kernel, or a
// bias. Neighbours have the same input map, which they read as one.
template <unsigned L> DEVICE void conv2d_grad_params_by_thread(float *memory, float *sums) {
    typedef Conv2d<L> Conv;
    constexpr unsigned K = Conv::K, C_IN = Conv::C_IN, C_OUT = Conv::C_OUT, ROWS = C_OUT * C_IN * K;
    const auto &input = maps<L>(memory);
    const auto &grads = Conv::grads(memory);
    for (unsigned item = threadIdx.x; item < ROWS + C_OUT; item += THREADS) {
        const unsigned o = item % C_OUT, i = item / C_OUT % K, c = item / (C_OUT * K);
        if (item < ROWS) {
            float sum[K] = {};
#pragma unroll 1
            for (unsigned n = 0; n < GROUP; n++)
#pragma unroll(Conv::W * K <= 64 ? 2 : 1)
                for (unsigned y = 0; y < Conv::H; y++)
#pragma unroll(Conv::W <= 16 ? Conv::W : 8)
                    for (unsigned x = 0; x < Conv::W; x++)
#pragma unroll
                        for (unsigned j = 0; j < K; j++)
                            sum[j] += grads[n][o].at[y][x] * input[n][c][y + i][x + j];
#pragma unroll
            for (unsigned j = 0; j < K; j++)
                sums[layers[L].weight + ((o * C_IN + c) * K + i) * K + j] = sum[j];
        } else {
            float sum = 0;
#pragma unroll 1
            for (unsigned n = 0; n < GROUP; n++)
#pragma unroll(Conv::W <= 16 ? 2 : 1)
                for (unsigned y = 0; y < Conv::H; y++)
#pragma unroll(Conv::W <= 16 ? Conv::W : 8)
                    for (unsigned x = 0; x < Conv::W; x++)
                        sum += grads[n][o].at[y][x];
            sums[layers[L].bias + o] = sum;
        }
    }
}

// The same where there are few rows: a warp computes a row of the kernels of some maps, its lanes sharing the outputs, or,
// of a gradient by window, the windows.
template <unsigned L> DEVICE void conv2d_grad_params_by_warp(float *memory, float *sums) {
    typedef Conv2d<L> Conv;
    constexpr unsigned K = Conv::K, N = Conv::N, C_IN = Conv::C_IN, C_OUT = Conv::C_OUT, MAPS = C_OUT % 2 == 0 ? 2 : 1;
    constexpr unsigned H = Conv::BY_WINDOW ? Conv::OUT_H : Conv::H, W = Conv::BY_WINDOW ? Conv::OUT_W : Conv::W;
    const auto &input = maps<L>(memory);
    const unsigned lane = threadIdx.x % LANES;
    for (unsigned item = threadIdx.x / LANES; item < C_OUT / MAPS * C_IN * K; item += WARPS) {
        const unsigned i = item % K, c_in = item / K % C_IN, first = item / (K * C_IN) * MAPS;
        float sum[MAPS][K] = {}, bias[MAPS] = {};
        for (unsigned place = lane; place < GROUP * H * W; place += LANES) {
            const unsigned px = place % W, py = place / W % H, n = place / (W * H);
#pragma unroll
            for (unsigned c = 0; c < MAPS; c++) {
                float grad;
                unsigned y = py, x = px;
                if constexpr (Conv::BY_WINDOW) {
                    grad = Conv::window_grads(memory)[n][first + c][py][px];
                    const unsigned winner = Conv::winners(memory)[n][first + c][py][px];
                    y = N * py + winner / N;
                    x = N * px + winner % N;
                } else
                    grad = Conv::grads(memory)[n][first + c].at[py][px];
                bias[c] += grad;
#pragma unroll
                for (unsigned j = 0; j < K; j++)
                    sum[c][j] += grad * input[n][c_in][y + i][x + j];
            }
        }
#pragma unroll
        for (unsigned c = 0; c < MAPS; c++) {
#pragma unroll
            for (unsigned j = 0; j < K; j++) {
                const float total = lane_sum<1, LANES>(sum[c][j]);
                if (lane == 0)
                    sums[layers[L].weight + (((first + c) * C_IN + c_in) * K + i) * K + j] = total;
            }
            const float total = lane_sum<1, LANES>(bias[c]);
            if (lane == 0 && i == 0 && c_in == 0)
                sums[layers[L].bias + first + c] = total;
        }
    }
}

// The backward pass of the block's images, from layer L, whose gradient is there, to the first. The gradients by the
// convolutions' parameters go to `sums`.
template <unsigned L> DEVICE void backward(const float *params, float *memory, float *sums) {
    if constexpr (layers[L].kind == LINEAR) {
        if constexpr (L > 0)
            linear_grad_input<L>(params, memory);
    } else {
        if constexpr (L > 0)
            conv2d_grad_input<L>(memory);
        if constexpr (Conv2d<L>::BY_WINDOW || Conv2d<L>::C_OUT * Conv2d<L>::C_IN * Conv2d<L>::K < THREADS / 2)
            conv2d_grad_params_by_warp<L>(memory, sums);
        else
            conv2d_grad_params_by_thread<L>(memory, sums);
    }
    if constexpr (L > 0) {
        __syncthreads();
        backward<L - 1>(params, memory, sums);
    }
}

// Writes the trace of an image, of the linear layers from L on.
template <unsigned L = CONVOLUTIONS> DEVICE void write_trace(Trace &trace, float *memory, unsigned n) {
    if constexpr (L < NUM_LAYERS) {
        for (unsigned i = threadIdx.x; i < Linear<L>::IN; i += THREADS)
            trace.at[layers[L].trace_input + i] = vectors<L>(memory)[n][i];
        for (unsigned i = threadIdx.x; i < Linear<L>::OUT; i += THREADS)
            trace.at[layers[L].trace_grad + i] = Linear<L>::grads(memory)[n][i];
        write_trace<L + 1>(trace, memory, n);
    }
}

// Writes the logits of `count` images, (count, CLASSES).
EXPORT void __launch_bounds__(THREADS, 1) logits(const uint8_t *images, unsigned count, const float *params, float *out) {
    SHARED_AT_LAUNCH(memory); // LOGITS_BYTES
    const unsigned first = blockIdx.x * GROUP;
    if (threadIdx.x < GROUP)
        reinterpret_cast<Source *>(memory)[threadIdx.x].index = first + threadIdx.x < count ? first + threadIdx.x : first;
    __syncthreads();
    load_images<false>(images, memory);
    load_weights(params, memory);
    __syncthreads();
    forward<false>(params, memory);
    for (unsigned i = threadIdx.x; i < GROUP * CLASSES; i += THREADS)
        if (first + i / CLASSES < count)
            out[first * CLASSES + i] = vectors<NUM_LAYERS>(memory)[i / CLASSES][i % CLASSES];
}
KERNEL(logits, LOGITS_BYTES)

// The first kernel of a step, on the `count` images that begin at position `start` of the epoch's part: a batch, or a
// device's share of one. Gradients are those of `scale`, one over the batch's images, times the sum of losses. Writes
// loss and correct by position, a trace an image, and a block's sum of the convolutions' gradients.
EXPORT void __launch_bounds__(THREADS, 1)
    gradients(const uint8_t *images, const uint8_t *labels, const Epoch *epoch, unsigned start, unsigned count, float scale,
              const float *params, float *loss, uint8_t *correct, Trace *traces, float *conv_grads) {
    SHARED_AT_LAUNCH(memory); // GRADIENTS_BYTES
    Source *sources = reinterpret_cast<Source *>(memory);
    const unsigned first = blockIdx.x * GROUP;
    if (threadIdx.x < GROUP) {
        const unsigned position = epoch->first + start + (first + threadIdx.x < count ? first + threadIdx.x : first);
        const unsigned index = order_index(*epoch, position);
        // One of the shifts in two directions and two ways to look, evenly.
        constexpr unsigned SHIFTS = 2 * MAX_SHIFT + 1;
        const unsigned hash = mix(mix(index ^ epoch->augment_keys[0]) ^ epoch->augment_keys[1]);
        const unsigned choice = hash * 1ull * (2 * SHIFTS * SHIFTS) >> 32;
        sources[threadIdx.x] = {index, int(choice / 2 % SHIFTS) - int(MAX_SHIFT), int(choice / 2 / SHIFTS) - int(MAX_SHIFT), int(choice % 2)};
    }
    __syncthreads();
    if (epoch->augment)
        load_images<true>(images, memory);
    else
        load_images<false>(images, memory);
    load_weights(params, memory);
    __syncthreads();
    forward<true>(params, memory);

    if (threadIdx.x % LANES == 0 && threadIdx.x / LANES < GROUP) { // A warp an image.
        const unsigned n = threadIdx.x / LANES;
        float image_loss;
        uint8_t image_correct;
        cross_entropy(vectors<NUM_LAYERS>(memory)[n], labels[sources[n].index], first + n < count ? scale : 0,
                      Linear<NUM_LAYERS - 1>::grads(memory)[n], image_loss, image_correct);
        if (first + n < count) {
            loss[start + first + n] = image_loss;
            correct[start + first + n] = image_correct;
        }
    }
    __syncthreads();
    backward<NUM_LAYERS - 1>(params, memory, conv_grads + blockIdx.x * CONV_PARAMS);
    for (unsigned n = 0; n < GROUP && first + n < count; n++)
        write_trace(traces[first + n], memory, n);
}
KERNEL(gradients, GRADIENTS_BYTES)

// Adam's state, each (NUM_PARAMS).
struct State {
    float *params, *moment1, *moment2;

    // One step of Adam for one parameter, as adam::update.
    DEVICE void update(unsigned i, float grad, const Coefficients &c) const {
        const float m = moment1[i] + (grad - moment1[i]) * c.keep1;
        const float v = moment2[i] * c.beta2 + grad * grad * c.keep2;
        moment1[i] = m;
        moment2[i] = v;
        params[i] = params[i] * c.kept - c.step_size * m / (sqrtf(v) * c.scale2 + c.eps);
    }
};

// A tile of a linear layer's weights is TILE_OUT outputs by TILE_IN inputs, four inputs a thread; the batch is shared among
// SLICES threads, whose sums are added in order. A tile of the convolutions' parameters is CONV_TILE of them, the blocks'
// sums shared among CONV_SLICES threads.
constexpr unsigned SLICES = THREADS / (TILE_OUT * TILE_IN / 4), CONV_SLICES = THREADS / CONV_TILE;
static_assert(TILE_OUT * (TILE_IN + 1) <= THREADS && THREADS % (TILE_OUT * TILE_IN / 4) == 0, "a thread for each sum of a tile");

struct __align__(16) Sums {
    union {
        float linear[SLICES][TILE_OUT][TILE_IN + 1]; // The last column is the bias.
        float conv[CONV_SLICES][CONV_TILE];
    };
};

// Number of tiles of the linear layers from L on; layout.rs counts them too.
__device__ constexpr unsigned tiles(unsigned l) {
    return (layers[l].output[0] + TILE_OUT - 1) / TILE_OUT *
           ((layers[l].input[0] * layers[l].input[1] * layers[l].input[2] + TILE_IN - 1) / TILE_IN);
}
__device__ constexpr unsigned all_tiles() {
    unsigned sum = (CONV_PARAMS + CONV_TILE - 1) / CONV_TILE;
    for (unsigned l = CONVOLUTIONS; l < NUM_LAYERS; l++)
        sum += tiles(l);
    return sum;
}
static_assert(all_tiles() == UPDATE_BLOCKS, "a block a tile");

// Tile number `tile` of a layer's weights and, with a row's first tile, its biases: the gradient over the images, handed
// to `store(i, grad)`.
template <unsigned L, typename Store>
DEVICE void linear_grad_params(unsigned tile, const Trace *traces, unsigned count, Sums &sums, Store store) {
    constexpr unsigned IN = Linear<L>::IN, OUT = Linear<L>::OUT, COLUMNS = (IN + TILE_IN - 1) / TILE_IN;
    const unsigned first_o = tile / COLUMNS * TILE_OUT, first_i = tile % COLUMNS * TILE_IN;
    {
        const unsigned column = threadIdx.x % (TILE_IN / 4) * 4, row = threadIdx.x / (TILE_IN / 4) % TILE_OUT;
        const unsigned slice = threadIdx.x / (TILE_IN / 4 * TILE_OUT);
        const unsigned o = first_o + row, i = first_i + column;
        float sum[4] = {};
        float sum_bias = 0;
        if (o < OUT && i < IN)
#pragma unroll 8
            for (unsigned n = slice; n < count; n += SLICES) {
                float x[4]; // Beyond the input there is room for the last of four; nothing comes of it.
                load(&traces[n].at[layers[L].trace_input + i], x);
                const float grad = traces[n].at[layers[L].trace_grad + o];
#pragma unroll
                for (unsigned k = 0; k < 4; k++)
                    sum[k] += grad * x[k];
                sum_bias += grad;
            }
        float *to = &sums.linear[slice][row][column];
#pragma unroll
        for (unsigned k = 0; k < 4; k++)
            to[k] = sum[k];
        if (column == 0)
            sums.linear[slice][row][TILE_IN] = sum_bias;
    }
    __syncthreads();
    if (threadIdx.x < TILE_OUT * (TILE_IN + 1)) {
        const bool is_bias = threadIdx.x >= TILE_OUT * TILE_IN;
        const unsigned row = is_bias ? threadIdx.x % TILE_OUT : threadIdx.x / TILE_IN;
        const unsigned column = is_bias ? TILE_IN : threadIdx.x % TILE_IN;
        const unsigned o = first_o + row, i = first_i + column;
        float grad = 0;
#pragma unroll
        for (unsigned slice = 0; slice < SLICES; slice++)
            grad += sums.linear[slice][row][column];
        if (o < OUT && is_bias && first_i == 0)
            store(layers[L].bias + o, grad);
        if (o < OUT && !is_bias && i < IN)
            store(layers[L].weight + o * IN + i, grad);
    }
}

// The gradient by every parameter over `count` images, each handed to `store(i, grad)` once: a block a tile, first those
// of the linear layers from L on, then those of the convolutions, which have `partials` sums.
template <unsigned L, typename Store>
DEVICE void grad_params(unsigned tile, const Trace *traces, unsigned count, const float *conv_grads, unsigned partials, Sums &sums, Store store) {
    if constexpr (L < NUM_LAYERS) {
        if (tile < tiles(L))
            linear_grad_params<L>(tile, traces, count, sums, store);
        else
            grad_params<L + 1>(tile - tiles(L), traces, count, conv_grads, partials, sums, store);
    } else {
        const unsigned param = tile * CONV_TILE + threadIdx.x % CONV_TILE, slice = threadIdx.x / CONV_TILE;
        float sum = 0;
        if (param < CONV_PARAMS)
#pragma unroll 8
            for (unsigned partial = slice; partial < partials; partial += CONV_SLICES)
                sum += conv_grads[partial * CONV_PARAMS + param];
        sums.conv[slice][threadIdx.x % CONV_TILE] = sum;
        __syncthreads();
        if (slice == 0 && param < CONV_PARAMS) {
            float grad = 0;
#pragma unroll
            for (unsigned s = 0; s < CONV_SLICES; s++)
                grad += sums.conv[s][threadIdx.x];
            store(param, grad);
        }
    }
}

// The second kernel of a step.
EXPORT void __launch_bounds__(THREADS)
    update(const Trace *traces, unsigned count, const float *conv_grads, unsigned partials, const Coefficients *coefficients,
           unsigned step, float *params, float *moment1, float *moment2) {
    SHARED(Sums, sums);
    const State state = {params, moment1, moment2};
    const Coefficients c = coefficients[step];
    grad_params<CONVOLUTIONS>(blockIdx.x, traces, count, conv_grads, partials, sums,
                              [&](unsigned i, float grad) { state.update(i, grad, c); });
}
KERNEL(update, 0)

// The second kernel where devices share a batch; without images it writes zeros.
EXPORT void __launch_bounds__(THREADS)
    sum_gradients(const Trace *traces, unsigned count, const float *conv_grads, unsigned partials, float *grads) {
    SHARED(Sums, sums);
    grad_params<CONVOLUTIONS>(blockIdx.x, traces, count, conv_grads, partials, sums, [&](unsigned i, float grad) { grads[i] = grad; });
}
KERNEL(sum_gradients, 0)

// The last kernel where devices share a batch.
EXPORT void __launch_bounds__(THREADS)
    adam(const float *grads, const Coefficients *coefficients, unsigned step, float *params, float *moment1, float *moment2) {
    const State state = {params, moment1, moment2};
    const unsigned i = blockIdx.x * THREADS + threadIdx.x;
    if (i < NUM_PARAMS)
        state.update(i, grads[i], coefficients[step]);
}
KERNEL(adam, 0)

// After a step's update: as adam::average, both (NUM_PARAMS).
EXPORT void __launch_bounds__(THREADS) average(const float *params, const Coefficients *coefficients, unsigned step, float *mean) {
    const unsigned i = blockIdx.x * THREADS + threadIdx.x;
    if (i < NUM_PARAMS)
        mean[i] += (params[i] - mean[i]) * coefficients[step].keep_mean;
}
KERNEL(average, 0)
