// A stand-in for the CUDA driver's libcuda.so. It provides the entry points that the trainer uses through cudarc, and runs the
// kernels of step.cu compiled for the host. Device memory is host memory that initially contains NaN.
//
//   g++ -std=c++17 -O2 -ffp-contract=off -fPIC -shared -Wl,-soname,libcuda.so -include cuda_host.hpp standin.cpp ...
//
// The environment variable STANDIN_DEVICES sets the number of devices; the default is one. Each device has its own context, memory
// and streams, and 227 KiB of shared memory per block, or as many bytes as STANDIN_SHARED says.
//
// The stand-in refuses calls that a driver would refuse, and prints the reason to stderr: pointers outside the allocations of the
// device, copies out of bounds, work for a device whose context is not current, calls that are not allowed during a stream capture,
// and waits for work that cannot begin. The kernels in the loaded PTX must have the same parameters as those of the host build. For
// tests, it has these further functions:
//
//   standin_fail(name, nth, code)   makes the nth call of an entry point from now on return `code`; 0 for none.
//                                   STANDIN_FAIL="name nth code" in the environment does the same from the start
//   standin_calls(name)             returns the number of calls of an entry point so far
//   standin_allocations()           returns the number of allocations that have not been freed
//   standin_refusals()              returns the number of calls that were refused so far
//   standin_set_devices(n)          sets the number of devices
//
// standin.hpp declares further functions for the stand-in for NCCL (standin_nccl.cpp).
#include <chrono>
#include <deque>
#include <mutex>
#include <set>
#include STEP_CU // -DSTEP_CU="...": the path of the kernels, of several networks in namespaces.
#include "standin.hpp"

// Begins an entry point: locks the stand-in, counts the call, and returns early if the call is to fail.
#define ENTRY                                                                                                          \
    std::lock_guard<std::mutex> lock(turn);                                                                            \
    if (int error = standin_entered(__func__))                                                                         \
        return error

enum { SUCCESS = 0, INVALID_VALUE = 1, NO_DEVICE = 100, INVALID_DEVICE = 101, INVALID_IMAGE = 200, INVALID_CONTEXT = 201,
       INVALID_HANDLE = 400, ILLEGAL_STATE = 401, NOT_FOUND = 500, LAUNCH_TIMEOUT = 702, CAPTURE_UNSUPPORTED = 900 };

constexpr int MOST_DEVICES = 8;

// An item in a stream: work of this stream only, or a meeting, which runs when all its streams have reached it.
struct Item { Work work; std::shared_ptr<Meeting> meeting; };
struct Stream { int device; bool capturing; std::vector<Item> captured; std::deque<Item> queue; };
struct Graph { Stream *stream; std::vector<Item> items; };
struct Allocation { size_t bytes; int device; };
struct Context { int device; };
struct Function { host::Kernel *kernel; int device; size_t most_bytes; };
struct Module { std::map<std::string, Function> functions; };

static std::mutex turn;
static std::map<std::string, long> calls;
static std::string failing;
static long failing_in, failing_code;
static std::map<Address, Allocation> memory;
static std::set<Stream *> streams;
static Context contexts[MOST_DEVICES];
static thread_local Context *current_context;

API void standin_fail(const char *name, int nth, int code) {
    std::lock_guard<std::mutex> lock(turn);
    failing = name;
    failing_in = nth;
    failing_code = code;
}
API long standin_calls(const char *name) { return calls[name]; }
API long standin_allocations() { return memory.size(); }

// A static variable, because it must be initialised after the variables above; a constructor function would run before them.
static const bool from_environment = [] {
    char name[64];
    int nth, code;
    const char *setting = getenv("STANDIN_FAIL");
    const bool set = setting && sscanf(setting, "%63s %d %d", name, &nth, &code) == 3;
    if (set)
        standin_fail(name, nth, code);
    return set;
}();

API int standin_entered(const char *name) {
    calls[name]++;
    return name == failing && --failing_in == 0 ? int(failing_code) : int(SUCCESS);
}

static long refusals;
API int standin_refuse(int code, const char *reason) {
    refusals++;
    fprintf(stderr, "stand-in: %s\n", reason);
    return code;
}
API long standin_refusals() { return refusals; }

