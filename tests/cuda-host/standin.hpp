// What the stand-in for the driver (standin.cpp) does for that for NCCL (standin_nccl.cpp).
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#define API extern "C" __attribute__((visibility("default")))

using Address = uintptr_t; // CUdeviceptr
using Work = std::function<void()>;
struct Stream;

// Work that is done once, when each of its streams has come to it.
struct Meeting { std::vector<Stream *> streams; Work work; const void *owner; };

API int standin_entered(const char *name);                          // Counts a call; what it is to return.
API int standin_devices();
API int standin_device(const Stream *stream);                       // Its device's number; -1 for no stream.
API bool standin_capturing(const Stream *stream);
API bool standin_holds(int device, Address from, size_t bytes);     // Whether it is memory of the device.
API void standin_meet(std::shared_ptr<Meeting> meeting);            // In the order of its streams, or of their graphs.
API bool standin_has_graphs(const void *owner);                     // Whether a graph with such a meeting is alive.
API int standin_refuse(int code, const char *reason);               // Counts it, says it, and returns the code.
