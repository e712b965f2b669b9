// A stand-in for the CUDA driver's libcuda.so: the entry points that the trainer uses through cudarc, over the kernels
// of step.cu compiled for the host. Device memory is host memory that starts as NaN.
//
//   g++ -std=c++17 -O2 -ffp-contract=off -fPIC -shared -Wl,-soname,libcuda.so -include cuda_host.hpp standin.cpp ...
//
// Refuses what a driver refuses, and says on stderr what it was: pointers that no allocation holds, copies out of
// bounds, work on a context that is not current, what a stream capture does not allow. The PTX it is handed must
// have kernels with the host build's parameters. For tests, besides the driver's own entry points:
//
//   standin_fail(name, nth, code)   the nth call of an entry point from now on returns `code`; 0 for none.
//                                   STANDIN_FAIL="name nth code" in the environment does the same from the start
//   standin_calls(name)             calls of an entry point so far
//   standin_allocations()           allocations that are alive
#include <chrono>
#include STEP_CU // -DSTEP_CU="...": the path of the kernels.

#define API extern "C" __attribute__((visibility("default")))
// The name of an entry point, counted; returns early if it is to fail.
#define ENTRY                                                                                                          \
    if (int error = entered(__func__))                                                                                 \
        return error

using Address = uintptr_t; // CUdeviceptr
using Work = std::function<void()>;

enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_DEVICE = 101, INVALID_IMAGE = 200,
       INVALID_CONTEXT = 201, INVALID_HANDLE = 400, NOT_FOUND = 500, CAPTURE_UNSUPPORTED = 900 };

struct Stream { bool capturing; std::vector<Work> captured; };
struct Graph { std::vector<Work> work; };

static std::map<std::string, long> calls;
static std::string failing;
static long failing_in, failing_code;
static std::map<Address, size_t> memory; // Bytes of each allocation.
static void *current_context;
static char the_context;

API void standin_fail(const char *name, int nth, int code) {
    failing = name;
    failing_in = nth;
    failing_code = code;
}
API long standin_calls(const char *name) { return calls[name]; }
API long standin_allocations() { return memory.size(); }

// After the variables above: a static, not a constructor function, which would run before them.
static const bool from_environment = [] {
    char name[64];
    int nth, code;
    const char *setting = getenv("STANDIN_FAIL");
    const bool set = setting && sscanf(setting, "%63s %d %d", name, &nth, &code) == 3;
    if (set)
        standin_fail(name, nth, code);
    return set;
}();

static int entered(const char *name) {
    calls[name]++;
    return name == failing && --failing_in == 0 ? int(failing_code) : int(SUCCESS);
}

static int refuse(int code, const char *reason) {
    fprintf(stderr, "stand-in libcuda: %s\n", reason);
    return code;
}

static bool holds(Address from, size_t bytes) {
    auto next = memory.upper_bound(from);
    return next != memory.begin() && from + bytes <= std::prev(next)->first + std::prev(next)->second;
}

// Does the work, or keeps it for the graph.
static int submit(Stream *stream, Work work) {
    if (current_context != &the_context)
        return refuse(INVALID_CONTEXT, "no context is current");
    if (stream && stream->capturing)
        stream->captured.push_back(std::move(work));
    else
        work();
    return SUCCESS;
}

API int cuInit(unsigned) { ENTRY; return SUCCESS; }
API int cuDriverGetVersion(int *version) {
    ENTRY;
    const char *setting = getenv("STANDIN_VERSION");
    *version = setting ? atoi(setting) : 12000;
    return SUCCESS;
}
API int cuGetErrorName(int, const char **name) { ENTRY; *name = "CUDA_ERROR"; return SUCCESS; }
API int cuGetErrorString(int, const char **text) { ENTRY; *text = "an error"; return SUCCESS; }

API int cuDeviceGetCount(int *count) { ENTRY; *count = 1; return SUCCESS; }
API int cuDeviceGet(int *device, int ordinal) { ENTRY; *device = 0; return ordinal == 0 ? SUCCESS : INVALID_DEVICE; }
API int cuDeviceGetName(char *name, int length, int) { ENTRY; snprintf(name, length, "stand-in"); return SUCCESS; }
API int cuDeviceGetAttribute(int *value, int attribute, int) {
    ENTRY;
    // Compute capability 9.0, memory pools.
    *value = attribute == 75 ? 9 : attribute == 115 ? 1 : 0;
    return SUCCESS;
}
API int cuDevicePrimaryCtxRetain(void **context, int) { ENTRY; *context = &the_context; return SUCCESS; }
API int cuDevicePrimaryCtxRelease_v2(int) { ENTRY; return SUCCESS; }
API int cuCtxGetCurrent(void **context) { ENTRY; *context = current_context; return SUCCESS; }
API int cuCtxSetCurrent(void *context) { ENTRY; current_context = context; return SUCCESS; }