static int devices = [] {
    const char *setting = getenv("STANDIN_DEVICES");
    return setting ? atoi(setting) : 1;
}();
API void standin_set_devices(int count) { devices = count; }
API int standin_devices() { return devices; }
API bool standin_holds(int device, Address from, size_t bytes) {
    auto next = memory.upper_bound(from);
    if (next == memory.begin())
        return false;
    const auto &[start, allocation] = *std::prev(next);
    return allocation.device == device && from + bytes <= start + allocation.bytes;
}
API int standin_device(const Stream *stream) { return streams.count(const_cast<Stream *>(stream)) ? stream->device : -1; }
API bool standin_capturing(const Stream *stream) { return stream->capturing; }

// Runs everything that can run: the first item of each stream, and meetings that all their streams have reached.
static void advance() {
    for (bool any = true; any;) {
        any = false;
        for (Stream *stream : streams)
            while (!stream->queue.empty()) {
                const Item item = stream->queue.front();
                auto has_come = [&](Stream *other) {
                    return streams.count(other) && !other->queue.empty() && other->queue.front().meeting == item.meeting;
                };
                const std::vector<Stream *> together = item.meeting ? item.meeting->streams : std::vector<Stream *>{stream};
                if (item.meeting && !std::all_of(together.begin(), together.end(), has_come))
                    break;
                (item.meeting ? item.meeting->work : item.work)();
                for (Stream *other : together)
                    other->queue.pop_front();
                any = true;
            }
    }
}

// Adds an item to the graph that the stream captures, or to the stream.
static int submit(Stream *stream, Item item) {
    if (!streams.count(stream))
        return standin_refuse(INVALID_HANDLE, "no such stream");
    if (current_context != &contexts[stream->device])
        return standin_refuse(INVALID_CONTEXT, "the context of the stream's device is not current");
    if (stream->capturing)
        stream->captured.push_back(std::move(item));
    else
        stream->queue.push_back(std::move(item));
    advance();
    return SUCCESS;
}
static int submit(Stream *stream, Work work) { return submit(stream, Item{std::move(work), nullptr}); }

API void standin_meet(std::shared_ptr<Meeting> meeting) {
    std::lock_guard<std::mutex> lock(turn);
    for (Stream *stream : meeting->streams)
        (stream->capturing ? (void)stream->captured.push_back({nullptr, meeting}) : (void)stream->queue.push_back({nullptr, meeting}));
    advance();
}

// Waits for a stream. Items that have not run by now would wait for something that has not been submitted.
static int wait(const Stream *stream) {
    return stream->queue.empty() ? SUCCESS : standin_refuse(LAUNCH_TIMEOUT, "a wait that never ends");
}

API int cuInit(unsigned) {
    ENTRY;
    for (int device = 0; device < MOST_DEVICES; device++)
        contexts[device].device = device;
    return SUCCESS;
}
API int cuDriverGetVersion(int *version) {
    ENTRY;
    const char *setting = getenv("STANDIN_VERSION");
    *version = setting ? atoi(setting) : 12000;
    return SUCCESS;
}
API int cuGetErrorName(int, const char **name) { ENTRY; *name = "CUDA_ERROR"; return SUCCESS; }
API int cuGetErrorString(int, const char **text) { ENTRY; *text = "an error"; return SUCCESS; }

API int cuDeviceGetCount(int *count) { ENTRY; *count = standin_devices(); return SUCCESS; }
API int cuDeviceGet(int *device, int ordinal) { ENTRY; *device = ordinal; return ordinal < standin_devices() ? SUCCESS : INVALID_DEVICE; }
API int cuDeviceGetName(char *name, int length, int) { ENTRY; snprintf(name, length, "stand-in"); return SUCCESS; }
static int shared_bytes() {
    const char *setting = getenv("STANDIN_SHARED");
    return setting ? atoi(setting) : 227 << 10;
}
API int cuDeviceGetAttribute(int *value, int attribute, int) {
    ENTRY;
    // The compute capability 9.0, memory pools, and the shared memory of a block that opts in.
    *value = attribute == 75 ? 9 : attribute == 115 ? 1 : attribute == 97 ? shared_bytes() : 0;
    return SUCCESS;
}
API int cuDevicePrimaryCtxRetain(Context **context, int device) { ENTRY; *context = &contexts[device]; return SUCCESS; }
API int cuDevicePrimaryCtxRelease_v2(int) { ENTRY; return SUCCESS; }
API int cuCtxGetCurrent(Context **context) { ENTRY; *context = current_context; return SUCCESS; }
API int cuCtxSetCurrent(Context *context) { ENTRY; current_context = context; return SUCCESS; }

