// Runs each kernel of step.cu once on the host, so that the results can be compared and the sanitizers can check the kernels.
//
//   run INPUT OUTPUT        both files are raw and little-endian; tests/tests/cuda/host.rs writes and reads them
//
// Every buffer has exactly the size that trainer/src/cuda/replica.rs allocates.
#include STEP_CU // -DSTEP_CU="...": the path of the kernels.

template <typename T> static std::vector<T> read(FILE *file, size_t count) {
    std::vector<T> values(count);
    if (fread(values.data(), sizeof(T), count, file) != count)
        exit(2);
    return values;
}

template <typename T> static void write(FILE *file, const std::vector<T> &values) {
    if (fwrite(values.data(), sizeof(T), values.size(), file) != values.size())
        exit(2);
}

int main(int, char **args) {
    FILE *input = fopen(args[1], "rb"), *output = fopen(args[2], "wb");
    if (!input || !output)
        return 2;
    const auto header = read<unsigned>(input, 3);
    const unsigned images = header[0], start = header[1], count = header[2], groups = (count + GROUP - 1) / GROUP;
    constexpr unsigned IMAGE = Values<0>::LEN;
    const auto epoch = read<Epoch>(input, 1);
    const auto coefficients = read<Coefficients>(input, 1);
    const float scale = 1.0f / count;
    auto params = read<float>(input, NUM_PARAMS), moment1 = read<float>(input, NUM_PARAMS), moment2 = read<float>(input, NUM_PARAMS);
    auto mean = read<float>(input, NUM_PARAMS);
    const auto pixels = read<uint8_t>(input, images * IMAGE), labels = read<uint8_t>(input, images);

    std::vector<float> all_logits(images * CLASSES, NAN), loss(images, NAN);
    std::vector<uint8_t> correct(images, 0xff);
    std::vector<Trace> traces(count);
    memset(static_cast<void *>(traces.data()), 0xff, count * sizeof(Trace));
    std::vector<float> conv_grads(groups * CONV_PARAMS, NAN);

    host::launch((images + GROUP - 1) / GROUP, THREADS, LOGITS_BYTES, [&] { logits(pixels.data(), images, params.data(), all_logits.data()); });
    host::launch(groups, THREADS, GRADIENTS_BYTES, [&] {
        gradients(pixels.data(), labels.data(), epoch.data(), start, count, scale, params.data(), loss.data(), correct.data(), traces.data(), conv_grads.data());
    });
    // First run the kernels for several devices, on copies of the state.
    auto shared_params = params, shared_moment1 = moment1, shared_moment2 = moment2, shared_mean = mean;
    std::vector<float> grads(NUM_PARAMS, NAN);
    host::launch(UPDATE_BLOCKS, THREADS, 0, [&] { sum_gradients(traces.data(), count, conv_grads.data(), groups, grads.data()); });
    host::launch((NUM_PARAMS + THREADS - 1) / THREADS, THREADS, 0, [&] {
        adam(grads.data(), coefficients.data(), 0, shared_params.data(), shared_moment1.data(), shared_moment2.data());
    });
    auto take_into = [&](std::vector<float> &mean, const std::vector<float> &params) {
        host::launch((NUM_PARAMS + THREADS - 1) / THREADS, THREADS, 0, [&] { average(params.data(), coefficients.data(), 0, mean.data()); });
    };
    take_into(shared_mean, shared_params);
    host::launch(UPDATE_BLOCKS, THREADS, 0, [&] {
        update(traces.data(), count, conv_grads.data(), groups, coefficients.data(), 0, params.data(), moment1.data(), moment2.data());
    });
    take_into(mean, params);

    write(output, all_logits);
    write(output, loss);
    write(output, correct);
    write(output, params);
    write(output, moment1);
    write(output, moment2);
    write(output, mean);
    write(output, grads);
    write(output, shared_params);
    write(output, shared_moment1);
    write(output, shared_moment2);
    write(output, shared_mean);
    fclose(input);
    if (host::skip.launch >= 0 && !host::skip.done)
        return 3; // There is no such barrier.
    return fclose(output) == 0 ? 0 : 2;
}
