// What a test or a person may change while processes run, for one card: faults on demand, and other tenants.
//
// The numbers lie in a file that Python makes (virtual_card/controls.py, which has the same names in the same order).
// Zero means "no fault".
#pragma once

#include <cstdint>

namespace virtual_card {

enum class Control : int {
    OTHERS_BYTES,           // held by others that no list names
    VISITOR_BYTES,          // held by others between two driver allocations on the card:
    VISITOR_FROM,           // from this many allocations on,
    VISITOR_UNTIL,          // until this many
    FAIL_ALLOCATION,        // the nth driver allocation from now on fails,
    FAIL_ALLOCATION_TIMES,  // and so many in a row
    FAIL_LAUNCH,            // the nth kernel launch from now on breaks its process
    LOSE_AT_LAUNCH,         // the nth kernel launch from now on loses the card
    LOST,                   // the card has fallen off the bus
    REFUSE_PAGE_LOCKING,    // no page-locked host memory
    COPY_BYTES_PER_SECOND,  // copies take their time
    COUNT,
};

uint64_t control(int card, Control which);
void set_control(int card, Control which, uint64_t value);
// Counts down; true for the call that brings it to zero.
bool count_down(int card, Control which);
// To be asked once for each driver allocation.
bool allocation_must_fail(int card);

}  // namespace virtual_card