API int cuMemAllocAsync(Address *address, size_t bytes, Stream *stream) {
    ENTRY;
    if (bytes == 0)
        return standin_refuse(INVALID_VALUE, "an allocation of 0 bytes");
    if (stream->capturing)
        return standin_refuse(CAPTURE_UNSUPPORTED, "an allocation during capture");
    void *place = aligned_alloc(256, (bytes + 255) / 256 * 256);
    memset(place, 0xff, bytes);
    *address = reinterpret_cast<Address>(place);
    memory[*address] = {bytes, stream->device};
    return SUCCESS;
}
API int cuMemFreeAsync(Address address, Stream *) {
    ENTRY;
    if (memory.erase(address) == 0)
        return standin_refuse(INVALID_VALUE, "a free of what was not allocated");
    free(reinterpret_cast<void *>(address));
    return SUCCESS;
}
// The backend calls these only for devices without memory pools, but these devices have them.
API int cuMemAlloc_v2(Address *, size_t) { return standin_refuse(INVALID_VALUE, "an allocation that waits"); }
API int cuMemFree_v2(Address) { return standin_refuse(INVALID_VALUE, "a free that waits"); }
API int cuMemcpyHtoDAsync_v2(Address to, const void *from, size_t bytes, Stream *stream) {
    ENTRY;
    if (!standin_holds(stream->device, to, bytes))
        return standin_refuse(INVALID_VALUE, "a copy to the device out of bounds");
    if (stream->capturing)
        return standin_refuse(CAPTURE_UNSUPPORTED, "a copy of pageable memory during capture");
    const char *start = static_cast<const char *>(from);
    const std::vector<char> values(start, start + bytes); // A copy, because the caller may free its memory before this runs.
    return submit(stream, [=] { memcpy(reinterpret_cast<void *>(to), values.data(), bytes); });
}
API int cuMemcpyDtoHAsync_v2(void *to, Address from, size_t bytes, Stream *stream) {
    ENTRY;
    if (!standin_holds(stream->device, from, bytes))
        return standin_refuse(INVALID_VALUE, "a copy from the device out of bounds");
    if (stream->capturing)
        return standin_refuse(CAPTURE_UNSUPPORTED, "a copy to pageable memory during capture");
    const int error = submit(stream, [=] { memcpy(to, reinterpret_cast<void *>(from), bytes); });
    return error ? error : wait(stream);
}
API int cuMemsetD8Async(Address to, unsigned char value, size_t bytes, Stream *stream) {
    ENTRY;
    if (!standin_holds(stream->device, to, bytes))
        return standin_refuse(INVALID_VALUE, "a memset out of bounds");
    return submit(stream, [=] { memset(reinterpret_cast<void *>(to), value, bytes); });
}

// Returns the size in bytes of each parameter of a kernel in PTX, which are declared like `.param .u64 name,`.
static std::vector<size_t> ptx_parameters(const std::string &ptx, size_t entry) {
    std::vector<size_t> sizes;
    const std::string list = ptx.substr(entry, ptx.find(')', entry) - entry);
    for (size_t at = 0; (at = list.find(".param .", at)) != std::string::npos; at++)
        sizes.push_back(std::stoul(list.substr(at + 9)) / 8);
    return sizes;
}

