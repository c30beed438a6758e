#include "streams.h"

#include <algorithm>
#include <atomic>
#include <map>
#include <vector>

#include "devices.h"
#include "errors.h"

namespace virtual_card {

namespace {

constexpr uint64_t LAST_DEFAULT = 2;
constexpr unsigned NO_TIMING = 2;

std::atomic<uint64_t> captures_made{0};
std::atomic<int> captures_running{0};
auto &running = *new std::vector<std::shared_ptr<Capture>>;
thread_local int thread_mode = CAPTURE_GLOBAL;

bool is_default(void *handle) {
    return reinterpret_cast<uint64_t>(handle) <= LAST_DEFAULT;
}

// Every capture that such a call could disturb ends in an error.
int refuse(int error) {
    for (auto &capture : running)
        if (capture->mode != CAPTURE_RELAXED) capture->broken = true;
    return error;
}

bool is_captured(const Event *event) {
    const auto capture = event->capture.lock();
    return capture && !capture->ended;
}

}  // namespace

Stream *stream_of(void *handle) {
    static auto &defaults = *new std::map<int, Stream>;
    if (!is_default(handle)) return static_cast<Stream *>(handle);
    Lock lock(process);
    Stream &stream = defaults[current_device()];
    stream.device = current_device();
    return &stream;
}

int create_stream(void **out, unsigned flags, int priority) {
    if (int error = use_current()) return error;
    auto *made = new Stream;
    made->device = current_device();
    made->flags = flags;
    made->priority = priority;
    *out = made;
    return OK;
}

int destroy_stream(void *handle) {
    if (is_default(handle)) return INVALID_HANDLE;
    Lock lock(process);
    delete static_cast<Stream *>(handle);
    return OK;
}

std::shared_ptr<Capture> capture_of(void *handle) {
    if (captures_running == 0) return nullptr;
    Lock lock(process);
    Stream *stream = stream_of(handle);
    // Streams that joined a capture learn here that it has ended.
    if (stream->capture && stream->capture->ended) stream->capture = nullptr;
    return stream->capture;
}

int begin_capture(void *handle, int mode, Graph *into) {
    if (int error = use_current()) return error;
    Lock lock(process);
    if (is_default(handle) || capture_of(handle)) return CAPTURE_UNSUPPORTED;
    Stream *stream = stream_of(handle);
    stream->capture = std::make_shared<Capture>(Capture{++captures_made, into ? into : new Graph, stream, mode});
    running.push_back(stream->capture);
    captures_running++;
    return OK;
}

int end_capture(void *handle, Graph **out) {
    Lock lock(process);
    const auto capture = capture_of(handle);
    *out = nullptr;
    if (!capture || capture->origin != stream_of(handle)) return CAPTURE_UNMATCHED;
    capture->ended = true;
    stream_of(handle)->capture = nullptr;
    running.erase(std::remove(running.begin(), running.end(), capture), running.end());
    captures_running--;
    if (capture->broken) return CAPTURE_INVALIDATED;
    *out = capture->graph;
    return OK;
}

int exchange_capture_mode(int mode) {
    std::swap(thread_mode, mode);
    return mode;
}

int put_work(void *handle) {
    if (int error = broken()) return error;
    if (captures_running == 0) return OK;
    Lock lock(process);
    if (const auto capture = capture_of(handle)) {
        if (capture->broken) return CAPTURE_INVALIDATED;
        capture->graph->nodes++;
    } else if (is_default(handle)) {
        for (const auto &other : running)
            if (!(other->origin->flags & NON_BLOCKING)) return refuse(CAPTURE_IMPLICIT);
    }
    return OK;
}

int wait_for(void *handle) {
    if (int error = broken()) return error;
    Lock lock(process);
    return capture_of(handle) ? refuse(CAPTURE_UNSUPPORTED) : OK;
}

int wait_for_all() {
    if (int error = broken()) return error;
    Lock lock(process);
    return running.empty() ? OK : refuse(CAPTURE_UNSUPPORTED);
}

int begin_synchronous() {
    if (captures_running == 0 || thread_mode == CAPTURE_RELAXED) return OK;
    Lock lock(process);
    const bool any = std::any_of(running.begin(), running.end(), [](auto &c) { return c->mode == CAPTURE_GLOBAL; });
    return any ? refuse(CAPTURE_UNSUPPORTED) : OK;
}

int record_event(Event *event, void *handle) {
    if (int error = broken()) return error;
    Lock lock(process);
    event->at = std::chrono::steady_clock::now();
    event->recorded = true;
    event->capture = capture_of(handle);
    return OK;
}

int query_event(Event *event) {
    if (int error = broken()) return error;
    Lock lock(process);
    return is_captured(event) ? refuse(CAPTURED_EVENT) : OK;
}

int elapsed(Event *from, Event *to, float *milliseconds) {
    if (int error = broken()) return error;
    Lock lock(process);
    if (!from->recorded || !to->recorded || ((from->flags | to->flags) & NO_TIMING)) return INVALID_HANDLE;
    *milliseconds = std::chrono::duration<float, std::milli>(to->at - from->at).count();
    return OK;
}

int wait_event(void *handle, Event *event) {
    if (int error = broken()) return error;
    Lock lock(process);
    // A stream that waits for a captured event joins its capture.
    if (is_captured(event)) stream_of(handle)->capture = event->capture.lock();
    return OK;
}

}  // namespace virtual_card
