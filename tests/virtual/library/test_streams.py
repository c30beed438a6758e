"""Streams, events and capture: what may be done while a graph is captured, and what ends the capture."""

import pytest

from tests.virtual.processes import printed, running

CAPTURE = """
GLOBAL, THREAD, RELAXED = 0, 1, 2
def begin(s, mode=GLOBAL):
    return cuda.cudaStreamBeginCapture(c_void_p(s), mode)
def end(s):
    graph = c_void_p()
    error = cuda.cudaStreamEndCapture(c_void_p(s), byref(graph))
    return error, graph
def nodes(graph):
    count = c_size_t()
    assert cuda.cudaGraphGetNodes(graph, None, byref(count)) == 0
    return count.value
def event(flags=2):
    made = c_void_p()
    assert cuda.cudaEventCreateWithFlags(byref(made), flags) == 0
    return made
def status(s):
    value = c_int()
    cuda.cudaStreamIsCapturing(c_void_p(s), byref(value))
    return value.value
s, t = stream(), stream()
"""


@pytest.mark.parametrize(
    ("code", "out"),
    [
        ("begin(s); [launch(s) for _ in range(5)]; e, g = end(s); print(e, nodes(g), status(s))", "0 5 0"),
        ("print(begin(s), begin(s), end(t)[0], end(s)[0])", "0 900 903 0"),
        ("print(begin(0), end(s)[0])", "900 903"),
        ("begin(s); print(allocate(2 << 20)[0], status(s), end(s)[0], allocate(2 << 20)[0])", "900 2 901 0"),
        ("begin(s, RELAXED); print(allocate(2 << 20)[0], end(s)[0])", "0 0"),
        ("begin(s); print(cuda.cudaDeviceSynchronize(), launch(s), end(s)[0])", "900 901 901"),
        ("begin(s); print(cuda.cudaStreamSynchronize(c_void_p(t)), cuda.cudaStreamSynchronize(c_void_p(s)))", "0 900"),
        ("begin(s); print(launch(0), end(s)[0])", "0 0"),
        ("b = stream(0); begin(b); print(launch(0), end(b)[0])", "906 901"),
        (
            "begin(s); m = c_int(RELAXED); cuda.cudaThreadExchangeStreamCaptureMode(byref(m));"
            " print(m.value, allocate(2 << 20)[0], end(s)[0])",
            "0 0 0",
        ),
        (
            "e = event(); begin(s); cuda.cudaEventRecord(e, c_void_p(s)); cuda.cudaStreamWaitEvent(c_void_p(t), e, 0);"
            " launch(t); print(status(t), cuda.cudaEventQuery(e), end(s)[0], status(t))",
            "1 907 901 0",
        ),
        (
            "e = event(); begin(s); cuda.cudaEventRecord(e, c_void_p(s)); cuda.cudaStreamWaitEvent(c_void_p(t), e, 0);"
            " launch(t); launch(s); r, g = end(s); print(r, nodes(g), cuda.cudaEventQuery(e))",
            "0 2 0",
        ),
        ("print(cuda.cudaStreamQuery(c_void_p(s)), cuda.cudaStreamDestroy(c_void_p(t)))", "0 0"),
    ],
)
def test_capture(code: str, out: str) -> None:
    with running() as machine:
        assert printed(machine, CAPTURE + code) == out


def test_a_graph_is_made_runnable_run_and_destroyed() -> None:
    with running() as machine:
        out = printed(
            machine,
            CAPTURE
            + """
begin(s)
launch(s)
_, graph = end(s)
x = c_void_p()
print(cuda.cudaGraphInstantiateWithFlags(byref(x), graph, ctypes.c_ulonglong(0)),
      cuda.cudaGraphLaunch(x, c_void_p(s)), cuda.cudaGraphExecDestroy(x), cuda.cudaGraphDestroy(graph))
""",
        )
    assert out == "0 0 0 0"


def test_events_measure_time_that_goes_on_unless_they_were_made_without() -> None:
    with running() as machine:
        out = printed(
            machine,
            CAPTURE
            + """
a, b, never, without = event(0), event(0), event(0), event(2)
for e in (a, without):
    assert cuda.cudaEventRecord(e, c_void_p(s)) == 0
time.sleep(0.02)
assert cuda.cudaEventRecord(b, c_void_p(s)) == 0
ms = c_float()
print(cuda.cudaEventElapsedTime(byref(ms), a, b), ms.value >= 20, cuda.cudaEventElapsedTime(byref(ms), a, never),
      cuda.cudaEventElapsedTime(byref(ms), without, b))
""",
        )
    assert out == "0 True 400 400"


def test_streams_and_events_of_many_threads() -> None:
    with running() as machine:
        printed(
            machine,
            CAPTURE
            + """
def work():
    own, e = stream(), event()
    for _ in range(100):
        assert launch(own) == 0
        assert cuda.cudaEventRecord(e, c_void_p(own)) == 0
        assert cuda.cudaStreamWaitEvent(c_void_p(s), e, 0) == 0
        assert cuda.cudaEventQuery(e) == 0
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
""",
        )
