// One training step of LeNet in two kernels, and the forward pass alone in a third.
//
//   gradients  a block for GROUP images: forward, loss, every gradient by an activation, and the gradient by the
//              convolutions' parameters, summed over the block's images
//   update     the fully connected layers' gradients as tiles over the batch, the convolutions' partial sums added up,
//              and Adam, each parameter by one thread
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
// whole batch must be through the first before the second may change a parameter; what crosses is a Trace an image.
//
// Left out: launches, buffers, the order of steps (mod.rs); every dimension (constants.rs hands them in as -D
// options, derived from lenet_core::arch). The arithmetic is that of trainer/src/reference, which is easier to read.
//
// Gradients by an activation are named grad_x; those by a layer's output include the sigmoid's derivative.
// Shapes are in the types; n counts images of the block, the rest is as in lenet_core.

#ifndef CUDA_HOST // The host build of tests/cuda-host says otherwise.
#define SHARED(type, name) __shared__ type name
#define KERNEL(name)
typedef unsigned char uint8_t;
#endif

constexpr unsigned LANES = 32;
constexpr unsigned WARPS = THREADS / LANES;
constexpr unsigned ALL_LANES = 0xffffffff;
static_assert(THREADS % LANES == 0, "whole warps, so that shuffles have all their lanes");
static_assert(POOL == 2, "a window is four conv outputs, numbered in row order");

// The parameters before fc1's, whose gradients are added up by block.
constexpr unsigned CONV_PARAMS = OFFSET_FC1_WEIGHT;

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

// What `update` needs of an image.
struct __align__(16) Trace {
    float pool2[FLAT], fc1[FC1], fc2[FC2];
    float grad_fc1[FC1], grad_fc2[FC2], grad_logits[CLASSES];
};
static_assert(sizeof(Trace) == TRACE_BYTES && FLAT % 4 == 0 && FC1 % 4 == 0 && FC2 % 4 == 0, "rows are read as float4");

// A block's memory. Alignments allow rows to be read four floats at a time.
struct __align__(16) Forward {
    unsigned indices[GROUP]; // Of the images; a block with too few repeats its first, without effect.
    struct { int down, right, mirrored; } moves[GROUP]; // With dataset::Augment.
    float image[GROUP][SIDE][SIDE];
    float pool1[GROUP][C1][POOL1_SIDE][POOL1_SIDE];
    float pool2[GROUP][C2][POOL2_SIDE][POOL2_SIDE];
    float fc1[GROUP][FC1];
    float fc2[GROUP][FC2];
    float conv2_weight[C2][C1][K][K];
    float conv1_weight[C1][1][K][K];
    float logits[GROUP][CLASSES];
    uint8_t winner1[GROUP][C1][POOL1_SIDE][POOL1_SIDE]; // Which of its window's four conv outputs is largest.
    uint8_t winner2[GROUP][C2][POOL2_SIDE][POOL2_SIDE];
};

struct __align__(16) Backward {
    struct {
        float at[CONV2_SIDE][CONV2_SIDE];
        float padding[4]; // So that threads that read four floats each of different maps use different banks.
    } grad_conv2[GROUP][C2];
    float grad_pool1[GROUP][C1][POOL1_SIDE][POOL1_SIDE];
    float grad_fc1[GROUP][FC1];
    float grad_fc2[GROUP][FC2];
    float grad_logits[GROUP][CLASSES];
};

// A bijection; the same function as dataset::order::mix.
__device__ unsigned mix(unsigned x) {
    x = (x ^ (x >> 16)) * 0x85ebca6b;
    x = (x ^ (x >> 13)) * 0xc2b2ae35;
    return x ^ (x >> 16);
}

