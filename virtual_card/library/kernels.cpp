#include "kernels.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <unordered_map>

#include "controls.h"
#include "devices.h"
#include "errors.h"
#include "streams.h"

namespace virtual_card {

namespace {

constexpr int SHARED_WITHOUT_OPTING_IN = 49152, REGISTERS = 65536, MOST_THREADS = 1024;
constexpr unsigned MOST_BLOCKS_YZ = 65535;

auto &shared_limits = *new std::unordered_map<const void *, int>;

FILE *launch_log() {
    static FILE *const file = [] {
        const char *path = std::getenv("VIRTUAL_CARD_LAUNCHES");
        FILE *opened = path && *path ? std::fopen(path, "ae") : nullptr;
        if (opened) std::setvbuf(opened, nullptr, _IOLBF, 0);
        return opened;
    }();
    return file;
}

bool is_possible(const Launch &how) {
    const auto threads = static_cast<unsigned long long>(how.block.x) * how.block.y * how.block.z;
    return threads >= 1 && threads <= MOST_THREADS && how.grid.x && how.grid.y && how.grid.z &&
           how.grid.y <= MOST_BLOCKS_YZ && how.grid.z <= MOST_BLOCKS_YZ;
}

void meet_faults() {
    const int card = card_of(current_device());
    if (count_down(card, Control::FAIL_LAUNCH)) break_process(ILLEGAL_ADDRESS);
    if (count_down(card, Control::LOSE_AT_LAUNCH)) set_control(card, Control::LOST, 1);
}

}  // namespace

int launch(const void *function, const char *name, const Launch &how) {
    if (int error = use_current()) return error;
    meet_faults();
    if (int error = put_work(how.stream)) return error;
    if (how.shared_bytes > static_cast<size_t>(shared_limit(function))) return INVALID_VALUE;
    if (!is_possible(how)) return INVALID_CONFIGURATION;
    if (FILE *file = launch_log())
        std::fprintf(file, "%s grid %u %u %u block %u %u %u shared %zu\n", name ? name : "?", how.grid.x, how.grid.y,
                     how.grid.z, how.block.x, how.block.y, how.block.z, how.shared_bytes);
    return OK;
}

int launch_library(const char *name, void *stream) {
    return launch(nullptr, name, {{1, 1, 1}, {128, 1, 1}, 0, stream});
}

int set_shared_limit(const void *function, int bytes) {
    if (bytes < 0 || bytes > spec_of(current_device()).shared_bytes_per_block) return INVALID_VALUE;
    Lock lock(process);
    shared_limits[function] = bytes;
    return OK;
}

int shared_limit(const void *function) {
    Lock lock(process);
    const auto found = shared_limits.find(function);
    return std::max(SHARED_WITHOUT_OPTING_IN, found == shared_limits.end() ? 0 : found->second);
}

int resident_blocks(int threads, size_t shared_bytes) {
    const Card &card = spec_of(current_device());
    if (threads < 1 || threads > MOST_THREADS || shared_bytes > static_cast<size_t>(card.shared_bytes_per_block))
        return 0;
    const int whole_warps = (threads + 31) / 32 * 32;
    const auto by_shared = static_cast<int>(card.shared_bytes_per_multiprocessor / (shared_bytes + 1024));
    return std::min({card.threads_per_multiprocessor / whole_warps, by_shared,
                     REGISTERS / (REGISTERS_PER_THREAD * whole_warps), card.blocks_per_multiprocessor});
}

}  // namespace virtual_card
