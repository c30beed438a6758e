"""Classifies which memory ran out, from an error or from the last output of a child.

Libraries report one shortage in a dozen texts, and an error may quote a caption or lyrics that contain any of them. So
a text counts only at the beginning of a message of a known source: an exception class, or a library's log.
"""

import re
from collections.abc import Iterator, Sequence
from enum import StrEnum

from acestep.devices.refusals import REFUSALS
from calibrate.verdict import Verdict


class Shortage(StrEnum):
    """Which memory ran out and which part detected it; `NONE` if an error is about something else, or does not say."""

    NONE = "none"
    ALLOCATOR = "allocator"
    DRIVER = "driver"
    CUBLAS = "cublas"
    CUDNN = "cudnn"
    TRITON = "triton"
    AOTINDUCTOR = "aotinductor"
    KV_BUDGET = "kv-budget"
    SPILL = "spill"
    HOST = "host"

    @property
    def verdict(self) -> Verdict:
        """The verdict of a probe that failed in this way: a machine without host memory says nothing about its card."""
        return Verdict.CRASHED if self in (Shortage.NONE, Shortage.HOST) else Verdict.OOM


_CARD = frozenset(
    {
        *("RuntimeError", "OutOfMemoryError", "AcceleratorError", "InductorError", "BackendCompilerFailed"),
        *("TorchRuntimeError", "XlaRuntimeError", "Error", "what()", "Exception in aoti_torch"),
    }
)
"""The exception classes that may report a full card. `ValueError` is not one: it can quote what users typed."""

_ENGINE = _CARD | {"ValueError"}
"""vLLM refuses a budget as a wrong value."""

_SYSTEM = _CARD | {"OSError", "MemoryError", "ImportError"}

_AMOUNT = r"([\d.]+) ?(bytes|[KMGT]iB)"

_TEXTS: tuple[tuple[Shortage, frozenset[str], str], ...] = (
    (Shortage.ALLOCATOR, _CARD, r"(?:CUDA|HIP|XPU) out of memory\.?$"),
    (Shortage.ALLOCATOR, _CARD, r"Worker failed with error '(?:CUDA|HIP|XPU) out of memory\. Tried to allocate"),
    (Shortage.ALLOCATOR, _CARD, r"Allocation on device \d* ?would exceed allowed memory"),
    (Shortage.ALLOCATOR, _CARD, r"\[metal::malloc\] Attempting to allocate \d+ bytes"),
    *((Shortage(who), _SYSTEM if who == Shortage.HOST else _CARD, text) for who, text in REFUSALS),
    (Shortage.HOST, _CARD, r"(?:cuDNN error: )?CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED\b"),
    (Shortage.AOTINDUCTOR, _CARD, r"run_func_\(.*API call failed at .*model_container_runner\.cpp"),
    (Shortage.KV_BUDGET, _ENGINE, r"No available memory for the cache blocks"),
    (Shortage.KV_BUDGET, _ENGINE, r"To serve at least one request with .*KV cache is needed"),
    (Shortage.KV_BUDGET, _ENGINE, r"The model's max seq len \(\d+\) is larger than .*stored in KV cache"),
    (Shortage.KV_BUDGET, _ENGINE, r"Free memory on device .*is less than desired GPU memory utilization"),
    (Shortage.HOST, _SYSTEM, r"std::bad_alloc"),
    (Shortage.HOST, _SYSTEM, r"unable to mmap \d+ bytes .*Cannot allocate memory"),
    (Shortage.HOST, _SYSTEM, r"\[Errno 12\] "),
    (Shortage.HOST, _SYSTEM, r"(?:\[WinError 1455\]|The paging file is too small\b)"),
    (Shortage.HOST, _SYSTEM, r"DataLoader worker \(pid.*\) is killed by signal: Killed"),
)
"""The kinds of shortage, their sources, and the beginnings of their messages."""

_BARE: tuple[tuple[Shortage, str], ...] = (
    (Shortage.ALLOCATOR, rf"(?:CUDA|HIP|XPU) out of memory\. Tried to allocate {_AMOUNT}"),
    (Shortage.ALLOCATOR, r"MPS backend out of memory \(MPS allocated: [\d.]+ "),
    (Shortage.HOST, r"(?:\[[\d. ]+\] )?Out of memory: Killed process \d+"),
)
"""Messages with byte counts; specific enough to trust without an exception name."""

_LONGEST_LINE = 2000
"""Characters of a line that are examined: a shortage stands at the beginning, whatever is quoted after it."""

_LOG_HEAD = re.compile(r"(?:\([^()]*pid=\d+\) )?(?:(?:ERROR|CRITICAL) [\d-]+ [\d:,.]+ \[[^\]]*\] )?")
_SPEAKER = re.compile(r" *([\w.:]*?)(\w*(?:Error|Exception|Failed)|what\(\)|Exception in aoti_torch): +(.*)")
_THROWN = re.compile(r"terminate called after throwing an instance of '([\w:]+)'")
_TRACEBACK = "Traceback (most recent call last):"
_LINKS = ("During handling of the above exception", "The above exception was the direct cause")


