// A stand-in for NCCL's libnccl.so.2 that uses the memory and streams of the stand-in for the driver. It supports only what the
// trainer uses: the sum of floats over the devices of one process, in a group. The sum is computed when the streams of all devices
// have reached it.
//
//   g++ -std=c++17 -O2 -ffp-contract=off -fPIC -shared -Wl,-soname,libnccl.so.2 standin_nccl.cpp libcuda.so
//
// It refuses calls that NCCL would refuse, or in which it would hang, and prints the reason to stderr: the same device twice, a sum
// outside of a group or without all devices, memory or streams of another device, and communicators that end before the graphs
// that use them.
#include "standin.hpp"
#include <cstring>
#include <utility>

enum { SUCCESS = 0, INTERNAL_ERROR = 3, INVALID_ARGUMENT = 4, INVALID_USAGE = 5, FLOAT32 = 7, SUM = 0 };

#define ENTRY                                                                                                          \
    if (int error = standin_entered(__func__))                                                                         \
        return error

struct Clique { int size; };
struct Comm { std::shared_ptr<Clique> clique; int device; };
struct Call { const float *from; float *to; size_t count; Comm *comm; Stream *stream; };

static int depth, group_error; // The error of a call within the group, which ncclGroupEnd returns again.
static std::vector<Call> group;

API int ncclGetVersion(int *version) { ENTRY; *version = 22203; return SUCCESS; }

API int ncclCommInitAll(Comm **comms, int count, const int *devices) {
    ENTRY;
    for (int i = 0; i < count; i++) {
        if (devices[i] < 0 || devices[i] >= standin_devices())
            return standin_refuse(INVALID_ARGUMENT, "no such device");
        for (int j = 0; j < i; j++)
            if (devices[i] == devices[j])
                return standin_refuse(INVALID_USAGE, "a device has two ranks");
    }
    const auto clique = std::make_shared<Clique>(Clique{count});
    for (int i = 0; i < count; i++)
        comms[i] = new Comm{clique, devices[i]};
    return SUCCESS;
}
API int ncclCommAbort(Comm *comm) {
    ENTRY;
    const bool in_use = standin_has_graphs(comm->clique.get());
    delete comm;
    return in_use ? standin_refuse(INTERNAL_ERROR, "a communicator ends before a graph that uses it") : SUCCESS;
}

API int ncclGroupStart() { ENTRY; depth++; return SUCCESS; }
API int ncclAllReduce(const void *from, void *to, size_t count, int type, int operation, Comm *comm, Stream *stream) {
    if (int error = standin_entered(__func__))
        return group_error = error;
    if (type != FLOAT32 || operation != SUM)
        return standin_refuse(INVALID_ARGUMENT, "only sums of f32 are here");
    if (depth == 0)
        return standin_refuse(INVALID_USAGE, "a sum outside of a group: the only thread would wait for itself");
    const size_t bytes = count * sizeof(float);
    if (standin_device(stream) != comm->device || !standin_holds(comm->device, Address(from), bytes) || !standin_holds(comm->device, Address(to), bytes))
        return standin_refuse(INVALID_ARGUMENT, "a stream or memory of another device");
    group.push_back({static_cast<const float *>(from), static_cast<float *>(to), count, comm, stream});
    return SUCCESS;
}
API int ncclGroupEnd() {
    const std::vector<Call> calls = std::exchange(group, {});
    ENTRY;
    if (depth == 0)
        return standin_refuse(INVALID_USAGE, "a group ends that did not begin");
    depth--;
    if (group_error || calls.empty())
        return std::exchange(group_error, SUCCESS);
    const Call &first = calls[0];
    if (int(calls.size()) != first.comm->clique->size)
        return standin_refuse(INVALID_USAGE, "a sum without all devices");
    auto meeting = std::make_shared<Meeting>();
    meeting->owner = first.comm->clique.get();
    for (const Call &call : calls) {
        if (call.comm->clique != first.comm->clique || call.count != first.count || standin_capturing(call.stream) != standin_capturing(first.stream))
            return standin_refuse(INVALID_USAGE, "devices that do not ask for the same");
        meeting->streams.push_back(call.stream);
    }
    meeting->work = [calls] {
        std::vector<float> sum(calls[0].count);
        for (const Call &call : calls)
            for (size_t i = 0; i < sum.size(); i++)
                sum[i] += call.from[i];
        for (const Call &call : calls)
            memcpy(call.to, sum.data(), sum.size() * sizeof(float));
    };
    standin_meet(std::move(meeting));
    return SUCCESS;
}
