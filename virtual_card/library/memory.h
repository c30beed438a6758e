// Device memory: blocks that are booked on their card and refused at its size, and memory that is mapped to addresses.
#pragma once

#include <cstdint>

namespace virtual_card {

struct Block {
    uint64_t begin, size;
    int device;
};

int allocate(uint64_t *out, uint64_t size);
int release(uint64_t at);
// The block that an address lies in; false where there is none.
bool block_of(uint64_t address, Block *out);

// Addresses without memory, memory without addresses, and the two together.
struct Physical {
    uint64_t size;
    int uses, device;
};
int reserve_addresses(uint64_t *out, uint64_t size);
int release_addresses(uint64_t at);
int create_physical(Physical **out, uint64_t size, int device);
int release_physical(Physical *physical);
int map_physical(uint64_t at, uint64_t size, Physical *physical);
int unmap_physical(uint64_t at, uint64_t size);
Physical *physical_at(uint64_t address);

}  // namespace virtual_card
