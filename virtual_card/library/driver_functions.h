// The driver's public functions by name, as programs open them at run time.
#pragma once

namespace virtual_card {

// This library's function of that name, or null. The newest version of it is taken.
void *driver_function(const char *name);

}  // namespace virtual_card