API int cuModuleLoadData(Module **module, const void *image) {
    ENTRY;
    const std::string ptx = static_cast<const char *>(image);
    unsigned long long network;
    if (sscanf(ptx.c_str(), "// The kernels for the network of fingerprint %llx", &network) != 1 || !host::kernels.count(network))
        return standin_refuse(INVALID_IMAGE, "the host build has no network with the fingerprint of this PTX");
    auto &kernels = host::kernels[network];
    for (const auto &[name, kernel] : kernels) {
        const size_t entry = ptx.find(".visible .entry " + name + "(");
        if (entry == std::string::npos || ptx_parameters(ptx, entry) != kernel.sizes)
            return standin_refuse(INVALID_IMAGE, (name + ": its parameters in the PTX differ from those of the host build").c_str());
    }
    *module = new Module{};
    for (auto &[name, kernel] : kernels)
        (*module)->functions[name] = {&kernel, current_context->device, 48 << 10};
    return SUCCESS;
}
API int cuModuleUnload(Module *module) { ENTRY; delete module; return SUCCESS; }
API int cuModuleGetFunction(Function **function, Module *module, const char *name) {
    ENTRY;
    const auto found = module->functions.find(name);
    if (found == module->functions.end())
        return standin_refuse(NOT_FOUND, "no such kernel");
    *function = &found->second;
    return SUCCESS;
}
API int cuFuncSetAttribute(Function *function, int attribute, int value) {
    ENTRY;
    if (attribute != 8 || value > shared_bytes())
        return standin_refuse(INVALID_VALUE, "more shared memory than the device has, or another attribute");
    function->most_bytes = value;
    return SUCCESS;
}
API int cuLaunchKernel(Function *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned dynamic,
                       Stream *stream, void **args, void **) {
    ENTRY;
    const auto &[kernel, device, most_bytes] = *function;
    if (device != stream->device)
        return standin_refuse(INVALID_HANDLE, "a kernel that is loaded on another device");
    if (gx == 0 || gy * gz * by * bz != 1 || bx != kernel->threads || dynamic != kernel->bytes)
        return standin_refuse(INVALID_VALUE, "a launch of another shape than the kernels are written for");
    if (dynamic > most_bytes)
        return standin_refuse(INVALID_VALUE, "more shared memory than the kernel was allowed");
    for (size_t i = 0; i < kernel->sizes.size(); i++)
        if (kernel->pointers[i] && !standin_holds(device, *static_cast<Address *>(args[i]), 1))
            return standin_refuse(INVALID_VALUE, "a kernel's argument is no pointer of the device");
    return submit(stream, [=, call = kernel->bind(args)] { host::launch(gx, bx, dynamic, call); });
}

API int cuStreamCreate(Stream **stream, unsigned) {
    ENTRY;
    *stream = new Stream{current_context->device, false, {}, {}};
    streams.insert(*stream);
    return SUCCESS;
}
API int cuStreamDestroy_v2(Stream *stream) { ENTRY; streams.erase(stream); delete stream; return SUCCESS; }
API int cuStreamSynchronize(Stream *stream) {
    ENTRY;
    if (stream->capturing)
        return standin_refuse(CAPTURE_UNSUPPORTED, "a synchronisation during capture");
    return wait(stream);
}
// An event records the time of the host's clock in milliseconds, so it measures the time of the kernels on the host.
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
        return standin_refuse(CAPTURE_UNSUPPORTED, "a capture of the default stream, or within another");
    stream->capturing = true;
    return SUCCESS;
}
API int cuStreamEndCapture(Stream *stream, Graph **graph) {
    ENTRY;
    if (!stream->capturing)
        return ILLEGAL_STATE;
    *graph = new Graph{stream, std::move(stream->captured)};
    stream->capturing = false;
    stream->captured.clear();
    return SUCCESS;
}
static std::set<Graph *> graphs; // The graphs that can be launched.
API bool standin_has_graphs(const void *owner) {
    auto owned = [=](const Item &item) { return item.meeting && item.meeting->owner == owner; };
    return std::any_of(graphs.begin(), graphs.end(), [=](const Graph *graph) {
        return std::any_of(graph->items.begin(), graph->items.end(), owned);
    });
}
API int cuGraphInstantiateWithFlags(Graph **executable, Graph *graph, unsigned long long) {
    ENTRY;
    *executable = new Graph(*graph);
    graphs.insert(*executable);
    return SUCCESS;
}
API int cuGraphLaunch(Graph *executable, Stream *stream) {
    ENTRY;
    if (stream != executable->stream)
        return standin_refuse(INVALID_VALUE, "a graph on another stream than it was captured from");
    for (const Item &item : executable->items)
        if (int error = submit(stream, item))
            return error;
    return SUCCESS;
}
API int cuGraphExecDestroy(Graph *executable) {
    ENTRY;
    graphs.erase(executable);
    delete executable;
    return SUCCESS;
}
API int cuGraphDestroy(Graph *graph) { ENTRY; delete graph; return SUCCESS; }