// The image at a position of the epoch; the same function as Permutation::index.
__device__ unsigned order_index(const Epoch &order, unsigned position) {
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

__device__ float sigmoid(float x) {
    return 1 / (1 + expf(-x));
}

// The derivative of the sigmoid by its input, from its output.
__device__ float sigmoid_slope(float y) {
    return y * (1 - y);
}

// Adds up over lanes whose numbers differ in the bits FROM..TO; all of them get the sum.
template <unsigned FROM, unsigned TO>
__device__ float lane_sum(float x) {
#pragma unroll
    for (unsigned bit = FROM; bit < TO; bit *= 2)
        x += __shfl_xor_sync(ALL_LANES, x, bit);
    return x;
}

// Convolution, max-pool, sigmoid. A thread computes one window of CHANNELS maps, its input patch in registers.
template <unsigned CHANNELS, unsigned C_IN, unsigned C_OUT, unsigned IN, unsigned OUT>
__device__ void conv_pool_sigmoid(const float (&input)[GROUP][C_IN][IN][IN], const float (&weight)[C_OUT][C_IN][K][K],
                                  const float *bias, float (&out)[GROUP][C_OUT][OUT][OUT],
                                  uint8_t (&winner)[GROUP][C_OUT][OUT][OUT]) {
    static_assert(C_OUT % CHANNELS == 0 && 2 * OUT + K == IN + 1, "whole windows");
    for (unsigned item = threadIdx.x; item < GROUP * OUT * OUT * (C_OUT / CHANNELS); item += THREADS) {
        const unsigned x = item % OUT, y = item / OUT % OUT, n = item / (OUT * OUT) % GROUP;
        const unsigned first = item / (OUT * OUT * GROUP) * CHANNELS;
        float window[CHANNELS][4];
#pragma unroll
        for (unsigned c = 0; c < CHANNELS; c++)
#pragma unroll
            for (unsigned w = 0; w < 4; w++)
                window[c][w] = bias[first + c];
#pragma unroll 1
        for (unsigned c_in = 0; c_in < C_IN; c_in++) {
            float patch[K + 1][K + 1];
#pragma unroll
            for (unsigned i = 0; i <= K; i++)
#pragma unroll
                for (unsigned j = 0; j <= K; j++)
                    patch[i][j] = input[n][c_in][2 * y + i][2 * x + j];
#pragma unroll
            for (unsigned c = 0; c < CHANNELS; c++)
#pragma unroll
                for (unsigned i = 0; i < K; i++)
#pragma unroll
                    for (unsigned j = 0; j < K; j++)
#pragma unroll
                        for (unsigned w = 0; w < 4; w++)
                            window[c][w] += patch[i + w / 2][j + w % 2] * weight[first + c][c_in][i][j];
        }
#pragma unroll
        for (unsigned c = 0; c < CHANNELS; c++) {
            unsigned best = 0;
            float largest = window[c][0];
#pragma unroll
            for (unsigned w = 1; w < 4; w++)
                if (window[c][w] > largest) {
                    largest = window[c][w];
                    best = w;
                }
            out[n][first + c][y][x] = sigmoid(largest);
            winner[n][first + c][y][x] = best;
        }
    }
}

// A fully connected layer, `out[n][o] = act(bias[o] + sum of weight[o][i] * input[n][i])`, SIGMOID or not.
// A warp takes eight outputs: four lanes share one, each reads a quarter of its row, and their sums are added.
template <bool SIGMOID, unsigned OUT, unsigned IN>
__device__ void linear(const float (&input)[GROUP][IN], const float *weight, const float *bias, float (&out)[GROUP][OUT]) {
    const unsigned lane = threadIdx.x % LANES, quarter = lane % 4;
    for (unsigned first = threadIdx.x / LANES * 8; first < OUT; first += WARPS * 8) {
        const unsigned o = first + lane / 4;
        float sum[GROUP] = {};
        if (o < OUT)
#pragma unroll
            for (unsigned i = quarter * 4; i < IN; i += 16) {
                const float4 w = *reinterpret_cast<const float4 *>(&weight[o * IN + i]);
#pragma unroll
                for (unsigned n = 0; n < GROUP; n++)
                    sum[n] += w.x * input[n][i] + w.y * input[n][i + 1] + w.z * input[n][i + 2] + w.w * input[n][i + 3];
            }
#pragma unroll
        for (unsigned n = 0; n < GROUP; n++) {
            const float total = lane_sum<1, 4>(sum[n]);
            if (o < OUT && quarter == 0) {
                const float y = total + bias[o];
                out[n][o] = SIGMOID ? sigmoid(y) : y;
            }
        }
    }
}

// The gradient by a fully connected layer's input, `grad_in[n][i] = slope of y[n][i] * sum of weight[o][i] * grad_out[n][o]`,
// where y is the input, an output of the sigmoid; handed to `store(n, i, grad)`.
// A warp takes sixteen inputs: four lanes of four inputs, eight times over, each for an eighth of the outputs.
template <unsigned OUT, unsigned IN, typename Store>
__device__ void linear_grad_input(const float (&grad_out)[GROUP][OUT], const float *weight, const float (&y)[GROUP][IN], Store store) {
    const unsigned lane = threadIdx.x % LANES, eighth = lane / 4;
    for (unsigned first = threadIdx.x / LANES * 16; first < IN; first += WARPS * 16) {
        const unsigned i = first + lane % 4 * 4;
        float sum[GROUP][4] = {};
        if (i < IN)
#pragma unroll
            for (unsigned o = eighth; o < OUT; o += 8) {
                const float4 w = *reinterpret_cast<const float4 *>(&weight[o * IN + i]);
#pragma unroll
                for (unsigned n = 0; n < GROUP; n++) {
                    sum[n][0] += w.x * grad_out[n][o];
                    sum[n][1] += w.y * grad_out[n][o];
                    sum[n][2] += w.z * grad_out[n][o];
                    sum[n][3] += w.w * grad_out[n][o];
                }
            }
#pragma unroll
        for (unsigned n = 0; n < GROUP; n++)
#pragma unroll
            for (unsigned k = 0; k < 4; k++) {
                const float total = lane_sum<4, LANES>(sum[n][k]);
                if (i < IN && eighth == 0)
                    store(n, i + k, total * sigmoid_slope(y[n][i + k]));
            }
    }
}

// The gradient by the inputs of conv2, through the sigmoid before it. A thread computes a row of one map:
// `sum of grad_conv2[o][y-i][x-j] * weight[o][c][i][j]`.
__device__ void conv2_grad_input(const Forward &f, Backward &b) {
    for (unsigned item = threadIdx.x; item < GROUP * C1 * POOL1_SIDE; item += THREADS) {
        const unsigned c = item % C1, y = item / C1 % POOL1_SIDE, n = item / (C1 * POOL1_SIDE);
        float sum[POOL1_SIDE] = {};
#pragma unroll 1
        for (unsigned o = 0; o < C2; o++)
#pragma unroll
            for (unsigned i = 0; i < K; i++)
                if (i <= y && y - i < CONV2_SIDE) {
#pragma unroll
                    for (unsigned x = 0; x < CONV2_SIDE; x++) {
                        const float grad = b.grad_conv2[n][o].at[y - i][x];
#pragma unroll
                        for (unsigned j = 0; j < K; j++)
                            sum[x + j] += grad * f.conv2_weight[o][c][i][j];
                    }
                }
#pragma unroll
        for (unsigned x = 0; x < POOL1_SIDE; x++)
            b.grad_pool1[n][c][y][x] = sum[x] * sigmoid_slope(f.pool1[n][c][y][x]);
    }
}

// The gradient by conv2's parameters, summed over the block's images. A thread computes a row of one kernel, or a bias.
// Neighbours have the same input map, which they read as one.
__device__ void conv2_grad_params(const Forward &f, const Backward &b, float *grads) {
    constexpr unsigned ROWS = C2 * C1 * K;
    for (unsigned item = threadIdx.x; item < ROWS + C2; item += THREADS) {
        const unsigned o = item % C2, i = item / C2 % K, c = item / (C2 * K);
        if (item < ROWS) {
            float sum[K] = {};
#pragma unroll 1
            for (unsigned n = 0; n < GROUP; n++)
#pragma unroll 2
                for (unsigned y = 0; y < CONV2_SIDE; y++)
#pragma unroll
                    for (unsigned x = 0; x < CONV2_SIDE; x++)
#pragma unroll
                        for (unsigned j = 0; j < K; j++)
                            sum[j] += b.grad_conv2[n][o].at[y][x] * f.pool1[n][c][y + i][x + j];
#pragma unroll
            for (unsigned j = 0; j < K; j++)
                grads[OFFSET_CONV2_WEIGHT + ((o * C1 + c) * K + i) * K + j] = sum[j];
        } else {
            float sum = 0;
#pragma unroll 1
            for (unsigned n = 0; n < GROUP; n++)
#pragma unroll 2
                for (unsigned y = 0; y < CONV2_SIDE; y++)
#pragma unroll
                    for (unsigned x = 0; x < CONV2_SIDE; x++)
                        sum += b.grad_conv2[n][o].at[y][x];
            grads[OFFSET_CONV2_BIAS + o] = sum;
        }
    }
}

// The gradient by conv1's parameters, summed over the block's images. A warp computes a row of the kernels of CHANNELS
// maps, its lanes sharing the windows: of each window's four outputs only the largest has a gradient.
template <unsigned CHANNELS> __device__ void conv1_grad_params(const Forward &f, const Backward &b, float *grads) {
    static_assert(C1 % CHANNELS == 0, "whole groups of maps");
    const unsigned lane = threadIdx.x % LANES;
    for (unsigned item = threadIdx.x / LANES; item < C1 / CHANNELS * K; item += WARPS) {
        const unsigned i = item % K, first = item / K * CHANNELS;
        float sum[CHANNELS][K] = {}, bias[CHANNELS] = {};
        for (unsigned window = lane; window < GROUP * POOL1_SIDE * POOL1_SIDE; window += LANES) {
            const unsigned px = window % POOL1_SIDE, py = window / POOL1_SIDE % POOL1_SIDE;
            const unsigned n = window / (POOL1_SIDE * POOL1_SIDE);
#pragma unroll
            for (unsigned c = 0; c < CHANNELS; c++) {
                const float grad = b.grad_pool1[n][first + c][py][px];
                const unsigned winner = f.winner1[n][first + c][py][px];
                const unsigned y = 2 * py + winner / 2, x = 2 * px + winner % 2;
                bias[c] += grad;
#pragma unroll
                for (unsigned j = 0; j < K; j++)
                    sum[c][j] += grad * f.image[n][y + i][x + j];
            }
        }
#pragma unroll
        for (unsigned c = 0; c < CHANNELS; c++) {
#pragma unroll
            for (unsigned j = 0; j < K; j++) {
                const float total = lane_sum<1, LANES>(sum[c][j]);
                if (lane == 0)
                    grads[OFFSET_CONV1_WEIGHT + ((first + c) * K + i) * K + j] = total;
            }
            const float total = lane_sum<1, LANES>(bias[c]);
            if (lane == 0 && i == 0)
                grads[OFFSET_CONV1_BIAS + first + c] = total;
        }
    }
}

// Softmax cross-entropy of one image: its loss, whether the largest logit (of equal ones the first) is the label's,
// and the gradient of `scale` times the loss by the logits.
__device__ void cross_entropy(const float (&logits)[CLASSES], unsigned label, float scale, float (&grad_logits)[CLASSES],
                              float &loss, uint8_t &correct) {
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

// Takes the block's images in, those of `f.indices`; MOVED as `f.moves` says, by the rule of dataset::Augment.
template <bool MOVED> __device__ void load_images(const uint8_t *images, Forward &f) {
    for (unsigned i = threadIdx.x; i < GROUP * SIDE * SIDE; i += THREADS) {
        const unsigned n = i / (SIDE * SIDE), y = i / SIDE % SIDE, x = i % SIDE;
        const uint8_t *image = images + f.indices[n] * size_t(SIDE * SIDE);
        if (MOVED) {
            // Below 0 is above every side.
            const unsigned from_y = y - f.moves[n].down, from_x = x - f.moves[n].right;
            const unsigned column = f.moves[n].mirrored ? SIDE - 1 - from_x : from_x;
            f.image[n][y][x] = from_y < SIDE && from_x < SIDE ? image[from_y * SIDE + column] / 255.0f : 0;
        } else
            f.image[n][y][x] = image[y * SIDE + x] / 255.0f;
    }
}

// The forward pass of the block's images, once they are loaded.
__device__ void forward(const float *params, Forward &f) {
    for (unsigned i = threadIdx.x; i < C1 * K * K; i += THREADS)
        (&f.conv1_weight[0][0][0][0])[i] = params[OFFSET_CONV1_WEIGHT + i];
    for (unsigned i = threadIdx.x; i < C2 * C1 * K * K; i += THREADS)
        (&f.conv2_weight[0][0][0][0])[i] = params[OFFSET_CONV2_WEIGHT + i];
    __syncthreads();
    conv_pool_sigmoid<2>(reinterpret_cast<const float(&)[GROUP][1][SIDE][SIDE]>(f.image), f.conv1_weight,
                         params + OFFSET_CONV1_BIAS, f.pool1, f.winner1);
    __syncthreads();
    conv_pool_sigmoid<2>(f.pool1, f.conv2_weight, params + OFFSET_CONV2_BIAS, f.pool2, f.winner2);
    __syncthreads();
    linear<true>(reinterpret_cast<const float(&)[GROUP][FLAT]>(f.pool2), params + OFFSET_FC1_WEIGHT,
                 params + OFFSET_FC1_BIAS, f.fc1);
    __syncthreads();
    linear<true>(f.fc1, params + OFFSET_FC2_WEIGHT, params + OFFSET_FC2_BIAS, f.fc2);
    __syncthreads();
    linear<false>(f.fc2, params + OFFSET_FC3_WEIGHT, params + OFFSET_FC3_BIAS, f.logits);
    __syncthreads();
}

// Writes the logits of `count` images, (count, CLASSES).
extern "C" __global__ void __launch_bounds__(THREADS, 1) logits(const uint8_t *images, unsigned count, const float *params, float *out) {
    SHARED(Forward, f);
    const unsigned first = blockIdx.x * GROUP;
    if (threadIdx.x < GROUP)
        f.indices[threadIdx.x] = first + threadIdx.x < count ? first + threadIdx.x : first;
    __syncthreads();
    load_images<false>(images, f);
    forward(params, f);
    for (unsigned i = threadIdx.x; i < GROUP * CLASSES; i += THREADS)
        if (first + i / CLASSES < count)
            out[first * CLASSES + i] = f.logits[i / CLASSES][i % CLASSES];
}
KERNEL(logits)

// The first kernel of a step, on the `count` images that begin at position `start` of the epoch's part: a batch, or a
// device's share of one. Gradients are those of `scale`, one over the batch's images, times the sum of losses. Writes
// loss and correct by position, a Trace an image, and a block's sum of the convolutions' gradients.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    gradients(const uint8_t *images, const uint8_t *labels, const Epoch *epoch, unsigned start, unsigned count, float scale,
              const float *params, float *loss, uint8_t *correct, Trace *traces, float (*conv_grads)[CONV_PARAMS]) {
    SHARED(Forward, f);
    SHARED(Backward, b);
    const unsigned first = blockIdx.x * GROUP;
    if (threadIdx.x < GROUP) {
        const unsigned position = epoch->first + start + (first + threadIdx.x < count ? first + threadIdx.x : first);
        const unsigned index = order_index(*epoch, position);
        f.indices[threadIdx.x] = index;
        // One of the shifts in two directions and two ways to look, evenly.
        constexpr unsigned SHIFTS = 2 * MAX_SHIFT + 1;
        const unsigned hash = mix(mix(index ^ epoch->augment_keys[0]) ^ epoch->augment_keys[1]);
        const unsigned choice = hash * 1ull * (2 * SHIFTS * SHIFTS) >> 32;
        f.moves[threadIdx.x] = {int(choice / 2 % SHIFTS) - int(MAX_SHIFT), int(choice / 2 / SHIFTS) - int(MAX_SHIFT), int(choice % 2)};
    }
    __syncthreads();
    if (epoch->augment)
        load_images<true>(images, f);
    else
        load_images<false>(images, f);
    forward(params, f);

    if (threadIdx.x % LANES == 0 && threadIdx.x / LANES < GROUP) { // A warp an image.
        const unsigned n = threadIdx.x / LANES;
        float image_loss;
        uint8_t image_correct;
        cross_entropy(f.logits[n], labels[f.indices[n]], first + n < count ? scale : 0, b.grad_logits[n], image_loss, image_correct);
        if (first + n < count) {
            loss[start + first + n] = image_loss;
            correct[start + first + n] = image_correct;
        }
    }
    __syncthreads();
    linear_grad_input(b.grad_logits, params + OFFSET_FC3_WEIGHT, f.fc2,
                      [&](unsigned n, unsigned i, float grad) { b.grad_fc2[n][i] = grad; });
    __syncthreads();
    linear_grad_input(b.grad_fc2, params + OFFSET_FC2_WEIGHT, f.fc1,
                      [&](unsigned n, unsigned i, float grad) { b.grad_fc1[n][i] = grad; });
    __syncthreads();
    // Through the pool at once: the gradient goes to the window's largest output, the others get zero.
    linear_grad_input(b.grad_fc1, params + OFFSET_FC1_WEIGHT, reinterpret_cast<const float(&)[GROUP][FLAT]>(f.pool2),
                      [&](unsigned n, unsigned i, float grad) {
                          const unsigned x = i % POOL2_SIDE, y = i / POOL2_SIDE % POOL2_SIDE, c = i / (POOL2_SIDE * POOL2_SIDE);
                          for (unsigned w = 0; w < 4; w++)
                              b.grad_conv2[n][c].at[2 * y + w / 2][2 * x + w % 2] = w == f.winner2[n][c][y][x] ? grad : 0;
                      });
    __syncthreads();
    conv2_grad_input(f, b);
    conv2_grad_params(f, b, conv_grads[blockIdx.x]);
    for (unsigned n = 0; n < GROUP && first + n < count; n++) {
        Trace &trace = traces[first + n];
        for (unsigned i = threadIdx.x; i < FLAT; i += THREADS)
            trace.pool2[i] = f.pool2[n][i / (POOL2_SIDE * POOL2_SIDE)][i / POOL2_SIDE % POOL2_SIDE][i % POOL2_SIDE];
        for (unsigned i = threadIdx.x; i < FC1; i += THREADS) {
            trace.fc1[i] = f.fc1[n][i];
            trace.grad_fc1[i] = b.grad_fc1[n][i];
        }
        for (unsigned i = threadIdx.x; i < FC2; i += THREADS) {
            trace.fc2[i] = f.fc2[n][i];
            trace.grad_fc2[i] = b.grad_fc2[n][i];
        }
        for (unsigned i = threadIdx.x; i < CLASSES; i += THREADS)
            trace.grad_logits[i] = b.grad_logits[n][i];
    }
    __syncthreads();
    conv1_grad_params<2>(f, b, conv_grads[blockIdx.x]);
}
KERNEL(gradients)

// Adam's state, each (NUM_PARAMS).
struct State {
    float *params, *moment1, *moment2;

    // One step of Adam for one parameter, as adam::update.
    __device__ void update(unsigned i, float grad, const Coefficients &c) const {
        const float m = moment1[i] + (grad - moment1[i]) * c.keep1;
        const float v = moment2[i] * c.beta2 + grad * grad * c.keep2;
        moment1[i] = m;
        moment2[i] = v;
        params[i] = params[i] * c.kept - c.step_size * m / (sqrtf(v) * c.scale2 + c.eps);
    }
};

// A tile of a fully connected layer's weights is TILE_OUT outputs by TILE_IN inputs, four inputs a thread; the batch
// is shared among SLICES threads, whose sums are added in order. A tile of the convolutions' parameters is CONV_TILE
// of them, the blocks' sums shared among CONV_SLICES threads.
constexpr unsigned SLICES = THREADS / (TILE_OUT * TILE_IN / 4), CONV_SLICES = THREADS / CONV_TILE;
static_assert(TILE_OUT * (TILE_IN + 1) <= THREADS && THREADS % (TILE_OUT * TILE_IN / 4) == 0, "a thread for each sum of a tile");

struct __align__(16) Sums {
    union {
        float linear[SLICES][TILE_OUT][TILE_IN + 1]; // The last column is the bias.
        float conv[CONV_SLICES][CONV_TILE];
    };
};

// Number of tiles of a layer; constants.rs counts them too.
__device__ constexpr unsigned tiles(unsigned out, unsigned in) {
    return (out + TILE_OUT - 1) / TILE_OUT * ((in + TILE_IN - 1) / TILE_IN);
}

// Tile number `tile` of a layer's weights and, with a row's first tile, its biases: the gradient over the images, handed
// to `store(i, grad)`. The layer's input and its output's gradient are members of the traces.
template <unsigned OUT, unsigned IN, typename Store>
__device__ void linear_grad_params(unsigned tile, const Trace *traces, unsigned count, float (Trace::*input)[IN], float (Trace::*grad_out)[OUT],
                                   unsigned weight, unsigned bias, Sums &sums, Store store) {
    constexpr unsigned COLUMNS = (IN + TILE_IN - 1) / TILE_IN;
    const unsigned first_o = tile / COLUMNS * TILE_OUT, first_i = tile % COLUMNS * TILE_IN;
    {
        const unsigned column = threadIdx.x % (TILE_IN / 4) * 4, row = threadIdx.x / (TILE_IN / 4) % TILE_OUT;
        const unsigned slice = threadIdx.x / (TILE_IN / 4 * TILE_OUT);
        const unsigned o = first_o + row, i = first_i + column;
        float4 sum = {0, 0, 0, 0};
        float sum_bias = 0;
        if (o < OUT && i < IN)
#pragma unroll 8
            for (unsigned n = slice; n < count; n += SLICES) {
                const float4 x = *reinterpret_cast<const float4 *>(&(traces[n].*input)[i]);
                const float grad = (traces[n].*grad_out)[o];
                sum.x += grad * x.x;
                sum.y += grad * x.y;
                sum.z += grad * x.z;
                sum.w += grad * x.w;
                sum_bias += grad;
            }
        float *to = &sums.linear[slice][row][column];
        to[0] = sum.x;
        to[1] = sum.y;
        to[2] = sum.z;
        to[3] = sum.w;
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
            store(bias + o, grad);
        if (o < OUT && !is_bias && i < IN)
            store(weight + o * IN + i, grad);
    }
}

// The gradient by every parameter over `count` images, each handed to `store(i, grad)` once: a block a tile, first those
// of fc1, then fc2, fc3 and the convolutions, which have `partials` sums.
template <typename Store>
__device__ void grad_params(const Trace *traces, unsigned count, const float (*conv_grads)[CONV_PARAMS], unsigned partials, Sums &sums,
                            Store store) {
    unsigned tile = blockIdx.x;
    if (tile < tiles(FC1, FLAT))
        return linear_grad_params(tile, traces, count, &Trace::pool2, &Trace::grad_fc1, OFFSET_FC1_WEIGHT, OFFSET_FC1_BIAS, sums, store);
    tile -= tiles(FC1, FLAT);
    if (tile < tiles(FC2, FC1))
        return linear_grad_params(tile, traces, count, &Trace::fc1, &Trace::grad_fc2, OFFSET_FC2_WEIGHT, OFFSET_FC2_BIAS, sums, store);
    tile -= tiles(FC2, FC1);
    if (tile < tiles(CLASSES, FC2))
        return linear_grad_params(tile, traces, count, &Trace::fc2, &Trace::grad_logits, OFFSET_FC3_WEIGHT, OFFSET_FC3_BIAS, sums, store);
    tile -= tiles(CLASSES, FC2);

    const unsigned param = tile * CONV_TILE + threadIdx.x % CONV_TILE, slice = threadIdx.x / CONV_TILE;
    float sum = 0;
    if (param < CONV_PARAMS)
#pragma unroll 8
        for (unsigned partial = slice; partial < partials; partial += CONV_SLICES)
            sum += conv_grads[partial][param];
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

// The second kernel of a step.
extern "C" __global__ void __launch_bounds__(THREADS)
    update(const Trace *traces, unsigned count, const float (*conv_grads)[CONV_PARAMS], unsigned partials,
           const Coefficients *coefficients, unsigned step, float *params, float *moment1, float *moment2) {
    SHARED(Sums, sums);
    const State state = {params, moment1, moment2};
    const Coefficients c = coefficients[step];
    grad_params(traces, count, conv_grads, partials, sums, [&](unsigned i, float grad) { state.update(i, grad, c); });
}
KERNEL(update)

// The second kernel where devices share a batch; without images it writes zeros.
extern "C" __global__ void __launch_bounds__(THREADS)
    sum_gradients(const Trace *traces, unsigned count, const float (*conv_grads)[CONV_PARAMS], unsigned partials, float *grads) {
    SHARED(Sums, sums);
    grad_params(traces, count, conv_grads, partials, sums, [&](unsigned i, float grad) { grads[i] = grad; });
}
KERNEL(sum_gradients)

// The last kernel where devices share a batch.
extern "C" __global__ void __launch_bounds__(THREADS)
    adam(const float *grads, const Coefficients *coefficients, unsigned step, float *params, float *moment1, float *moment2) {
    const State state = {params, moment1, moment2};
    const unsigned i = blockIdx.x * THREADS + threadIdx.x;
    if (i < NUM_PARAMS)
        state.update(i, grads[i], coefficients[step]);
}
KERNEL(adam)

// After a step's update: as adam::average, both (NUM_PARAMS).
extern "C" __global__ void __launch_bounds__(THREADS) average(const float *params, const Coefficients *coefficients, unsigned step, float *mean) {
    const unsigned i = blockIdx.x * THREADS + threadIdx.x;
    if (i < NUM_PARAMS)
        mean[i] += (params[i] - mean[i]) * coefficients[step].keep_mean;
}
KERNEL(average)
