#include "convolutions.h"

#include <cstddef>

namespace virtual_card {

namespace {

constexpr int64_t MIB = 1 << 20, HALF_BYTES = 2, SINGLE_BYTES = 4, HEADER_BYTES = 512;
constexpr int64_t CHANNELS = 8;  // tensor cores take them in eights

// Convolutions for which the heuristics of cuDNN 9.20 choose a kernel that takes more than copies.
struct Exception {
    int capability;
    Direction direction;
    int64_t filter_rows, filter_columns, taps, more_bytes;
};
const Exception EXCEPTIONS[] = {
    {86, Direction::BACKWARD_DATA, 2048, 1024, 20, 200 * MIB},
    {86, Direction::BACKWARD_DATA, 128, 128, 4, 8 * MIB},
    {89, Direction::FORWARD, 1024, 1024, 7, 120 * MIB},
};

int64_t rounded(int64_t size, int64_t to) {
    return (size + to - 1) / to * to;
}

int64_t taps_of(const TensorShape &filter) {
    int64_t taps = 1;
    for (size_t axis = 2; axis < filter.sizes.size(); axis++) taps *= filter.sizes[axis];
    return taps;
}

// A copy with the channels last, filled up to eights; nothing for a tensor that lies so already.
int64_t copy_bytes(const TensorShape &tensor, bool is_filter) {
    if (tensor.sizes.size() < 3) return 0;
    const bool channels_last = tensor.strides.size() == tensor.sizes.size() && tensor.strides[1] == 1;
    if (channels_last && tensor.sizes[1] % CHANNELS == 0) return 0;
    int64_t elements = rounded(tensor.sizes[1], CHANNELS);
    elements *= is_filter ? rounded(tensor.sizes[0], CHANNELS) : tensor.sizes[0];
    return elements * taps_of(tensor) * tensor.element_bytes;
}

int64_t exceptional_bytes(const Convolution &convolution, int capability) {
    const auto &filter = convolution.filter;
    for (const auto &known : EXCEPTIONS)
        if (known.capability == capability && known.direction == convolution.direction &&
            known.filter_rows == filter.sizes[0] && known.filter_columns == filter.sizes[1] &&
            known.taps == taps_of(filter))
            return known.more_bytes;
    return 0;
}

}  // namespace

int64_t convolution_workspace(const Convolution &convolution, int capability) {
    const int64_t element = convolution.filter.element_bytes;
    // With one tap it is a product of matrices.
    if (convolution.filter.sizes.size() < 3 || taps_of(convolution.filter) == 1) return 0;
    const int64_t filter = copy_bytes(convolution.filter, true), input = copy_bytes(convolution.input, false),
                  output = copy_bytes(convolution.output, false);
    if (element == HALF_BYTES)
        return filter + input + output + HEADER_BYTES + exceptional_bytes(convolution, capability);
    if (element != SINGLE_BYTES || capability < 80) return 0;
    // In float32 Blackwell copies all three; Ampere and Ada write the output where it belongs.
    return filter + input + (capability >= 100 ? output : 0) + HEADER_BYTES;
}

}  // namespace virtual_card
