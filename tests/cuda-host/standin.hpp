// The functions of the stand-in for the driver (standin.cpp) that the stand-in for NCCL (standin_nccl.cpp) uses.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#define API extern "C" __attribute__((visibility("default")))

using Address = uintptr_t; // CUdeviceptr
using Work = std::function<void()>;
struct Stream;

// Work that involves several streams. It runs once, when all its streams have reached it.
struct Meeting { std::vector<Stream *> streams; Work work; const void *owner; };

API int standin_entered(const char *name);                          // Counts a call; returns its status.
API int standin_devices();
API int standin_device(const Stream *stream);                       // The device number; -1 if it is not a stream.
API bool standin_capturing(const Stream *stream);
API bool standin_holds(int device, Address from, size_t bytes);     // Whether the memory belongs to the device.
API void standin_meet(std::shared_ptr<Meeting> meeting);            // Adds it to its streams, or to their graphs.
API bool standin_has_graphs(const void *owner);                     // Whether a graph with such work exists.
API int standin_refuse(int code, const char *reason);               // Counts and prints a refusal; returns the code.
