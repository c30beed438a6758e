// Page-locked memory of the host, and copies.
#pragma once

#include <cstddef>
#include <cstdint>

namespace virtual_card {

int allocate_host(void **out, size_t size);
int release_host(void *at);
int register_host(void *at, size_t size);
int unregister_host(void *at);

struct HostBlock {
    uint64_t begin, size;
};
bool host_block_of(uint64_t address, HostBlock *out);

// Copies and fills that are not larger than the machine's `copy_limit` happen; of larger ones the host sees zeros.
int copy(void *to, const void *from, size_t size);
int fill(void *to, int byte, size_t size);
int fill_words(void *to, uint32_t word, size_t count);

}  // namespace virtual_card
