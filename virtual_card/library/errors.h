// Error numbers of the CUDA runtime and driver interfaces; the two share them.
#pragma once

namespace virtual_card {

enum Error : int {
    OK = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    INVALID_CONFIGURATION = 9,
    INVALID_SYMBOL = 13,
    INSUFFICIENT_DRIVER = 35,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_CONTEXT = 201,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    NOT_READY = 600,
    ILLEGAL_ADDRESS = 700,
    ALREADY_REGISTERED = 712,
    NOT_REGISTERED = 713,
    LAUNCH_FAILURE = 719,
    NOT_SUPPORTED = 801,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901,
    CAPTURE_UNMATCHED = 903,
    CAPTURE_IMPLICIT = 906,
    CAPTURED_EVENT = 907,
    UNKNOWN = 999,
};

// The names as the runtime and the driver spell them, and the sentence that both show.
const char *runtime_error_name(int error);
const char *driver_error_name(int error);
const char *error_text(int error);

// The last error of a runtime call on this thread.
int remember(int error);
int take_last_error();
int last_error();

}  // namespace virtual_card
