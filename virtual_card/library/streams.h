// Streams, events, and capture into graphs. All work is complete at once, so a stream keeps only what capture needs.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>

namespace virtual_card {

struct Graph {
    uint64_t nodes = 0;
};

struct Stream;

struct Capture {
    uint64_t id;
    Graph *graph;
    Stream *origin;
    int mode;
    bool broken = false;
    bool ended = false;
};

struct Stream {
    int device = 0;
    int priority = 0;
    unsigned flags = 0;
    std::shared_ptr<Capture> capture;
};

struct Event {
    unsigned flags = 0;
    bool recorded = false;
    std::chrono::steady_clock::time_point at;
    std::weak_ptr<Capture> capture;
};

// Modes of cudaStreamCaptureMode, and the flag of a stream that does not wait for the legacy one.
constexpr int CAPTURE_GLOBAL = 0, CAPTURE_RELAXED = 2;
constexpr unsigned NON_BLOCKING = 1;

// The stream of a handle; 0, 1 and 2 are the default streams of the current device.
Stream *stream_of(void *handle);
int create_stream(void **out, unsigned flags, int priority);
int destroy_stream(void *handle);

// The capture that a stream takes part in, or none.
std::shared_ptr<Capture> capture_of(void *handle);
int begin_capture(void *handle, int mode, Graph *into);
int end_capture(void *handle, Graph **out);
int exchange_capture_mode(int mode);

// What a call has to ask first: one that puts work on a stream, one that waits for a stream or for all of them, and one
// that may not be made while anything is captured.
int put_work(void *handle);
int wait_for(void *handle);
int wait_for_all();
int begin_synchronous();

int record_event(Event *event, void *handle);
int query_event(Event *event);
int elapsed(Event *from, Event *to, float *milliseconds);
int wait_event(void *handle, Event *event);

}  // namespace virtual_card
