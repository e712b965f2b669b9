// Compiles CUDA C++ for the host and runs it there, on one core: one fiber per CUDA thread, one block after another.
//
//   g++ -std=c++17 -ffp-contract=off -include cuda_host.hpp -x c++ step.cu ...
//
// It supports only what step.cu uses: one-dimensional launches, __syncthreads, __shfl_xor_sync over full warps, static and
// dynamic shared memory, and float4. The environment variable CUDA_HOST_ORDER (fwd, rev, or a number, which seeds a new order
// each time) sets the order in which the threads of a block and the blocks of a launch run; a result that depends on it
// reveals a race. Shared memory initially contains NaN. ThreadSanitizer is told that barriers order threads and shuffles do
// not, and AddressSanitizer is told about the stacks and the bounds of shared memory. A barrier that only some threads reach
// ends the program.
//
// CUDA_HOST_SKIP="LAUNCH BARRIER BLOCK" leaves out a barrier, to show whether the sanitizers detect that it is missing. All
// three numbers count from 0; BLOCK may be -1 for all blocks.
//
// Two kinds of mistakes are not detected: missing synchronisation between streams, because kernels run at launch, and
// inaccuracies of approximate instructions, which are exact here.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>
#ifndef __x86_64__
#error "cuda_host.hpp switches fibers in x86-64 assembly"
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define ASAN(call) call
#else
#define ASAN(call)
#endif
#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#define TSAN(call) call
#define UNSEEN __attribute__((no_sanitize("thread"))) // Excludes the scheduler from the checks.
#else
#define TSAN(call)
#define UNSEEN
#endif

// Saves the callee-saved registers and the stack pointer, and continues at the context `to`.
extern "C" void cuda_host_switch(void **save, void *to);
__asm__(".text\n"
        ".type cuda_host_switch, @function\n"
        "cuda_host_switch:\n"
        "  push %rbp; push %rbx; push %r12; push %r13; push %r14; push %r15\n"
        "  mov %rsp, (%rdi)\n"
        "  mov %rsi, %rsp\n"
        "  pop %r15; pop %r14; pop %r13; pop %r12; pop %rbx; pop %rbp\n"
        "  ret\n");

