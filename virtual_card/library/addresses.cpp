#include "addresses.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <map>

#include "machine.h"

namespace virtual_card {

namespace {

struct Range {
    uint64_t begin, end;
};

// Expandable segments reserve more addresses than a card has memory, once for each stream.
uint64_t range_size() {
    uint64_t all = 0;
    for (const auto &card : machine().cards) all += card.total_bytes() + card.spill_bytes;
    return round_up(std::max(32 * all, 64 * GRAIN), GRAIN);
}

const Range &range() {
    static const Range reserved = [] {
        const uint64_t size = range_size();
        void *at =
            mmap(nullptr, size + GRAIN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (at == MAP_FAILED) {
            std::perror("virtual card: no address space");
            std::abort();
        }
        madvise(at, size + GRAIN, MADV_NOHUGEPAGE);
        madvise(at, size + GRAIN, MADV_DONTDUMP);
        const uint64_t begin = round_up(reinterpret_cast<uint64_t>(at), GRAIN);
        return Range{begin, begin + size};
    }();
    return reserved;
}

// Free ranges by their first address.
std::map<uint64_t, uint64_t> &holes() {
    static auto &free = *new std::map<uint64_t, uint64_t>{{range().begin, range().end - range().begin}};
    return free;
}

}  // namespace

uint64_t take_addresses(uint64_t size) {
    for (auto hole = holes().begin(); hole != holes().end(); ++hole) {
        if (hole->second < size) continue;
        const uint64_t at = hole->first, left = hole->second - size;
        holes().erase(hole);
        if (left) holes()[at + size] = left;
        return at;
    }
    return 0;
}

void give_addresses(uint64_t at, uint64_t size) {
    forget_contents(at, size);
    auto next = holes().lower_bound(at);
    if (next != holes().end() && next->first == at + size) {
        size += next->second;
        next = holes().erase(next);
    }
    if (next != holes().begin()) {
        auto before = std::prev(next);
        if (before->first + before->second == at) {
            before->second += size;
            return;
        }
    }
    holes()[at] = size;
}

void forget_contents(uint64_t at, uint64_t size) {
    madvise(reinterpret_cast<void *>(at), size, MADV_DONTNEED);
}

bool is_device_address(const void *pointer) {
    const auto at = reinterpret_cast<uint64_t>(pointer);
    return !machine().cards.empty() && at >= range().begin && at < range().end;
}

}  // namespace virtual_card
