// cuDNN's backend interface: descriptors are bags of attributes, and convolutions have the plans of convolutions.cpp.
//
// A convolution has two engines: the one that heuristics prefer, and one without a workspace.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "api.h"
#include "convolutions.h"
#include "devices.h"
#include "errors.h"
#include "kernels.h"

using namespace virtual_card;

namespace {

enum Status : int {
    SUCCESS = 0,
    NOT_INITIALIZED_YET = 1001,
    BAD_PARAM = 2000,
    EXECUTION_FAILED = 5000,
};

// cudnnBackendDescriptorType_t
enum Kind : int {
    ENGINE = 2,
    ENGINE_CONFIG = 3,
    HEURISTICS = 4,
    PLAN = 5,
    FORWARD = 10,
    BACKWARD_FILTER = 11,
    BACKWARD_DATA = 12
};

// cudnnBackendAttributeName_t
enum Name : int {
    HEURISTICS_GRAPH = 201,
    HEURISTICS_RESULTS = 202,
    CONFIG_ENGINE = 300,
    CONFIG_WORKSPACE = 303,
    CONFIG_SHARED_BYTES = 304,
    PLAN_CONFIG = 401,
    PLAN_WORKSPACE = 402,
    FORWARD_FILTER = 703,
    FORWARD_INPUT = 704,
    FORWARD_OUTPUT = 705,
    DATA_FILTER = 709,
    DATA_INPUT = 710,
    DATA_OUTPUT = 711,
    FILTER_FILTER = 715,
    FILTER_INPUT = 716,
    FILTER_OUTPUT = 717,
    GRAPH_OPERATIONS = 801,
    TENSOR_TYPE = 901,
    TENSOR_SIZES = 902,
    TENSOR_STRIDES = 903,
    ENGINE_GRAPH = 1300,
    ENGINE_INDEX = 1301,
};

// cudnnBackendAttributeType_t, as far as it decides what a value looks like
enum Type : int { INT64 = 3, DESCRIPTOR = 15, INT32 = 23 };

size_t bytes_of(int type) {
    switch (type) {
        case 0:
        case 3:
        case 5:
        case 6:
        case DESCRIPTOR: return 8;  // handle, int64, double, pointer
        case 2:
        case 24: return 1;   // bool, char
        case 25: return 16;  // fraction
        default: return 4;   // enums, float, int32
    }
}

int64_t element_bytes(int64_t type) {
    switch (type) {
        case 2:
        case 9: return 2;  // half, bfloat16
        case 1:
        case 10: return 8;  // double, int64
        case 3:
        case 6:
        case 11:
        case 12:
        case 13: return 1;
        default: return 4;
    }
}

struct Body;

struct Value {
    int type = 0;
    int64_t count = 0;
    std::string bytes;
    std::vector<std::shared_ptr<Body>> parts;
};

struct Body {
    int kind = 0;
    std::map<int, Value> values;
};

struct Descriptor {
    std::shared_ptr<Body> body;
};

const Body *part(const Body &body, int name) {
    const auto found = body.values.find(name);
    return found == body.values.end() || found->second.parts.empty() ? nullptr : found->second.parts[0].get();
}

std::vector<int64_t> numbers(const Body &body, int name) {
    const auto found = body.values.find(name);
    if (found == body.values.end()) return {};
    std::vector<int64_t> out(found->second.bytes.size() / sizeof(int64_t));
    std::memcpy(out.data(), found->second.bytes.data(), out.size() * sizeof(int64_t));
    return out;
}

int64_t number(const Body &body, int name) {
    const auto found = body.values.find(name);
    int64_t out = 0;
    if (found != body.values.end())
        std::memcpy(&out, found->second.bytes.data(), std::min(sizeof out, found->second.bytes.size()));
    return out;
}

Value integer(int type, int64_t number) {
    Value value;
    value.type = type;
    value.count = 1;
    value.bytes.assign(reinterpret_cast<const char *>(&number), bytes_of(type));
    return value;
}

Value descriptors(std::vector<std::shared_ptr<Body>> parts) {
    Value value;
    value.type = DESCRIPTOR;
    value.count = static_cast<int64_t>(parts.size());
    value.parts = std::move(parts);
    return value;
}

TensorShape shape_of(const Body *tensor) {
    if (!tensor) return {};
    return {numbers(*tensor, TENSOR_SIZES), numbers(*tensor, TENSOR_STRIDES),
            element_bytes(number(*tensor, TENSOR_TYPE))};
}

// The tensors of a convolution that an engine's graph holds; a graph without one takes nothing.
int64_t workspace_of(const Body *engine) {
    const Body *graph = engine ? part(*engine, ENGINE_GRAPH) : nullptr;
    if (!graph || number(*engine, ENGINE_INDEX) != 0) return 0;
    const auto operations = graph->values.find(GRAPH_OPERATIONS);
    if (operations == graph->values.end()) return 0;
    const Card &card = spec_of(current_device());
    for (const auto &one : operations->second.parts) {
        const auto shape = [&one](int name) { return shape_of(part(*one, name)); };
        Convolution convolution;
        if (one->kind == FORWARD)
            convolution = {Direction::FORWARD, shape(FORWARD_FILTER), shape(FORWARD_INPUT), shape(FORWARD_OUTPUT)};
        else if (one->kind == BACKWARD_DATA)
            convolution = {Direction::BACKWARD_DATA, shape(DATA_FILTER), shape(DATA_INPUT), shape(DATA_OUTPUT)};
        else if (one->kind == BACKWARD_FILTER)
            convolution = {Direction::BACKWARD_FILTER, shape(FILTER_FILTER), shape(FILTER_INPUT), shape(FILTER_OUTPUT)};
        else
            continue;
        return convolution_workspace(convolution, card.major * 10 + card.minor);
    }
    return 0;
}

std::shared_ptr<Body> configuration(const Value &graph, int64_t index) {
    auto engine = std::make_shared<Body>(), made = std::make_shared<Body>();
    engine->kind = ENGINE;
    engine->values[ENGINE_GRAPH] = graph;
    engine->values[ENGINE_INDEX] = integer(INT64, index);
    made->kind = ENGINE_CONFIG;
    made->values[CONFIG_ENGINE] = descriptors({engine});
    made->values[CONFIG_WORKSPACE] = integer(INT64, workspace_of(engine.get()));
    made->values[CONFIG_SHARED_BYTES] = integer(INT32, 0);
    return made;
}

}  // namespace

