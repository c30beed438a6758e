// CUDA Runtime API: streams, events and graphs.
#include <algorithm>
#include <cstdio>

#include "api.h"
#include "devices.h"
#include "errors.h"
#include "streams.h"

using namespace virtual_card;

namespace {
// Values of cudaStreamCaptureStatus.
int capture_status(const std::shared_ptr<Capture> &capture) {
    return !capture ? 0 : capture->broken ? 2 : 1;
}
}  // namespace

EXPORT int cudaStreamCreateWithPriority(void **stream, unsigned flags, int priority) {
    return remember(create_stream(stream, flags, priority));
}
EXPORT int cudaStreamCreateWithFlags(void **stream, unsigned flags) {
    return remember(create_stream(stream, flags, 0));
}
EXPORT int cudaStreamCreate(void **stream) {
    return remember(create_stream(stream, 0, 0));
}
EXPORT int cudaStreamDestroy(void *stream) {
    return remember(destroy_stream(stream));
}
EXPORT int cudaStreamGetPriority(void *stream, int *priority) {
    *priority = stream_of(stream)->priority;
    return OK;
}
EXPORT int cudaStreamGetFlags(void *stream, unsigned *flags) {
    *flags = stream_of(stream)->flags;
    return OK;
}
EXPORT int cudaStreamQuery(void *stream) {
    return remember(wait_for(stream));
}
EXPORT int cudaStreamSynchronize(void *stream) {
    return remember(wait_for(stream));
}
EXPORT int cudaStreamWaitEvent(void *stream, Event *event, unsigned) {
    return remember(wait_event(stream, event));
}
EXPORT int cudaStreamAddCallback(void *stream, void (*callback)(void *, int, void *), void *data, unsigned) {
    if (int error = wait_for(stream)) return remember(error);
    callback(stream, OK, data);
    return OK;
}
EXPORT int cudaLaunchHostFunc(void *stream, void (*function)(void *), void *data) {
    if (int error = put_work(stream)) return remember(error);
    if (!capture_of(stream)) function(data);
    return OK;
}

EXPORT int cudaEventCreateWithFlags(Event **event, unsigned flags) {
    if (int error = use_current()) return remember(error);
    *event = new Event;
    (*event)->flags = flags;
    return OK;
}
EXPORT int cudaEventCreate(Event **event) {
    return cudaEventCreateWithFlags(event, 0);
}
EXPORT int cudaEventDestroy(Event *event) {
    delete event;
    return OK;
}
EXPORT int cudaEventRecord(Event *event, void *stream) {
    return remember(record_event(event, stream));
}
EXPORT int cudaEventRecordWithFlags(Event *event, void *stream, unsigned) {
    return remember(record_event(event, stream));
}
EXPORT int cudaEventQuery(Event *event) {
    return remember(query_event(event));
}
EXPORT int cudaEventSynchronize(Event *event) {
    return remember(query_event(event));
}
EXPORT int cudaEventElapsedTime(float *milliseconds, Event *from, Event *to) {
    return remember(elapsed(from, to, milliseconds));
}

EXPORT int cudaStreamBeginCapture(void *stream, int mode) {
    return remember(begin_capture(stream, mode, nullptr));
}
EXPORT int cudaStreamBeginCaptureToGraph(void *stream, Graph *graph, void *const *, const void *, size_t, int mode) {
    return remember(begin_capture(stream, mode, graph));
}
EXPORT int cudaStreamEndCapture(void *stream, Graph **graph) {
    return remember(end_capture(stream, graph));
}
EXPORT int cudaStreamIsCapturing(void *stream, int *status) {
    *status = capture_status(capture_of(stream));
    return OK;
}
EXPORT int cudaStreamGetCaptureInfo(void *stream, int *status, unsigned long long *id, Graph **graph, void ***nodes,
                                    const void **edges, size_t *count) {
    const auto capture = capture_of(stream);
    *status = capture_status(capture);
    if (id) *id = capture ? capture->id : 0;
    if (graph) *graph = capture ? capture->graph : nullptr;
    if (nodes) *nodes = nullptr;
    if (edges) *edges = nullptr;
    if (count) *count = 0;
    return OK;
}
EXPORT int cudaStreamUpdateCaptureDependencies(void *stream, void **, const void *, size_t, unsigned) {
    return capture_of(stream) ? OK : remember(INVALID_VALUE);
}
EXPORT int cudaThreadExchangeStreamCaptureMode(int *mode) {
    *mode = exchange_capture_mode(*mode);
    return OK;
}

EXPORT int cudaGraphGetNodes(Graph *graph, void **nodes, size_t *count) {
    if (nodes) std::fill_n(nodes, std::min<size_t>(*count, graph->nodes), static_cast<void *>(graph));
    *count = graph->nodes;
    return OK;
}
EXPORT int cudaGraphNodeGetDependencies(void *, void **, void *, size_t *count) {
    *count = 0;
    return OK;
}
EXPORT int cudaGraphAddNode(void **node, Graph *graph, void *const *, const void *, size_t, void *) {
    graph->nodes++;
    *node = graph;
    return OK;
}
EXPORT int cudaGraphInstantiateWithFlags(Graph **executable, const Graph *graph, unsigned long long) {
    if (int error = use_current()) return remember(error);
    *executable = new Graph(*graph);
    return OK;
}
EXPORT int cudaGraphInstantiate(Graph **executable, const Graph *graph, unsigned long long flags) {
    return cudaGraphInstantiateWithFlags(executable, graph, flags);
}
EXPORT int cudaGraphLaunch(Graph *, void *stream) {
    return remember(put_work(stream));
}
EXPORT int cudaGraphDestroy(Graph *graph) {
    delete graph;
    return OK;
}
EXPORT int cudaGraphExecDestroy(Graph *executable) {
    delete executable;
    return OK;
}
EXPORT int cudaGraphDebugDotPrint(const Graph *graph, const char *path, unsigned) {
    FILE *file = std::fopen(path, "we");
    if (!file) return remember(INVALID_VALUE);
    std::fprintf(file, "digraph { nodes [label=\"%llu\"] }\n", static_cast<unsigned long long>(graph->nodes));
    std::fclose(file);
    return OK;
}
