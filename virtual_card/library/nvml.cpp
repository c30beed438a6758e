// NVML: the machine's cards, how full they are and who is on them.
#include <cstdio>
#include <cstring>

#include "api.h"
#include "books.h"
#include "controls.h"
#include "layouts.h"
#include "machine.h"

using namespace virtual_card;

namespace {

enum Return : int {
    SUCCESS = 0,
    INVALID_ARGUMENT = 2,
    NOT_SUPPORTED = 3,
    NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7,
    GPU_IS_LOST = 15,
    VERSION_MISMATCH = 18,
};

constexpr unsigned NO_INSTANCE = 0xffffffffu;
constexpr unsigned long long NOT_AVAILABLE = ~0ull;

// A handle is a place in one of these: a board, or the MIG slice of the board with the same index.
char boards[MOST_CARDS], slices[MOST_CARDS];
using Device = char *;

bool is_slice(Device device) {
    return device >= slices && device < slices + MOST_CARDS;
}
int index_of(Device device) {
    return static_cast<int>(device - (is_slice(device) ? slices : boards));
}
const Card &card_of(Device device) {
    return machine().cards[index_of(device)];
}
unsigned count() {
    return static_cast<unsigned>(machine().cards.size());
}

int answerable(Device device) {
    return control(index_of(device), Control::LOST) ? GPU_IS_LOST : SUCCESS;
}

bool tells_memory(Device device) {
    return machine().nvml != Nvml::MUTE && !card_of(device).unified;
}

int text(char *out, unsigned room, const std::string &value) {
    if (room <= value.size()) return INSUFFICIENT_SIZE;
    std::memcpy(out, value.c_str(), value.size() + 1);
    return SUCCESS;
}

int handle_of(const std::string &uuid, Device *out) {
    for (unsigned i = 0; i < count(); i++) {
        const Card &card = machine().cards[i];
        if (card.uuid == uuid)
            *out = &boards[i];
        else if (card.slice_bytes && card.slice_uuid == uuid)
            *out = &slices[i];
        else
            continue;
        return SUCCESS;
    }
    return NOT_FOUND;
}

std::string bus_id(int card) {
    char id[32];
    std::snprintf(id, sizeof id, "00000000:%02X:00.0", card + 1);
    return id;
}

// Total, the driver's reserve and what is taken, of a board or of a slice.
struct Memory {
    unsigned long long total, reserved, used;
    unsigned long long free() const { return used + reserved < total ? total - used - reserved : 0; }
};

Memory memory_of(Device device) {
    const Card &card = card_of(device);
    if (is_slice(device)) return {card.slice_bytes, 0, held_bytes(index_of(device))};
    return {card.board_bytes, card.reserve_bytes, held_bytes(index_of(device))};
}

}  // namespace

EXPORT int nvmlInitWithFlags(unsigned) {
    return machine().nvml == Nvml::MISMATCHED ? VERSION_MISMATCH : SUCCESS;
}
EXPORT int nvmlInit_v2() {
    return nvmlInitWithFlags(0);
}
EXPORT int nvmlInit() {
    return nvmlInitWithFlags(0);
}
EXPORT int nvmlShutdown() {
    return SUCCESS;
}
EXPORT const char *nvmlErrorString(int error) {
    switch (error) {
        case SUCCESS: return "Success";
        case INVALID_ARGUMENT: return "Invalid Argument";
        case NOT_SUPPORTED: return "Not Supported";
        case NOT_FOUND: return "Not Found";
        case INSUFFICIENT_SIZE: return "Insufficient Size";
        case GPU_IS_LOST: return "GPU is lost";
        case VERSION_MISMATCH: return "Driver/library version mismatch";
        default: return "Unknown Error";
    }
}
EXPORT int nvmlSystemGetDriverVersion(char *out, unsigned room) {
    return text(out, room, machine().driver);
}
EXPORT int nvmlSystemGetNVMLVersion(char *out, unsigned room) {
    return text(out, room, machine().driver);
}
EXPORT int nvmlSystemGetCudaDriverVersion_v2(int *version) {
    *version = machine().cuda_version;
    return SUCCESS;
}
EXPORT int nvmlSystemGetCudaDriverVersion(int *version) {
    return nvmlSystemGetCudaDriverVersion_v2(version);
}

EXPORT int nvmlDeviceGetCount_v2(unsigned *out) {
    *out = count();
    return SUCCESS;
}
EXPORT int nvmlDeviceGetCount(unsigned *out) {
    return nvmlDeviceGetCount_v2(out);
}
EXPORT int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device *out) {
    if (index >= count()) return INVALID_ARGUMENT;
    *out = &boards[index];
    return answerable(*out);
}
EXPORT int nvmlDeviceGetHandleByIndex(unsigned index, Device *out) {
    return nvmlDeviceGetHandleByIndex_v2(index, out);
}
EXPORT int nvmlDeviceGetHandleByUUID(const char *uuid, Device *out) {
    return handle_of(uuid, out);
}
EXPORT int nvmlDeviceGetHandleByPciBusId_v2(const char *id, Device *out) {
    unsigned domain = 0, bus = 0;
    if (std::sscanf(id, "%x:%x", &domain, &bus) != 2 || bus < 1) return INVALID_ARGUMENT;
    return bus <= count() ? nvmlDeviceGetHandleByIndex_v2(bus - 1, out) : static_cast<int>(NOT_FOUND);
}
EXPORT int nvmlDeviceGetIndex(Device device, unsigned *out) {
    *out = index_of(device);
    return SUCCESS;
}
EXPORT int nvmlDeviceGetName(Device device, char *out, unsigned room) {
    return text(out, room, card_of(device).name);
}
EXPORT int nvmlDeviceGetUUID(Device device, char *out, unsigned room) {
    return text(out, room, is_slice(device) ? card_of(device).slice_uuid : card_of(device).uuid);
}
EXPORT int nvmlDeviceGetCudaComputeCapability(Device device, int *major, int *minor) {
    *major = card_of(device).major;
    *minor = card_of(device).minor;
    return answerable(device);
}
EXPORT int nvmlDeviceGetPciInfo_v3(Device device, NvmlPci *out) {
    *out = {};
    out->bus = index_of(device) + 1;
    std::snprintf(out->busIdLegacy, sizeof out->busIdLegacy, "0000:%02X:00.0", out->bus);
    std::snprintf(out->busId, sizeof out->busId, "%s", bus_id(index_of(device)).c_str());
    return answerable(device);
}

