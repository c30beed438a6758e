#include "devices.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <numeric>

#include "books.h"
#include "controls.h"
#include "errors.h"

namespace virtual_card {

std::recursive_mutex process;

namespace {

std::atomic<int> fault{OK};
std::atomic<bool> contexts[MOST_CARDS];
std::atomic<bool> forked{false};
thread_local int current = 0;

bool is_number(const std::string &text) {
    return !text.empty() && text.find_first_not_of("0123456789") == std::string::npos;
}

// The position in `order` of the card that an entry of CUDA_VISIBLE_DEVICES names, or -1.
int position_of(const std::string &entry, const std::vector<int> &order) {
    if (is_number(entry)) {
        const int index = std::atoi(entry.c_str());
        return index < static_cast<int>(order.size()) ? index : -1;
    }
    for (size_t i = 0; i < order.size() && !entry.empty(); i++) {
        const Card &card = machine().cards[order[i]];
        if (card.uuid.compare(0, entry.size(), entry) == 0 || card.device_uuid().compare(0, entry.size(), entry) == 0)
            return static_cast<int>(i);
    }
    return -1;
}

std::vector<int> ordered_cards() {
    std::vector<int> order(machine().cards.size());
    std::iota(order.begin(), order.end(), 0);
    const char *chosen = std::getenv("CUDA_DEVICE_ORDER");
    if (chosen && std::string(chosen) == "PCI_BUS_ID") return order;
    std::stable_sort(order.begin(), order.end(), [](int a, int b) {
        const Card &first = machine().cards[a], &second = machine().cards[b];
        return first.multiprocessors > second.multiprocessors;
    });
    return order;
}

std::vector<int> visible_cards() {
    const std::vector<int> order = ordered_cards();
    const char *listed = std::getenv("CUDA_VISIBLE_DEVICES");
    if (!listed) return order;
    std::vector<int> seen;
    std::string rest = listed;
    // CUDA ignores everything from the first entry on that it does not know, or that comes twice.
    while (true) {
        const size_t comma = rest.find(',');
        std::string entry = rest.substr(0, comma);
        entry.erase(0, entry.find_first_not_of(' '));
        entry.erase(entry.find_last_not_of(' ') + 1);
        const int position = position_of(entry, order);
        if (position < 0 || std::count(seen.begin(), seen.end(), order[position])) break;
        seen.push_back(order[position]);
        if (comma == std::string::npos) break;
        rest.erase(0, comma + 1);
    }
    return seen;
}

// What every card since Turing can do: overlap copies with kernels, map the host's memory, run kernels side by side, share
// addresses with the host, give streams priorities, cache in both first levels, manage memory, also from both sides, be
// preempted, use registered memory by the host's pointers, launch cooperatively, register memory, map virtual memory,
// keep pools of memory.
constexpr int ALWAYS[] = {15, 19, 31, 41, 78, 79, 80, 83, 89, 90, 91, 95, 99, 102, 115};

int can_always(int attribute) {
    return std::count(std::begin(ALWAYS), std::end(ALWAYS), attribute) > 0;
}

void in_forked_child() {
    for (auto &context : contexts)
        if (context) forked = true;
}

__attribute__((constructor)) void watch_forks() {
    pthread_atfork(nullptr, nullptr, in_forked_child);
}
__attribute__((destructor)) void end_of_process() {
    if (!forked && std::any_of(std::begin(contexts), std::end(contexts), [](auto &made) { return made.load(); }))
        close_books();
}

}  // namespace

const std::vector<int> &visible() {
    static const std::vector<int> &seen = *new std::vector<int>(visible_cards());
    return seen;
}

int unusable() {
    if (forked) return NOT_INITIALIZED;
    // A driver runs programs of its own major release of CUDA and older ones.
    if (!machine().cards.empty() && machine().cuda_version < VIRTUAL_CARD_CUDA_MAJOR * 1000) return INSUFFICIENT_DRIVER;
    return device_count() ? OK : NO_DEVICE;
}

int device_count() {
    int working = 0;
    // A lost card ends the list for new processes; one that has a context keeps its ordinals, and its fault.
    for (size_t i = 0; i < visible().size(); i++) {
        if (control(visible()[i], Control::LOST) && !contexts[i]) break;
        working++;
    }
    return working;
}

bool is_device(int ordinal) {
    return ordinal >= 0 && ordinal < device_count();
}
int current_device() {
    return current;
}
void set_current_device(int ordinal) {
    current = ordinal;
}
bool has_context(int ordinal) {
    return contexts[ordinal];
}

int broken() {
    const int error = fault.load(std::memory_order_relaxed);
    if (error != OK) return error;
    if (current < static_cast<int>(visible().size()) && contexts[current] && control(card_of(current), Control::LOST))
        return LAUNCH_FAILURE;
    return OK;
}

void break_process(int error) {
    fault = error;
}

int use(int ordinal) {
    if (int error = unusable()) return error;
    if (!is_device(ordinal)) return INVALID_DEVICE;
    if (contexts[ordinal]) return OK;
    Lock lock(process);
    if (contexts[ordinal]) return OK;
    if (!take(card_of(ordinal), spec_of(ordinal).context_bytes, false)) return OUT_OF_MEMORY;
    contexts[ordinal] = true;
    return OK;
}

int use_current() {
    return use(current);
}

int attribute_of(int ordinal, int attribute) {
    const Card &card = spec_of(ordinal);
    switch (attribute) {
        case 1: return 1024;  // threads of a block
        case 2:
        case 3: return 1024;        // along x and y
        case 4: return 64;          // and along z
        case 5: return 2147483647;  // blocks of a grid along x
        case 6:
        case 7: return 65535;        // and along y and z
        case 8: return 49152;        // shared memory of a block without opting in
        case 9: return 65536;        // constant memory
        case 10: return 32;          // threads of a warp
        case 11: return 2147483647;  // longest pitch of a copy
        case 12:
        case 82: return 65536;    // registers of a block, of a multiprocessor
        case 13: return 1700000;  // clock, kHz
        case 14: return 512;      // alignment of textures
        case 16: return card.multiprocessors;
        case 18: return card.unified;          // integrated
        case 30: return 512;                   // alignment of surfaces
        case 33: return card_of(ordinal) + 1;  // PCI bus
        case 36: return 7000000;               // memory clock, kHz
        case 37: return card.bus_width;
        case 38: return card.l2_bytes;
        case 39: return card.threads_per_multiprocessor;
        case 40: return 2;   // copy engines
        case 51: return 32;  // alignment of a texture's pitch
        case 75: return card.major;
        case 76: return card.minor;
        case 81: return card.shared_bytes_per_multiprocessor;
        case 87: return 32;  // single to double precision
        case 88:
        case 100: return card.unified;  // pageable memory is the card's too
        case 97: return card.shared_bytes_per_block;
        case 106: return card.blocks_per_multiprocessor;
        case 111: return 1024;             // shared memory that a block loses to the system
        case 119: return 1;                // a file descriptor is a handle of a memory pool
        case 120: return card.major >= 9;  // clusters of blocks
        default: return can_always(attribute);
    }
}

}  // namespace virtual_card
