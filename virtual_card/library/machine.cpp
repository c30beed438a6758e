#include "machine.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <map>
#include <sstream>

namespace virtual_card {

namespace {

using Setter = std::function<void(Card &, const std::string &)>;

Setter text(std::string Card::*field) {
    return [field](Card &card, const std::string &value) { card.*field = value; };
}
Setter number(int Card::*field) {
    return [field](Card &card, const std::string &value) { card.*field = std::atoi(value.c_str()); };
}
Setter bytes(uint64_t Card::*field) {
    return [field](Card &card, const std::string &value) { card.*field = std::strtoull(value.c_str(), nullptr, 10); };
}
Setter flag(bool Card::*field) {
    return [field](Card &card, const std::string &value) { card.*field = value == "1"; };
}

const std::map<std::string, Setter> &card_fields() {
    static const std::map<std::string, Setter> fields = {
        {"name", text(&Card::name)},
        {"uuid", text(&Card::uuid)},
        {"slice_uuid", text(&Card::slice_uuid)},
        {"major", number(&Card::major)},
        {"minor", number(&Card::minor)},
        {"multiprocessors", number(&Card::multiprocessors)},
        {"threads_per_multiprocessor", number(&Card::threads_per_multiprocessor)},
        {"blocks_per_multiprocessor", number(&Card::blocks_per_multiprocessor)},
        {"shared_bytes_per_block", number(&Card::shared_bytes_per_block)},
        {"shared_bytes_per_multiprocessor", number(&Card::shared_bytes_per_multiprocessor)},
        {"l2_bytes", number(&Card::l2_bytes)},
        {"bus_width", number(&Card::bus_width)},
        {"board_bytes", bytes(&Card::board_bytes)},
        {"reserve_bytes", bytes(&Card::reserve_bytes)},
        {"slice_bytes", bytes(&Card::slice_bytes)},
        {"spill_bytes", bytes(&Card::spill_bytes)},
        {"context_bytes", bytes(&Card::context_bytes)},
        {"matrix_library_bytes", bytes(&Card::matrix_library_bytes)},
        {"unified", flag(&Card::unified)},
        {"lists_bytes", flag(&Card::lists_bytes)},
    };
    return fields;
}

bool set_machine_field(Machine &machine, const std::string &key, const std::string &value) {
    if (key == "driver")
        machine.driver = value;
    else if (key == "cuda_version")
        machine.cuda_version = std::atoi(value.c_str());
    else if (key == "copy_limit")
        machine.copy_limit = std::strtoull(value.c_str(), nullptr, 10);
    else if (key == "nvml")
        machine.nvml = value == "mismatched" ? Nvml::MISMATCHED : value == "mute" ? Nvml::MUTE : Nvml::WORKS;
    else
        return false;
    return true;
}

Machine read_machine() {
    Machine machine;
    const char *directory = std::getenv("VIRTUAL_CARD_MACHINE");
    if (!directory || !*directory) {
        std::fprintf(stderr,
                     "virtual card: VIRTUAL_CARD_MACHINE is not set, so this machine has no card; start the"
                     " command with `python -m virtual_card`\n");
        return machine;
    }
    machine.directory = directory;
    std::ifstream file(machine.directory + "/machine.txt");
    if (!file) std::fprintf(stderr, "virtual card: %s/machine.txt cannot be read\n", directory);
    // A line is a key and a value; `card` alone begins the next card.
    for (std::string line; std::getline(file, line);) {
        std::string key = line.substr(0, line.find(' '));
        std::string value = key.size() < line.size() ? line.substr(key.size() + 1) : "";
        if (key == "card" && machine.cards.size() < MOST_CARDS) {
            machine.cards.emplace_back();
            continue;
        }
        auto field = card_fields().find(key);
        if (field != card_fields().end() && !machine.cards.empty())
            field->second(machine.cards.back(), value);
        else if (!set_machine_field(machine, key, value))
            std::fprintf(stderr, "virtual card: machine.txt has an unknown line: %s\n", line.c_str());
    }
    return machine;
}

}  // namespace

const Machine &machine() {
    // Never destroyed: other libraries call while the process ends.
    static const Machine &read = *new Machine(read_machine());
    return read;
}

void uuid_bytes(const std::string &uuid, unsigned char *out) {
    std::memset(out, 0, 16);
    static const char HEX[] = "0123456789abcdef";
    int digits = 0;
    for (char c : uuid.substr(uuid.find('-') + 1)) {
        const char *place = std::strchr(HEX, c);
        if (c == '-' || !c || !place || digits == 32) continue;
        out[digits / 2] = static_cast<unsigned char>(out[digits / 2] << 4 | (place - HEX));
        digits++;
    }
}

}  // namespace virtual_card
