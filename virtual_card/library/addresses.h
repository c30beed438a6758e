// The range of addresses that device memory lies in: real pages that cost nothing until they are written.
#pragma once

#include <cstdint>

namespace virtual_card {

// What a card hands out at once; sizes are rounded up to it.
constexpr uint64_t GRAIN = 2ull << 20;

inline uint64_t round_up(uint64_t size, uint64_t to) {
    return (size + to - 1) / to * to;
}

// The lowest free range of that many bytes, a multiple of GRAIN; 0 where there is none.
uint64_t take_addresses(uint64_t size);
// Gives a range back, and its pages to the system.
void give_addresses(uint64_t at, uint64_t size);
// Gives only the pages back.
void forget_contents(uint64_t at, uint64_t size);
bool is_device_address(const void *pointer);

}  // namespace virtual_card