API int cuMemAllocAsync(Address *address, size_t bytes, Stream *stream) {
    ENTRY;
    if (bytes == 0)
        return refuse(INVALID_VALUE, "an allocation of 0 bytes");
    if (stream && stream->capturing)
        return refuse(CAPTURE_UNSUPPORTED, "an allocation during capture");
    void *place = aligned_alloc(256, (bytes + 255) / 256 * 256);
    memset(place, 0xff, bytes);
    *address = reinterpret_cast<Address>(place);
    memory[*address] = bytes;
    return SUCCESS;
}
API int cuMemFreeAsync(Address address, Stream *) {
    ENTRY;
    if (memory.erase(address) == 0)
        return refuse(INVALID_VALUE, "a free of what was not allocated");
    free(reinterpret_cast<void *>(address));
    return SUCCESS;
}
API int cuMemAlloc_v2(Address *address, size_t bytes) { return cuMemAllocAsync(address, bytes, nullptr); }
API int cuMemFree_v2(Address address) { return cuMemFreeAsync(address, nullptr); }
API int cuMemcpyHtoDAsync_v2(Address to, const void *from, size_t bytes, Stream *stream) {
    ENTRY;
    if (!holds(to, bytes))
        return refuse(INVALID_VALUE, "a copy to the device out of bounds");
    if (stream && stream->capturing)
        return refuse(CAPTURE_UNSUPPORTED, "a copy of pageable memory during capture");
    return submit(stream, [=] { memcpy(reinterpret_cast<void *>(to), from, bytes); });
}
API int cuMemcpyDtoHAsync_v2(void *to, Address from, size_t bytes, Stream *stream) {
    ENTRY;
    if (!holds(from, bytes))
        return refuse(INVALID_VALUE, "a copy from the device out of bounds");
    if (stream && stream->capturing)
        return refuse(CAPTURE_UNSUPPORTED, "a copy to pageable memory during capture");
    return submit(stream, [=] { memcpy(to, reinterpret_cast<void *>(from), bytes); });
}
API int cuMemsetD8Async(Address to, unsigned char value, size_t bytes, Stream *stream) {
    ENTRY;
    if (!holds(to, bytes))
        return refuse(INVALID_VALUE, "a memset out of bounds");
    return submit(stream, [=] { memset(reinterpret_cast<void *>(to), value, bytes); });
}

// Bytes of each parameter of a kernel in PTX: `.param .u64 name,` and so on.
static std::vector<size_t> ptx_parameters(const std::string &ptx, size_t entry) {
    std::vector<size_t> sizes;
    const std::string list = ptx.substr(entry, ptx.find(')', entry) - entry);
    for (size_t at = 0; (at = list.find(".param .", at)) != std::string::npos; at++)
        sizes.push_back(std::stoul(list.substr(at + 9)) / 8);
    return sizes;
}

API int cuModuleLoadData(void **module, const void *image) {
    ENTRY;
    const std::string ptx = static_cast<const char *>(image);
    for (const auto &[name, kernel] : host::kernels) {
        const size_t entry = ptx.find(".visible .entry " + name + "(");
        if (entry == std::string::npos || ptx_parameters(ptx, entry) != kernel.sizes)
            return refuse(INVALID_IMAGE, (name + ": the PTX has not the host build's parameters").c_str());
    }
    *module = &host::kernels;
    return SUCCESS;
}
API int cuModuleUnload(void *) { ENTRY; return SUCCESS; }
API int cuModuleGetFunction(host::Kernel **function, void *, const char *name) {
    ENTRY;
    const auto found = host::kernels.find(name);
    if (found == host::kernels.end())
        return refuse(NOT_FOUND, "no such kernel");
    *function = &found->second;
    return SUCCESS;
}
API int cuLaunchKernel(host::Kernel *kernel, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned dynamic,
                       Stream *stream, void **args, void **) {
    ENTRY;
    if (gx == 0 || gy * gz * by * bz != 1 || bx != THREADS || dynamic != 0)
        return refuse(INVALID_VALUE, "a launch of another shape than the kernels are written for");
    for (size_t i = 0; i < kernel->sizes.size(); i++)
        if (kernel->pointers[i] && !holds(*static_cast<Address *>(args[i]), 1))
            return refuse(INVALID_VALUE, "a kernel's argument is no device pointer");
    return submit(stream, [=, call = kernel->bind(args)] { host::launch(gx, bx, call); });
}

API int cuStreamCreate(Stream **stream, unsigned) { ENTRY; *stream = new Stream{}; return SUCCESS; }
API int cuStreamDestroy_v2(Stream *stream) { ENTRY; delete stream; return SUCCESS; }
API int cuStreamSynchronize(Stream *stream) {
    ENTRY;
    return stream && stream->capturing ? refuse(CAPTURE_UNSUPPORTED, "a synchronisation during capture") : SUCCESS;
}
// Milliseconds on a clock that has the kernels' time on the host.
struct Event { double recorded_ms; };
API int cuEventCreate(Event **event, unsigned) { ENTRY; *event = new Event{NAN}; return SUCCESS; }
API int cuEventDestroy_v2(Event *event) { ENTRY; delete event; return SUCCESS; }
API int cuEventRecord(Event *event, Stream *stream) {
    ENTRY;
    return submit(stream, [=] {
        event->recorded_ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count();
    });
}
API int cuEventSynchronize(Event *) { ENTRY; return SUCCESS; }
API int cuEventElapsedTime(float *ms, Event *start, Event *end) {
    ENTRY;
    *ms = end->recorded_ms - start->recorded_ms;
    return std::isnan(*ms) ? INVALID_HANDLE : SUCCESS;
}
API int cuStreamBeginCapture_v2(Stream *stream, int) {
    ENTRY;
    if (!stream || stream->capturing)
        return refuse(CAPTURE_UNSUPPORTED, "a capture of the default stream, or within another");
    stream->capturing = true;
    return SUCCESS;
}
API int cuStreamEndCapture(Stream *stream, Graph **graph) {
    ENTRY;
    *graph = new Graph{std::move(stream->captured)};
    *stream = {};
    return SUCCESS;
}
API int cuGraphInstantiateWithFlags(Graph **executable, Graph *graph, unsigned long long) { ENTRY; *executable = new Graph(*graph); return SUCCESS; }
API int cuGraphLaunch(Graph *executable, Stream *stream) {
    ENTRY;
    return submit(stream, [=] { for (const Work &work : executable->work) work(); });
}
API int cuGraphExecDestroy(Graph *executable) { ENTRY; delete executable; return SUCCESS; }
API int cuGraphDestroy(Graph *graph) { ENTRY; delete graph; return SUCCESS; }
