#include "books.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "controls.h"
#include "machine.h"

namespace virtual_card {

namespace {

constexpr int MOST_TENANTS = 256;

struct Tenant {
    int pid;
    uint64_t born;
    uint64_t bytes[MOST_CARDS];
};

struct Books {
    pthread_mutex_t lock;
    Tenant tenants[MOST_TENANTS];
    uint64_t allocations[MOST_CARDS];
};

void initialise(Books *books) {
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&books->lock, &attributes);
    pthread_mutexattr_destroy(&attributes);
}

Books *mapped(int file) {
    void *at = mmap(nullptr, sizeof(Books), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    return at == MAP_FAILED ? nullptr : static_cast<Books *>(at);
}

// The file appears under its name only when it is complete, so the first of several processes makes it for all.
Books *open_books() {
    const std::string path = machine().directory + "/books";
    int file = open(path.c_str(), O_RDWR | O_CLOEXEC);
    if (file < 0) {
        std::string draft = path + ".XXXXXX";
        int made = mkostemp(draft.data(), O_CLOEXEC);
        if (made < 0 || ftruncate(made, sizeof(Books)) != 0) return nullptr;
        Books *books = mapped(made);
        if (!books) return nullptr;
        initialise(books);
        munmap(books, sizeof(Books));
        if (link(draft.c_str(), path.c_str()) != 0 && errno != EEXIST) return nullptr;
        unlink(draft.c_str());
        file = open(path.c_str(), O_RDWR | O_CLOEXEC);
    }
    return file < 0 ? nullptr : mapped(file);
}

Books &books() {
    static Books *const opened = [] {
        Books *found = open_books();
        if (!found) {
            std::fprintf(stderr, "virtual card: the books in %s cannot be opened: %s\n", machine().directory.c_str(),
                         std::strerror(errno));
            std::abort();
        }
        return found;
    }();
    return *opened;
}

class Locked {
public:
    Locked() {
        // The last owner died with the lock in its hands; every entry is a number that stands by itself.
        if (pthread_mutex_lock(&books().lock) == EOWNERDEAD) pthread_mutex_consistent(&books().lock);
    }
    ~Locked() { pthread_mutex_unlock(&books().lock); }
    Locked(const Locked &) = delete;
    Locked &operator=(const Locked &) = delete;
};

// Clock ticks from the start of the system to the start of a process; 0 for one that has ended.
uint64_t birth_of(int pid) {
    char path[64], line[1024];
    std::snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *file = std::fopen(path, "re");
    if (!file) return 0;
    const size_t length = std::fread(line, 1, sizeof line - 1, file);
    std::fclose(file);
    line[length] = 0;
    // The command's name may hold spaces and brackets; the state follows the last bracket.
    const char *rest = std::strrchr(line, ')');
    char state = 0;
    unsigned long long born = 0;
    if (!rest ||
        std::sscanf(rest + 1, " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
                    &state, &born) != 2)
        return 0;
    return state == 'Z' || state == 'X' ? 0 : born;
}

void forget_dead() {
    for (auto &tenant : books().tenants)
        if (tenant.pid && birth_of(tenant.pid) != tenant.born) tenant = {};
}

std::atomic<bool> closed{false};

// This process's row; a forked child has none of its parent's memory, and begins its own.
Tenant &own() {
    static Tenant *row = nullptr;
    static int owner = 0;
    if (row && owner == getpid()) return *row;
    owner = getpid();
    for (int round = 0; round < 2; round++) {
        for (auto &tenant : books().tenants)
            if (!tenant.pid) {
                tenant = {};
                tenant.pid = owner;
                tenant.born = birth_of(owner);
                return *(row = &tenant);
            }
        forget_dead();
    }
    std::fprintf(stderr, "virtual card: more than %d processes use the card\n", MOST_TENANTS);
    std::abort();
}

uint64_t visitor(int card) {
    const uint64_t now = books().allocations[card];
    return now >= control(card, Control::VISITOR_FROM) && now < control(card, Control::VISITOR_UNTIL)
               ? control(card, Control::VISITOR_BYTES)
               : 0;
}

uint64_t held(int card) {
    uint64_t sum = control(card, Control::OTHERS_BYTES) + visitor(card);
    for (const auto &tenant : books().tenants)
        if (tenant.pid) sum += tenant.bytes[card];
    return sum;
}

}  // namespace

bool take(int card, uint64_t bytes, bool counted) {
    Locked lock;
    if (counted) {
        books().allocations[card]++;
        if (allocation_must_fail(card)) return false;
    }
    Tenant &row = own();
    const Card &spec = machine().cards[card];
    const uint64_t most = spec.total_bytes() + spec.spill_bytes;
    if (held(card) + bytes > most) {
        forget_dead();
        if (held(card) + bytes > most) return false;
    }
    row.bytes[card] += bytes;
    return true;
}

void give(int card, uint64_t bytes) {
    if (closed) return;
    Locked lock;
    own().bytes[card] -= bytes;
}

uint64_t held_bytes(int card) {
    Locked lock;
    forget_dead();
    return held(card);
}

uint64_t free_bytes(int card) {
    const uint64_t taken = held_bytes(card), total = machine().cards[card].total_bytes();
    return taken < total ? total - taken : 0;
}

uint64_t own_bytes(int card) {
    Locked lock;
    return own().bytes[card];
}

uint64_t allocations(int card) {
    Locked lock;
    return books().allocations[card];
}

std::vector<Holder> holders(int card) {
    Locked lock;
    forget_dead();
    std::vector<Holder> found;
    for (const auto &tenant : books().tenants)
        if (tenant.pid && tenant.bytes[card]) found.push_back({tenant.pid, tenant.bytes[card]});
    return found;
}

void close_books() {
    if (closed.exchange(true) || machine().directory.empty()) return;
    Locked lock;
    for (auto &tenant : books().tenants)
        if (tenant.pid == getpid()) tenant = {};
}

}  // namespace virtual_card
