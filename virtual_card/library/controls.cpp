#include "controls.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>

#include "api.h"
#include "machine.h"

namespace virtual_card {

namespace {

constexpr int CONTROLS = static_cast<int>(Control::COUNT);
using Cells = std::atomic<uint64_t>[MOST_CARDS][CONTROLS];

Cells &cells() {
    static Cells *const opened = [] {
        const std::string path = machine().directory + "/controls";
        const int file = open(path.c_str(), O_RDWR | O_CLOEXEC);
        struct stat status{};
        if (file < 0 || fstat(file, &status) != 0 || status.st_size < static_cast<off_t>(sizeof(Cells))) {
            std::fprintf(stderr, "virtual card: %s is missing or too short\n", path.c_str());
            std::abort();
        }
        void *at = mmap(nullptr, sizeof(Cells), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        close(file);
        if (at == MAP_FAILED) std::abort();
        return static_cast<Cells *>(at);
    }();
    return *opened;
}

std::atomic<uint64_t> &cell(int card, Control which) {
    return cells()[card][static_cast<int>(which)];
}

}  // namespace

uint64_t control(int card, Control which) {
    return cell(card, which).load(std::memory_order_relaxed);
}
void set_control(int card, Control which, uint64_t value) {
    cell(card, which).store(value);
}

bool count_down(int card, Control which) {
    auto &left = cell(card, which);
    for (uint64_t now = left.load(std::memory_order_relaxed); now > 0;)
        if (left.compare_exchange_weak(now, now - 1)) return now == 1;
    return false;
}

bool allocation_must_fail(int card) {
    const uint64_t left = control(card, Control::FAIL_ALLOCATION);
    if (left == 0) return false;
    if (left > 1) {
        set_control(card, Control::FAIL_ALLOCATION, left - 1);
        return false;
    }
    // The last one of those that are to fail ends it.
    const uint64_t times = control(card, Control::FAIL_ALLOCATION_TIMES);
    if (times <= 1)
        set_control(card, Control::FAIL_ALLOCATION, 0);
    else
        set_control(card, Control::FAIL_ALLOCATION_TIMES, times - 1);
    return true;
}

}  // namespace virtual_card

// For the test that Python and this library have the same list.
EXPORT int virtualCardControls() {
    return virtual_card::CONTROLS;
}