EXPORT size_t cudnnGetVersion() {
    return VIRTUAL_CARD_CUDNN_VERSION;
}
EXPORT size_t cudnnGetCudartVersion() {
    return VIRTUAL_CARD_CUDA_MAJOR * 1000;
}
EXPORT int cudnnGetProperty(int which, int *value) {
    constexpr int VERSION = VIRTUAL_CARD_CUDNN_VERSION;
    constexpr int PARTS[] = {VERSION / 10000, VERSION / 100 % 100, VERSION % 100};
    if (which < 0 || which > 2) return BAD_PARAM;
    *value = PARTS[which];
    return SUCCESS;
}
EXPORT const char *cudnnGetErrorString(int error) {
    return error == SUCCESS ? "CUDNN_STATUS_SUCCESS" : "CUDNN_STATUS_NOT_SUPPORTED";
}
EXPORT void cudnnGetLastErrorString(char *out, size_t room) {
    if (room) *out = 0;
}

// A handle keeps its stream.
EXPORT int cudnnCreate(void ***out) {
    if (use_current()) return NOT_INITIALIZED_YET;
    *out = new void *(nullptr);
    return SUCCESS;
}
EXPORT int cudnnDestroy(void **handle) {
    delete handle;
    return SUCCESS;
}
EXPORT int cudnnSetStream(void **handle, void *stream) {
    *handle = stream;
    return SUCCESS;
}
EXPORT int cudnnGetStream(void **handle, void **stream) {
    *stream = *handle;
    return SUCCESS;
}

EXPORT int cudnnBackendCreateDescriptor(int kind, Descriptor **out) {
    *out = new Descriptor{std::make_shared<Body>()};
    (*out)->body->kind = kind;
    return SUCCESS;
}
EXPORT int cudnnBackendDestroyDescriptor(Descriptor *descriptor) {
    delete descriptor;
    return SUCCESS;
}
EXPORT int cudnnBackendSetAttribute(Descriptor *descriptor, int name, int type, int64_t count, const void *from) {
    Value value;
    value.type = type;
    value.count = count;
    if (type == DESCRIPTOR) {
        for (int64_t i = 0; i < count; i++)
            if (const auto *other = static_cast<Descriptor *const *>(from)[i]) value.parts.push_back(other->body);
    } else if (count > 0 && from) {
        value.bytes.assign(static_cast<const char *>(from), count * bytes_of(type));
    }
    descriptor->body->values[name] = value;
    return SUCCESS;
}
EXPORT int cudnnBackendFinalize(Descriptor *descriptor) {
    Body &body = *descriptor->body;
    if (body.kind == PLAN) {
        const Body *chosen = part(body, PLAN_CONFIG);
        body.values[PLAN_WORKSPACE] = integer(INT64, chosen ? workspace_of(part(*chosen, CONFIG_ENGINE)) : 0);
    }
    if (body.kind == HEURISTICS) {
        const Value graph = body.values[HEURISTICS_GRAPH];
        body.values[HEURISTICS_RESULTS] = descriptors({configuration(graph, 0), configuration(graph, 1)});
    }
    return SUCCESS;
}
EXPORT int cudnnBackendGetAttribute(Descriptor *descriptor, int name, int type, int64_t room, int64_t *count,
                                    void *to) {
    const auto found = descriptor->body->values.find(name);
    if (found == descriptor->body->values.end()) {
        if (count) *count = 0;
        return SUCCESS;
    }
    const Value &value = found->second;
    const int64_t given = to && room ? std::min(room, value.count) : value.count;
    if (count) *count = given;
    if (!to) return SUCCESS;
    if (value.type != type) return BAD_PARAM;
    if (type != DESCRIPTOR)
        std::memcpy(to, value.bytes.data(), given * bytes_of(type));
    else
        for (int64_t i = 0; i < given; i++)
            if (auto *other = static_cast<Descriptor **>(to)[i]) other->body = value.parts[i];
    return SUCCESS;
}
EXPORT int cudnnBackendExecute(void **handle, Descriptor *, Descriptor *) {
    return launch_library("cudnnBackendExecute", *handle) ? EXECUTION_FAILED : SUCCESS;
}
