// The books of all cards, shared by every process of the machine: who holds how many bytes.
//
// A process that dies without an answer is found by its id and its time of birth, and its bytes are given back.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace virtual_card {

// Books `bytes` for this process; false where the card has no room, or an allocation is to fail. A `counted` booking is
// a driver allocation that faults may hit.
bool take(int card, uint64_t bytes, bool counted);
void give(int card, uint64_t bytes);

uint64_t free_bytes(int card);
uint64_t held_bytes(int card);
uint64_t own_bytes(int card);
uint64_t allocations(int card);

struct Holder {
    int pid;
    uint64_t bytes;
};
std::vector<Holder> holders(int card);

// This process ends, and holds nothing more.
void close_books();

}  // namespace virtual_card
