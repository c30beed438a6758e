// NVRTC: compiles every program to nothing.
#include <cstddef>
#include <map>
#include <string>

#include "api.h"

namespace {

struct Program {
    std::map<std::string, std::string> names;
};

int empty(char *out) {
    *out = 0;
    return 0;
}
int size_of_empty(size_t *size) {
    *size = 1;
    return 0;
}

}  // namespace

EXPORT int nvrtcVersion(int *major, int *minor) {
    *major = VIRTUAL_CARD_CUDA_MAJOR;
    *minor = 0;
    return 0;
}
EXPORT const char *nvrtcGetErrorString(int error) {
    return error ? "NVRTC_ERROR_INTERNAL_ERROR" : "NVRTC_SUCCESS";
}
EXPORT int nvrtcCreateProgram(Program **out, const char *, const char *, int, const char *const *,
                              const char *const *) {
    *out = new Program;
    return 0;
}
EXPORT int nvrtcDestroyProgram(Program **program) {
    delete *program;
    *program = nullptr;
    return 0;
}
EXPORT int nvrtcCompileProgram(Program *, int, const char *const *) {
    return 0;
}
EXPORT int nvrtcAddNameExpression(Program *program, const char *name) {
    program->names[name] = name;
    return 0;
}
EXPORT int nvrtcGetLoweredName(Program *program, const char *name, const char **out) {
    *out = program->names[name].c_str();
    return 0;
}
EXPORT int nvrtcGetPTXSize(Program *, size_t *size) {
    return size_of_empty(size);
}
EXPORT int nvrtcGetPTX(Program *, char *out) {
    return empty(out);
}
EXPORT int nvrtcGetCUBINSize(Program *, size_t *size) {
    return size_of_empty(size);
}
EXPORT int nvrtcGetCUBIN(Program *, char *out) {
    return empty(out);
}
EXPORT int nvrtcGetProgramLogSize(Program *, size_t *size) {
    return size_of_empty(size);
}
EXPORT int nvrtcGetProgramLog(Program *, char *out) {
    return empty(out);
}