def classify(error: BaseException, said: str = "") -> Shortage:
    """Return which memory ran out according to an error, its causes and contexts, and the `said` text on stderr."""
    found: list[Shortage] = [_of_error(link) for link in _chain(error)]
    return _settled([shortage for shortage in found if shortage is not Shortage.NONE], said)


def classify_text(said: str) -> Shortage:
    """Return which memory ran out according to a process's last output: its last traceback, or the text after it."""
    return _settled(_of_lines(_last_report(_lines(said))), said)


def _settled(found: Sequence[Shortage], said: str) -> Shortage:
    """Return the first shortage found. AOTInductor's wrapper hides its cause, which counts only if it was logged."""
    if Shortage.AOTINDUCTOR in found:
        aloud = [*found, *_of_lines(_lines(said))]
        hidden = any(shortage.verdict is Verdict.OOM and shortage is not Shortage.AOTINDUCTOR for shortage in aloud)
        return Shortage.AOTINDUCTOR if hidden else Shortage.NONE
    return found[0] if found else Shortage.NONE


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, its cause, the error being handled, and the members of a group; each once."""
    rest: list[BaseException | None] = [error]
    seen: set[int] = set()
    while rest:
        link = rest.pop(0)
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        members = link.exceptions if isinstance(link, BaseExceptionGroup) else ()
        rest += [link.__cause__, link.__context__, *members]


def _of_error(error: BaseException) -> Shortage:
    names = {kind.__name__ for kind in type(error).__mro__}
    text = str(error)
    first, *rest = _lines(text) or [""]
    spoken = _of_message(frozenset(names), f"{type(error).__module__}.", first)
    relays = _TRACEBACK in text or first.endswith("raised:")
    if spoken is not Shortage.NONE or not names & _CARD or not relays:
        return spoken
    return next(iter(_of_lines(rest)), Shortage.NONE)


def _of_lines(lines: Sequence[str]) -> list[Shortage]:
    """Return the shortages in the lines of a log or a traceback, in order."""
    found: list[Shortage] = [_of_line(line) for line in _spoken(lines)]
    if lines and lines[-1].strip() == "Killed":
        found.append(Shortage.HOST)
    return [shortage for shortage in found if shortage is not Shortage.NONE]


def _spoken(lines: Sequence[str]) -> Iterator[str]:
    """Yield the lines of a log, without the source lines of tracebacks and with only the first line of each error."""
    inside = quoting = False
    for full in lines:
        line = _LOG_HEAD.sub("", full, count=1)
        if _TRACEBACK in line:
            inside, quoting = True, False
        elif inside and not line.startswith(" "):
            inside, quoting = False, not line.endswith("raised:")
            yield line
        elif not inside and not quoting:
            yield line


def _of_line(line: str) -> Shortage:
    if spoken := _SPEAKER.match(line):
        return _of_message(frozenset({spoken[2]}), spoken[1], spoken[3])
    if thrown := _THROWN.match(line):
        return Shortage.HOST if thrown[1] == "std::bad_alloc" else Shortage.NONE
    return Shortage.HOST if line.strip() == "MemoryError" else _bare(line)


def _of_message(names: frozenset[str], module: str, message: str) -> Shortage:
    """Return what an exception of these class names means; wrappers put another exception's name before its message."""
    if "OutOfMemoryError" in names and module.startswith("ray."):
        return Shortage.HOST
    if names & _CARD and (shortage := _bare(message)) is not Shortage.NONE:
        return shortage
    for shortage, speakers, text in _TEXTS:
        if names & speakers and re.match(text, message):
            return shortage
    if "OutOfMemoryError" in names:
        return Shortage.ALLOCATOR
    if any(name.endswith("MemoryError") for name in names):
        return Shortage.HOST
    if names & _CARD and (spoken := _SPEAKER.match(message)):
        return _of_message(frozenset({spoken[2]}), spoken[1], spoken[3])
    return Shortage.NONE


def _bare(text: str) -> Shortage:
    for shortage, beginning in _BARE:
        if re.match(beginning, text):
            return Shortage.SPILL if _spilled(text) else shortage
    return Shortage.NONE


def _spilled(text: str) -> bool:
    """Return whether PyTorch says it holds more than the card has: the Windows driver moved the rest to the host."""
    capacity = re.search(rf"total capaci?ty of {_AMOUNT}|{_AMOUNT} total capacity", text)
    held = re.search(rf"{_AMOUNT} (?:is allocated by PyTorch|already allocated)", text)
    if capacity is None or held is None:
        return False
    return _bytes(held[1], held[2]) > _bytes(capacity[1] or capacity[3], capacity[2] or capacity[4])


def _bytes(amount: str, unit: str) -> float:
    return float(amount) * 1024.0 ** ("bytes", "KiB", "MiB", "GiB", "TiB").index(unit)


def _last_report(lines: Sequence[str]) -> Sequence[str]:
    """Return the last traceback with those chained to it, and everything after it; all lines if there is none."""
    first, before = 0, ""
    for number, line in enumerate(lines):
        if _TRACEBACK in line and not any(link in before for link in _LINKS):
            first = number
        before = line if line.strip() else before
    return lines[first:]


def _lines(text: str) -> list[str]:
    return [line[:_LONGEST_LINE] for line in text.splitlines()]
