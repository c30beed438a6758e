// How much workspace cuDNN takes for a convolution. Pure.
#pragma once

#include <cstdint>
#include <vector>

namespace virtual_card {

struct TensorShape {
    std::vector<int64_t> sizes, strides;
    int64_t element_bytes = 0;
};

// A transposed convolution is the backward pass of a plain one with regard to its data; so it runs.
enum class Direction { FORWARD, BACKWARD_DATA, BACKWARD_FILTER };

struct Convolution {
    Direction direction;
    TensorShape filter, input, output;
};

// Bytes on a card of this compute capability, 86 for 8.6.
int64_t convolution_workspace(const Convolution &convolution, int capability);

}  // namespace virtual_card
