#include "host_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <iterator>
#include <map>
#include <thread>

#include "addresses.h"
#include "controls.h"
#include "devices.h"
#include "errors.h"

namespace virtual_card {

namespace {

constexpr uint64_t PAGE = 4096;

struct Locked {
    uint64_t size;
    bool own;
};
auto &page_locked = *new std::map<uint64_t, Locked>;

bool refused() {
    return control(card_of(current_device()), Control::REFUSE_PAGE_LOCKING);
}

// A slow bus makes the caller wait, as a copy of pageable memory does.
void take_time(size_t size) {
    if (const uint64_t pace = control(card_of(current_device()), Control::COPY_BYTES_PER_SECOND))
        std::this_thread::sleep_for(
            std::chrono::duration<double>(static_cast<double>(size) / static_cast<double>(pace)));
}

// Whether no file lies behind these addresses and no other process shares them.
bool is_private(uint64_t begin, uint64_t end) {
    FILE *maps = std::fopen("/proc/self/maps", "re");
    if (!maps) return false;
    char line[4352];  // a path has at most 4096 bytes
    uint64_t reached = begin;
    while (reached < end && std::fgets(line, sizeof line, maps)) {
        unsigned long long first = 0, last = 0, file = 0;
        char rights[5] = "";
        if (std::sscanf(line, "%llx-%llx %4s %*s %*s %llu", &first, &last, rights, &file) != 4) break;
        if (last <= reached) continue;
        if (first > reached || rights[1] != 'w' || rights[3] != 'p' || file) break;
        reached = last;
    }
    std::fclose(maps);
    return reached >= end;
}

// Only what is not zero is written, because the first write to a page takes memory.
void clear_bytes(uint64_t begin, uint64_t end) {
    auto *at = reinterpret_cast<char *>(begin), *after = reinterpret_cast<char *>(end);
    if (std::any_of(at, after, [](char byte) { return byte != 0; })) std::memset(at, 0, end - begin);
}

// Whole pages are given back instead of written: they read as zeros, and take memory only once they are written again.
void clear(void *to, size_t size) {
    const auto begin = reinterpret_cast<uint64_t>(to), end = begin + size;
    const uint64_t first = round_up(begin, PAGE), last = end / PAGE * PAGE;
    if (first >= last || !is_private(first, last) ||
        madvise(reinterpret_cast<void *>(first), last - first, MADV_DONTNEED) != 0) {
        std::memset(to, 0, size);
        return;
    }
    clear_bytes(begin, first);
    clear_bytes(last, end);
}

}  // namespace

int allocate_host(void **out, size_t size) {
    if (int error = broken()) return error;
    if (int error = use_current()) return error;
    if (refused()) return OUT_OF_MEMORY;
    const size_t rounded = round_up(std::max<size_t>(size, 1), PAGE);
    void *at = mmap(nullptr, rounded, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) return OUT_OF_MEMORY;
    Lock lock(process);
    page_locked[reinterpret_cast<uint64_t>(at)] = {rounded, true};
    *out = at;
    return OK;
}

int release_host(void *at) {
    if (!at) return OK;
    Lock lock(process);
    const auto found = page_locked.find(reinterpret_cast<uint64_t>(at));
    if (found == page_locked.end() || !found->second.own) return INVALID_VALUE;
    munmap(at, found->second.size);
    page_locked.erase(found);
    return OK;
}

int register_host(void *at, size_t size) {
    if (int error = use_current()) return error;
    if (!at || !size) return INVALID_VALUE;
    if (refused()) return OUT_OF_MEMORY;
    Lock lock(process);
    const auto begin = reinterpret_cast<uint64_t>(at);
    HostBlock other;
    if (host_block_of(begin, &other) || host_block_of(begin + size - 1, &other)) return ALREADY_REGISTERED;
    page_locked[begin] = {size, false};
    return OK;
}

int unregister_host(void *at) {
    Lock lock(process);
    const auto found = page_locked.find(reinterpret_cast<uint64_t>(at));
    if (found == page_locked.end() || found->second.own) return NOT_REGISTERED;
    page_locked.erase(found);
    return OK;
}

bool host_block_of(uint64_t address, HostBlock *out) {
    Lock lock(process);
    const auto after = page_locked.upper_bound(address);
    if (after == page_locked.begin()) return false;
    const auto &[begin, locked] = *std::prev(after);
    if (address >= begin + locked.size) return false;
    *out = {begin, locked.size};
    return true;
}

int copy(void *to, const void *from, size_t size) {
    if (int error = use_current()) return error;
    if (int error = broken()) return error;
    take_time(size);
    if (size <= machine().copy_limit)
        std::memmove(to, from, size);
    else if (!is_device_address(to))
        clear(to, size);
    return OK;
}

int fill(void *to, int byte, size_t size) {
    if (int error = use_current()) return error;
    if (int error = broken()) return error;
    if (size <= machine().copy_limit) std::memset(to, byte, size);
    return OK;
}

int fill_words(void *to, uint32_t word, size_t count) {
    if (int error = use_current()) return error;
    if (int error = broken()) return error;
    if (count * sizeof word <= machine().copy_limit) std::fill_n(static_cast<uint32_t *>(to), count, word);
    return OK;
}

}  // namespace virtual_card