namespace host {

constexpr size_t STACK = 64 << 10, DECLARED_BYTES = 16 << 10, LAUNCH_BYTES = 227 << 10;
constexpr unsigned WARP = 32;

enum State { READY, AT_BARRIER, AT_SHUFFLE, DONE };

struct Fiber {
    void *context;       // The stack pointer while it does not run.
    std::unique_ptr<char[]> stack;
    unsigned thread;
    State state;
    int site;            // The line of the source at which it waits.
    float sent[2];       // The values for shuffles; two, because a lane may be one shuffle ahead of another.
    unsigned shuffles, barriers;
    void *asan, *tsan;   // The sanitizers' handles.
};

struct Index { unsigned x; };
inline Index block, blocks, threads;
inline std::vector<Fiber> fibers;
inline Fiber *current;
inline const std::function<void()> *kernel;
alignas(16) inline char declared[DECLARED_BYTES], at_launch[LAUNCH_BYTES]; // The memory behind the used part is poisoned.
inline size_t launch_bytes;
inline struct Skip {
    int launch = -1, barrier = 0, block = 0;
    bool done = false;
    Skip() {
        if (const char *setting = getenv("CUDA_HOST_SKIP"))
            sscanf(setting, "%d %d %d", &launch, &barrier, &block);
    }
} skip;
inline int launches;
inline void *main_context, *main_asan, *main_tsan;
inline const void *main_stack;
inline size_t main_stack_size;
inline char started, ended, barriers[2];
inline unsigned barrier; // Selects one of the two: a thread at the next barrier is not ordered before one that is still at this one.

[[noreturn]] UNSEEN inline void fail(const char *problem) {
    fprintf(stderr, "cuda_host: %s, block %u\n", problem, block.x);
    for (const Fiber &f : fibers)
        if (f.state != DONE)
            fprintf(stderr, "  thread %u: %s, site %d\n", f.thread, f.state == AT_BARRIER ? "barrier" : f.state == AT_SHUFFLE ? "shuffle" : "ready", f.site);
    abort();
}

UNSEEN inline void leave([[maybe_unused]] bool for_good) {
    ASAN(__sanitizer_start_switch_fiber(for_good ? nullptr : &current->asan, main_stack, main_stack_size);)
    TSAN(__tsan_switch_to_fiber(main_tsan, __tsan_switch_to_fiber_no_sync);)
    cuda_host_switch(&current->context, main_context);
    ASAN(__sanitizer_finish_switch_fiber(current->asan, &main_stack, &main_stack_size);)
}

UNSEEN inline void enter(Fiber &fiber) {
    current = &fiber;
    ASAN(__sanitizer_start_switch_fiber(&main_asan, fiber.stack.get(), STACK);)
    TSAN(__tsan_switch_to_fiber(fiber.tsan, __tsan_switch_to_fiber_no_sync);)
    cuda_host_switch(&main_context, fiber.context);
    ASAN(__sanitizer_finish_switch_fiber(main_asan, nullptr, nullptr);)
}

UNSEEN inline void body() {
    ASAN(__sanitizer_finish_switch_fiber(nullptr, &main_stack, &main_stack_size);)
    TSAN(__tsan_acquire(&started);)
    (*kernel)();
    TSAN(__tsan_release(&ended);)
    current->state = DONE;
    leave(true);
}

UNSEEN inline void wait(State state, int site) {
    current->state = state;
    current->site = site;
    leave(false);
}

UNSEEN inline void syncthreads(int site) {
    const int number = current->barriers++;
    if (launches - 1 == skip.launch && number == skip.barrier && (skip.block == -1 || skip.block == int(block.x))) {
        skip.done = true;
        return;
    }
    TSAN(char *order = &barriers[barrier % 2]; __tsan_release(order);)
    wait(AT_BARRIER, site);
    TSAN(__tsan_acquire(order);)
}

UNSEEN inline float shuffle_xor(unsigned lanes, float value, unsigned mask, int site) {
    if (lanes != 0xffffffff)
        fail("a shuffle without all lanes");
    const unsigned slot = current->shuffles++ % 2;
    current->sent[slot] = value;
    wait(AT_SHUFFLE, site);
    return fibers[current->thread ^ mask].sent[slot];
}

// Releases the threads of a block, or the lanes of a warp, that have all reached the same barrier or shuffle.
UNSEEN inline void release() {
    auto all_at = [](size_t from, size_t to, State state) {
        return std::all_of(&fibers[from], &fibers[0] + to, [&](const Fiber &f) { return f.state == state && f.site == fibers[from].site; });
    };
    bool any = false;
    if (all_at(0, fibers.size(), AT_BARRIER)) {
        any = true;
        barrier++;
        for (Fiber &f : fibers)
            f.state = READY;
    }
    for (size_t warp = 0; warp < fibers.size(); warp += WARP)
        if (all_at(warp, warp + WARP, AT_SHUFFLE)) {
            any = true;
            for (size_t i = warp; i < warp + WARP; i++)
                fibers[i].state = READY;
        }
    if (!any)
        fail("no thread can go on: a barrier or a shuffle that only some reach");
}

UNSEEN inline void run_block(const std::function<void(std::vector<unsigned> &)> &arrange) {
    ASAN(__asan_unpoison_memory_region(declared, sizeof declared);)
    memset(declared, 0xff, sizeof declared); // NaN, written before the threads start.
    memset(at_launch, 0xff, launch_bytes);
    TSAN(__tsan_release(&started);)
    for (Fiber &f : fibers) {
        ASAN(__asan_unpoison_memory_region(f.stack.get(), STACK);)
        // Prepare the stack as if `body` had called cuda_host_switch: six registers, the address of `body`, and the alignment after
        // a call.
        void **top = reinterpret_cast<void **>(f.stack.get() + STACK) - 8;
        std::fill(top, top + 8, nullptr);
        top[6] = reinterpret_cast<void *>(body);
        f.context = top;
        f.state = READY;
        f.shuffles = f.barriers = 0;
    }
    std::vector<unsigned> order(fibers.size());
    for (;;) {
        bool ready = false, done = true;
        arrange(order);
        for (unsigned i : order) {
            if (fibers[i].state == READY)
                enter(fibers[i]);
            ready |= fibers[i].state == READY;
            done &= fibers[i].state == DONE;
        }
        if (done)
            break;
        if (!ready)
            release();
    }
    TSAN(__tsan_acquire(&ended);)
}

// Runs `call`, a kernel with its arguments, with `bytes` bytes of dynamic shared memory per block, and waits for it.
UNSEEN inline void launch(unsigned grid, unsigned block_threads, size_t bytes, const std::function<void()> &call) {
    if (bytes > LAUNCH_BYTES)
        fail("more shared memory than any GPU has");
    launches++;
    launch_bytes = bytes;
    ASAN(__asan_unpoison_memory_region(at_launch, bytes); __asan_poison_memory_region(at_launch + bytes, LAUNCH_BYTES - bytes);)
    const char *setting = getenv("CUDA_HOST_ORDER");
    const std::string name = setting ? setting : "fwd";
    std::mt19937 random(name == "fwd" || name == "rev" ? 0 : std::stoul(name));
    auto arrange = [&](std::vector<unsigned> &order) {
        for (size_t i = 0; i < order.size(); i++)
            order[i] = name == "rev" ? order.size() - 1 - i : i;
        if (name != "fwd" && name != "rev")
            std::shuffle(order.begin(), order.end(), random);
    };
    while (fibers.size() < block_threads)
        fibers.push_back({nullptr, std::unique_ptr<char[]>(new char[STACK]), unsigned(fibers.size()), DONE, 0, {}, 0, 0, nullptr, nullptr});
    if (fibers.size() != block_threads || block_threads % WARP != 0)
        fail("blocks must have one size, whole warps");
    TSAN(main_tsan = __tsan_get_current_fiber(); for (Fiber &f : fibers) if (!f.tsan) f.tsan = __tsan_create_fiber(0);)
    blocks.x = grid;
    threads.x = block_threads;
    kernel = &call;
    std::vector<unsigned> order(grid);
    arrange(order);
    for (unsigned b : order) {
        block.x = b;
        run_block(arrange);
    }
}

// Returns the static shared memory of a kernel, which may declare it only once. It is the same for all threads of a block.
template <size_t BYTES> UNSEEN char *declared_memory() {
    static_assert(BYTES < DECLARED_BYTES);
    ASAN(__asan_poison_memory_region(declared + BYTES, DECLARED_BYTES - BYTES);)
    return declared;
}

// A kernel as the driver launches it: found by the fingerprint of its network and its name, with pointers to its arguments.
struct Kernel {
    unsigned threads;
    size_t bytes; // Dynamic shared memory that the launch must provide.
    std::vector<size_t> sizes; // The sizes of its parameters, in bytes.
    std::vector<bool> pointers;
    std::function<std::function<void()>(void **)> bind;
};
inline std::map<unsigned long long, std::map<std::string, Kernel>> kernels;

template <typename... Args, size_t... I>
std::function<void()> bound(void (*f)(Args...), void **args, std::index_sequence<I...>) {
    return [f, values = std::make_tuple(*static_cast<Args *>(args[I])...)] { std::apply(f, values); };
}

template <typename... Args>
bool add(unsigned long long network, const char *name, unsigned threads, size_t bytes, void (*f)(Args...)) {
    kernels[network][name] = {threads, bytes, {sizeof(Args)...}, {std::is_pointer_v<Args>...}, [f](void **args) { return bound(f, args, std::index_sequence_for<Args...>{}); }};
    return true;
}

} // namespace host

// The CUDA keywords and functions that step.cu uses.
#define CUDA_HOST
#define EXPORT static
#define SHARED(type, name) type &name = *reinterpret_cast<type *>(host::declared_memory<sizeof(type)>())
#define SHARED_AT_LAUNCH(name) float *const name = reinterpret_cast<float *>(host::at_launch)
#define KERNEL(name, bytes) static const bool name##_added = host::add(FINGERPRINT, #name, THREADS, bytes, name);
#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)
#define threadIdx host::Index{host::current->thread}
#define blockIdx host::block
#define blockDim host::threads
#define gridDim host::blocks
#define __syncthreads() host::syncthreads(__LINE__)
#define __shfl_xor_sync(lanes, value, mask) host::shuffle_xor(lanes, value, mask, __LINE__)
struct alignas(16) float4 { float x, y, z, w; };