EXPORT int nvmlDeviceGetMemoryInfo(Device device, NvmlMemory *out) {
    if (int error = answerable(device)) return error;
    if (!tells_memory(device)) return NOT_SUPPORTED;
    // The first version counts the driver's reserve as used.
    const Memory memory = memory_of(device);
    *out = {memory.total, memory.free(), memory.total - memory.free()};
    return SUCCESS;
}
EXPORT int nvmlDeviceGetMemoryInfo_v2(Device device, NvmlMemory2 *out) {
    if (int error = answerable(device)) return error;
    if (!tells_memory(device)) return NOT_SUPPORTED;
    const Memory memory = memory_of(device);
    *out = {out->version, memory.total, memory.reserved, memory.free(), memory.used};
    return SUCCESS;
}
EXPORT int nvmlDeviceGetComputeRunningProcesses_v3(Device device, unsigned *number, NvmlProcess *out) {
    if (int error = answerable(device)) return error;
    if (machine().nvml == Nvml::MUTE) return NOT_SUPPORTED;
    const auto found = holders(index_of(device));
    const unsigned room = out ? *number : 0;
    *number = static_cast<unsigned>(found.size());
    if (found.size() > room) return INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < *number; i++)
        out[i] = {static_cast<unsigned>(found[i].pid), card_of(device).lists_bytes ? found[i].bytes : NOT_AVAILABLE,
                  NO_INSTANCE, NO_INSTANCE};
    return SUCCESS;
}
// The first version knows no slices.
EXPORT int nvmlDeviceGetComputeRunningProcesses(Device device, unsigned *number, NvmlProcess1 *out) {
    NvmlProcess found[64];
    const unsigned room = out ? *number : 0;
    *number = 64;
    if (int error = nvmlDeviceGetComputeRunningProcesses_v3(device, number, found)) return error;
    if (*number > room) return INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < *number; i++) out[i] = {found[i].pid, found[i].usedGpuMemory};
    return SUCCESS;
}
EXPORT int nvmlDeviceGetComputeRunningProcesses_v2(Device device, unsigned *number, NvmlProcess *out) {
    return nvmlDeviceGetComputeRunningProcesses_v3(device, number, out);
}
EXPORT int nvmlDeviceGetGraphicsRunningProcesses_v3(Device device, unsigned *number, NvmlProcess *) {
    if (machine().nvml == Nvml::MUTE) return NOT_SUPPORTED;
    *number = 0;
    return answerable(device);
}
EXPORT int nvmlDeviceGetGraphicsRunningProcesses_v2(Device device, unsigned *number, NvmlProcess *out) {
    return nvmlDeviceGetGraphicsRunningProcesses_v3(device, number, out);
}

EXPORT int nvmlDeviceGetMigMode(Device device, unsigned *now, unsigned *pending) {
    // Boards of data centres can be cut; the others do not know the question.
    if (card_of(device).slice_bytes == 0) return NOT_SUPPORTED;
    *now = *pending = 1;
    return SUCCESS;
}
EXPORT int nvmlDeviceGetMaxMigDeviceCount(Device device, unsigned *out) {
    *out = card_of(device).slice_bytes ? 7 : 0;
    return SUCCESS;
}
EXPORT int nvmlDeviceGetMigDeviceHandleByIndex(Device device, unsigned index, Device *out) {
    if (is_slice(device)) return INVALID_ARGUMENT;
    if (card_of(device).slice_bytes == 0 || index != 0) return NOT_FOUND;
    *out = &slices[index_of(device)];
    return SUCCESS;
}
EXPORT int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(Device device, Device *out) {
    if (!is_slice(device)) return INVALID_ARGUMENT;
    *out = &boards[index_of(device)];
    return SUCCESS;
}
EXPORT int nvmlDeviceIsMigDeviceHandle(Device device, unsigned *out) {
    *out = is_slice(device);
    return SUCCESS;
}

// Nothing computes, so the card is idle.
EXPORT int nvmlDeviceGetUtilizationRates(Device device, NvmlUtilization *out) {
    *out = {0, 0};
    return answerable(device);
}
EXPORT int nvmlDeviceGetNvLinkRemoteDeviceType(Device, unsigned, int *) {
    return NOT_SUPPORTED;
}
EXPORT int nvmlDeviceGetNvLinkRemotePciInfo_v2(Device, unsigned, NvmlPci *) {
    return NOT_SUPPORTED;
}
// All zero is "no fabric". A version holds the size of its structure in the lower three bytes.
EXPORT int nvmlDeviceGetGpuFabricInfoV(Device device, unsigned *out) {
    const unsigned version = *out;
    std::memset(out, 0, version & 0xffffff);
    *out = version;
    return answerable(device);
}
