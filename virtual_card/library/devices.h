// The devices that this process sees, the thread's current one, their contexts, and whether they still work.
#pragma once

#include <mutex>
#include <vector>

#include "machine.h"

namespace virtual_card {

// Guards everything of this process; held before the lock of the books, never after it.
extern std::recursive_mutex process;
using Lock = std::lock_guard<std::recursive_mutex>;

// The cards behind the ordinals 0, 1, ... of this process, as CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER say.
const std::vector<int> &visible();
int device_count();
bool is_device(int ordinal);
inline int card_of(int ordinal) {
    return visible()[ordinal];
}
inline const Card &spec_of(int ordinal) {
    return machine().cards[card_of(ordinal)];
}

int current_device();
void set_current_device(int ordinal);

// Why no device can be used at all, or OK: a driver too old, no card, a process forked after its first use of CUDA.
int unusable();

// Makes the context of a device at its first use; an error where that cannot be.
int use(int ordinal);
int use_current();
bool has_context(int ordinal);

// The fault that this process cannot leave any more, or OK.
int broken();
void break_process(int error);

// What cudaDeviceGetAttribute and cuDeviceGetAttribute answer; they share their numbers.
int attribute_of(int ordinal, int attribute);

}  // namespace virtual_card
