// The machine that a process runs on: its cards and its driver, read once from a file that Python wrote.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace virtual_card {

constexpr uint64_t KIB = 1ull << 10;
constexpr uint64_t MIB = 1ull << 20;
constexpr int MOST_CARDS = 8;

// `slice_bytes` is the size of the card's MIG slice, 0 for a card that is not cut. `spill_bytes` is what a process may
// allocate beyond the card (Windows takes it from the main memory).
struct Card {
    std::string name, uuid, slice_uuid;
    int major = 8, minor = 6;
    int multiprocessors = 1, threads_per_multiprocessor = 1536, blocks_per_multiprocessor = 16;
    int shared_bytes_per_block = 101376, shared_bytes_per_multiprocessor = 102400;
    int l2_bytes = 0, bus_width = 0;
    uint64_t board_bytes = 0, reserve_bytes = 0, slice_bytes = 0, spill_bytes = 0;
    uint64_t context_bytes = 0, matrix_library_bytes = 0;
    bool unified = false, lists_bytes = true;

    // What CUDA calls the total memory.
    uint64_t total_bytes() const { return slice_bytes ? slice_bytes : board_bytes - reserve_bytes; }
    const std::string &device_uuid() const { return slice_bytes ? slice_uuid : uuid; }
};

enum class Nvml { WORKS, MISMATCHED, MUTE };

struct Machine {
    std::string directory, driver;
    int cuda_version = 0;
    Nvml nvml = Nvml::WORKS;
    uint64_t copy_limit = 0;
    std::vector<Card> cards;
};

// An empty machine where the environment names none, with a message.
const Machine &machine();

// Parses a uuid such as "GPU-76697274-..." into its 16 bytes.
void uuid_bytes(const std::string &uuid, unsigned char *out);

}  // namespace virtual_card
