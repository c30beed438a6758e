#include "memory.h"

#include <algorithm>
#include <iterator>
#include <map>

#include "addresses.h"
#include "books.h"
#include "devices.h"
#include "errors.h"

namespace virtual_card {

namespace {

constexpr uint64_t SMALL_LIMIT = MIB;
constexpr uint64_t SMALL_GRAIN = 512;

// Small blocks share what a card hands out at once; `free` maps first addresses to sizes.
struct Slab {
    int device;
    uint64_t used;
    std::map<uint64_t, uint64_t> free;
};

struct Mapping {
    uint64_t size;
    Physical *physical;
};

// Never destroyed: libraries free memory while the process ends.
auto &blocks = *new std::map<uint64_t, Block>;
auto &slabs = *new std::map<uint64_t, Slab>;
auto &reserved = *new std::map<uint64_t, uint64_t>;
auto &mappings = *new std::map<uint64_t, Mapping>;

uint64_t take_from(Slab &slab, uint64_t size) {
    for (auto piece = slab.free.begin(); piece != slab.free.end(); ++piece) {
        if (piece->second < size) continue;
        const uint64_t at = piece->first, left = piece->second - size;
        slab.free.erase(piece);
        if (left) slab.free[at + size] = left;
        slab.used += size;
        return at;
    }
    return 0;
}

int allocate_small(uint64_t *out, uint64_t size, int device) {
    const uint64_t rounded = round_up(size, SMALL_GRAIN);
    uint64_t at = 0;
    for (auto &[begin, slab] : slabs)
        if (!at && slab.device == device) at = take_from(slab, rounded);
    if (!at) {
        if (!take(card_of(device), GRAIN, true)) return OUT_OF_MEMORY;
        const uint64_t begin = take_addresses(GRAIN);
        at = take_from(slabs[begin] = Slab{device, 0, {{begin, GRAIN}}}, rounded);
    }
    blocks[at] = {at, size, device};
    *out = at;
    return OK;
}

void release_small(const Block &block) {
    auto slab = std::prev(slabs.upper_bound(block.begin));
    const uint64_t size = round_up(block.size, SMALL_GRAIN);
    slab->second.used -= size;
    slab->second.free[block.begin] = size;
    if (slab->second.used) return;
    give_addresses(slab->first, GRAIN);
    give(card_of(block.device), GRAIN);
    slabs.erase(slab);
}

}  // namespace

int allocate(uint64_t *out, uint64_t size) {
    if (!out || !size) return INVALID_VALUE;
    if (int error = broken()) return error;
    if (int error = use_current()) return error;
    Lock lock(process);
    const int device = current_device();
    if (size < SMALL_LIMIT) return allocate_small(out, size, device);
    const uint64_t charged = round_up(size, GRAIN);
    if (charged < size || !take(card_of(device), charged, true)) return OUT_OF_MEMORY;
    const uint64_t at = take_addresses(charged);
    if (!at) {
        give(card_of(device), charged);
        return OUT_OF_MEMORY;
    }
    blocks[at] = {at, size, device};
    *out = at;
    return OK;
}

int release(uint64_t at) {
    if (!at) return OK;
    Lock lock(process);
    const auto found = blocks.find(at);
    if (found == blocks.end()) return INVALID_VALUE;
    const Block block = found->second;
    blocks.erase(found);
    if (block.size < SMALL_LIMIT)
        release_small(block);
    else {
        give_addresses(at, round_up(block.size, GRAIN));
        give(card_of(block.device), round_up(block.size, GRAIN));
    }
    return broken();
}

bool block_of(uint64_t address, Block *out) {
    Lock lock(process);
    auto after = blocks.upper_bound(address);
    if (after != blocks.begin()) {
        const Block &block = std::prev(after)->second;
        if (address < block.begin + block.size) {
            *out = block;
            return true;
        }
    }
    auto next = mappings.upper_bound(address);
    if (next == mappings.begin()) return false;
    const auto &[begin, mapping] = *std::prev(next);
    if (address >= begin + mapping.size) return false;
    *out = {begin, mapping.size, mapping.physical->device};
    return true;
}

int reserve_addresses(uint64_t *out, uint64_t size) {
    if (int error = use_current()) return error;
    if (!size || size % GRAIN) return INVALID_VALUE;
    Lock lock(process);
    const uint64_t at = take_addresses(size);
    if (!at) return OUT_OF_MEMORY;
    reserved[at] = size;
    *out = at;
    return OK;
}

int release_addresses(uint64_t at) {
    Lock lock(process);
    const auto found = reserved.find(at);
    if (found == reserved.end()) return INVALID_VALUE;
    give_addresses(at, found->second);
    reserved.erase(found);
    return OK;
}

int create_physical(Physical **out, uint64_t size, int device) {
    if (int error = broken()) return error;
    if (!size || size % GRAIN) return INVALID_VALUE;
    if (int error = use(device)) return error;
    if (!take(card_of(device), size, true)) return OUT_OF_MEMORY;
    *out = new Physical{size, 1, device};
    return OK;
}

int release_physical(Physical *physical) {
    Lock lock(process);
    if (--physical->uses) return OK;
    give(card_of(physical->device), physical->size);
    delete physical;
    return OK;
}

int map_physical(uint64_t at, uint64_t size, Physical *physical) {
    Lock lock(process);
    auto after = reserved.upper_bound(at);
    if (after == reserved.begin() || size != physical->size) return INVALID_VALUE;
    const auto &[begin, room] = *std::prev(after);
    auto next = mappings.lower_bound(at);
    const bool taken = (next != mappings.end() && next->first < at + size) ||
                       (next != mappings.begin() && std::prev(next)->first + std::prev(next)->second.size > at);
    if (at + size > begin + room || taken) return INVALID_VALUE;
    physical->uses++;
    mappings[at] = {size, physical};
    return OK;
}

int unmap_physical(uint64_t at, uint64_t size) {
    Lock lock(process);
    auto mapping = mappings.lower_bound(at);
    if (mapping == mappings.end() || mapping->first >= at + size) return INVALID_VALUE;
    while (mapping != mappings.end() && mapping->first < at + size) {
        release_physical(mapping->second.physical);
        mapping = mappings.erase(mapping);
    }
    forget_contents(at, size);
    return OK;
}

Physical *physical_at(uint64_t address) {
    Lock lock(process);
    auto next = mappings.upper_bound(address);
    if (next == mappings.begin()) return nullptr;
    const auto &[begin, mapping] = *std::prev(next);
    return address < begin + mapping.size ? mapping.physical : nullptr;
}

}  // namespace virtual_card
