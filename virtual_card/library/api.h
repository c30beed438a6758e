// What every public function of the library is declared with.
#pragma once

#define EXPORT extern "C" __attribute__((visibility("default")))
