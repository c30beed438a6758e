"""Names in code with which it can find out that it is being simulated, or change the code that simulates it.

The code is only parsed. A list of names is no proof: code can hide a name from it.
"""

import ast
import re
from collections import deque
from collections.abc import Iterator, Mapping

import msgspec

_OURS = re.compile(r"(calibrate|ci|virtual_card|tests)(\..*)?")
"""The packages that judge."""

_IMPORTED = re.compile(
    r"(importlib|ctypes|inspect|atexit|builtins|marshal|subprocess|multiprocessing|runpy|pkgutil|traceback|signal"
    r"|code|codeop|zipimport|site|linecache|faulthandler|tracemalloc|sysconfig|pdb|bdb|trace|cProfile|profile|timeit"
    r"|pickle|_pickle|shelve|dill|cloudpickle|doctest|unittest|cffi|dis|opcode|gettrace|fileinput|_?posix|nt|mmap"
    r"|platform|socket|resource|getpass|pwd|psutil|pynvml|(?!__future__)_\w+"
    r"|datetime|calendar|random|secrets|uuid|_thread)(\..*)?"
)
"""Modules that start or load other code, or show what runs and where; those with which code does something else
another day, or now and then; and one that starts threads, in which a probe does not see what is allocated.
"""

_REACHED = re.compile(
    r"(.*\.)?((importlib|ctypes|inspect|atexit|builtins|marshal|subprocess|runpy|pkgutil|traceback)\.\w+"
    r"|time\.(?!(perf_counter|monotonic|sleep)$)\w+|threading\.(active_count|enumerate|main_thread|Thread|Timer|\*)"
    r"|concurrent\.futures\.\w+|asyncio\.(to_thread|\*)"
    r"|numpy\.random|os\.(urandom|getrandom|times)|gc\.(get_\w+|freeze|unfreeze|\*)|operator\.(attrgetter|methodcaller|\*)"
    r"|sys\.(?!(platform|version_info|maxsize|byteorder|float_info|stderr|stdout)$)\w+|sys\.\*"
    r"|os\.(_exit|abort|environb?|exec\w*|fork\w*|getenvb?|getppid|kill\w*|popen|posix_spawn\w*|spawn\w*|system|\*)"
    r"|io\.(open\w*|FileIO)|codecs\.open|types\.(FunctionType|CodeType|ModuleType|\*)|socket\.\w+|platform\.\w+"
    r"|torch\.(cuda|xpu|mps|backends\.\w+)\.(is_available|is_initialized|device_count)"
    r"|torch\.(_(?!_version__)\w+|hub|jit|package|overrides|multiprocessing|serialization|load|library|func)"
    r"|torch\.utils\.(_\w+|cpp_extension|data|_python_dispatch|_pytree))(\..*)?"
)
"""Attributes of modules, by whatever name the module is imported or reached."""

_ALONE = frozenset(
    {
        *("__import__", "exec", "eval", "compile", "__builtins__", "__loader__", "__spec__", "SystemExit"),
        *("globals", "locals", "vars", "__file__", "open", "breakpoint"),
    }
)
"""Names that need no module."""

_ATTRIBUTES = frozenset(
    {
        *("is_meta", "is_cuda", "is_cpu", "is_mps", "is_xpu"),
        *("_getframe", "_current_frames", "extract_stack", "_exit", "get_objects", "settrace", "setprofile"),
        *("meta_path", "f_back", "f_globals", "tb_frame", "gi_frame", "__globals__", "__subclasses__"),
        *("__builtins__", "__import__"),
        # What an object's class is called, whether a device computes, and whether weights are random.
        *("__class__", "__name__", "__qualname__", "__module__", "computes", "is_noise"),
        # By what a real card differs from one that is thought up.
        *("uuid", "imagined", "driver"),
        # Values and addresses, which a tensor without memory does not have.
        *("item", "tolist", "numpy", "data_ptr", "_cdata", "__cuda_array_interface__", "__dlpack__"),
        *("__array__", "__array_interface__", "__dlpack_device__", "is_pinned", "is_shared"),
    }
)
"""Attributes that count whatever object they are read from; a text that names one may be read with `getattr`."""

_TEXTS = _ATTRIBUTES | {"meta", "dummy"}
"""Texts that count: attributes, where tensors have no values, and the model that probes and scenarios run."""

_TRACED_REACHED = re.compile(
    r"(.*\.)?((time|platform)\.(?!sleep$)\w+|os\.(?!(sep|linesep|cpu_count|process_cpu_count)$)\w+|pathlib\.\w+"
    r"|tempfile\.\w+|shutil\.\w+|glob\.\w+|itertools\.count|weakref\.finalize|click\.\w+|gc\.(isenabled|get_\w+)"
    r"|threading\.(current_thread|get_ident|get_native_id|local|\*)|torch\.random\.\w+"
    r"|torch\.(is_\w+_enabled|get_(num|default)_\w+|get_rng_state|initial_seed|seed|rand\w*|bernoulli|multinomial)"
    r")(\..*)?"
)
_TRACED_ATTRIBUTES = frozenset(
    {
        *("exists", "is_file", "is_dir", "stat", "lstat", "iterdir", "glob", "rglob", "read_text", "read_bytes"),
        *("caption", "lyrics", "language", "seed", "cpu", "isEnabledFor", "getEffectiveLevel", "handlers"),
    }
)
_TRACED_ALONE = frozenset({"id", "hash"})
"""What else counts in the code of a song, which a probe runs a few times, with the same words, in another folder.

Clocks, counters, chance, files, what a process is set to, what a request says, and a way to read a tensor's values.
"""

NOT_PARSED = "code that Python cannot parse"

_TO_TEXT = frozenset({"str", "repr", "format", "hash"})


class NameUse(msgspec.Struct, frozen=True, kw_only=True):
    """A name that counts, and the classes and functions around it, joined by dots; empty outside of all."""

    name: str
    scope: str = ""


def looking_names(source: bytes, *, of_songs: bool = False) -> dict[NameUse, tuple[int, ...]]:
    """The names of these lists and the questions about a device in some code, each with the lines that use it.

    Code that makes songs (`of_songs`) is looked through for more. Code that cannot be parsed, also because it is nested
    too deeply, is `NOT_PARSED`.
    """
    found: dict[NameUse, list[int]] = {}
    try:
        nodes = list(_scoped(ast.parse(source)))
        modules = _modules([node for node, _ in nodes])
        for node, scope in nodes:
            for name in (*_names(node, modules), *(_names_of_songs(node, modules) if of_songs else ())):
                found.setdefault(NameUse(name=name, scope=scope), []).append(getattr(node, "lineno", 1))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {NameUse(name=NOT_PARSED): (1,)}
    return {use: tuple(sorted(lines)) for use, lines in found.items()}


def new_looks(before: bytes, after: bytes, *, of_songs: bool = False) -> list[tuple[int, str]]:
    """Return the names that a function, or the code outside of all, uses more often than it did, in order.

    Each is with a line that is new. A name that is taken out of one function and used in another is named; a whole
    function may move within its file.
    """
    known, found = (looking_names(code, of_songs=of_songs) for code in (before, after))
    old = {line.strip() for line in before.splitlines()}
    lines = after.splitlines()

    def place(uses: tuple[int, ...]) -> int:
        return next((line for line in uses if lines[line - 1 : line] and lines[line - 1].strip() not in old), uses[0])

    more = ((place(uses), use.name) for use, uses in found.items() if len(uses) > len(known.get(use, ())))
    return sorted(more)


def _scoped(tree: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """Every node, as `ast.walk` gives them, and the classes and functions around it."""
    waiting = deque([(tree, "")])
    while waiting:
        node, scope = waiting.popleft()
        yield node, scope
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            scope = f"{scope}.{node.name}".removeprefix(".")
        waiting.extend((child, scope) for child in ast.iter_child_nodes(node))


def _modules(nodes: list[ast.AST]) -> dict[str, str]:
    """What each name stands for: an imported module or part of one, also under another name."""
    stands: dict[str, str] = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            stands |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom):
            stands |= {alias.asname or alias.name: f"{node.module or ''}.{alias.name}" for alias in node.names}
    for node in nodes:
        if isinstance(node, ast.Assign | ast.NamedExpr | ast.AnnAssign) and (name := _dotted(node.value, stands)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            stands |= {target.id: name for target in targets if isinstance(target, ast.Name) and target.id != name}
    return stands


def _dotted(node: ast.AST | None, stands: Mapping[str, str]) -> str:
    """The full name of an expression, `getattr` with a constant included; empty where it has none."""
    parts: list[str] = []
    while True:
        if isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        elif isinstance(node, ast.Call) and _is_getattr(node) and isinstance(node.args[1], ast.Constant):
            parts.append(str(node.args[1].value))
            node = node.args[0]
        else:
            break
    if not isinstance(node, ast.Name):
        # Of an unknown thing, the names of its attributes are still known.
        return ".".join(["?", *reversed(parts)]) if parts else ""
    return ".".join([stands.get(node.id, node.id), *reversed(parts)])


def _is_getattr(node: ast.Call) -> bool:
    return isinstance(node.func, ast.Name) and node.func.id in ("getattr", "hasattr") and len(node.args) > 1


def _names(node: ast.AST, stands: Mapping[str, str]) -> Iterator[str]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield from _imported(node)
    elif isinstance(node, ast.Name) and node.id in _ALONE:
        yield node.id
    elif isinstance(node, ast.Attribute | ast.Call):
        yield from _attribute(node, stands)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in _TEXTS:
        yield f'"{node.value}"'
    yield from _device_questions(node)


def _names_of_songs(node: ast.AST, stands: Mapping[str, str]) -> Iterator[str]:
    """What counts in the code of a song alone."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield from (name for name in _modules_in(node) if _TRACED_REACHED.fullmatch(name))
    elif isinstance(node, ast.Name) and node.id in _TRACED_ALONE:
        yield node.id
    elif isinstance(node, ast.Constant) and node.value == "cpu":
        yield '"cpu"'
    elif isinstance(node, ast.Attribute) or (isinstance(node, ast.Call) and _is_getattr(node)):
        name = _dotted(node, stands)
        if (last := name.rpartition(".")[2]) in _TRACED_ATTRIBUTES:
            yield f".{last}"
        elif "." in name and _TRACED_REACHED.fullmatch(name):
            yield name


def _modules_in(node: ast.Import | ast.ImportFrom) -> list[str]:
    """The full names that are imported; none of the own package by a relative name."""
    names = [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [f"{node.module}.{name}" for name in names] if node.module and not node.level else []
    return names


def _imported(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    for name in _modules_in(node):
        if _OURS.fullmatch(name) or _IMPORTED.fullmatch(name) or _REACHED.fullmatch(name):
            yield name


def _attribute(node: ast.Attribute | ast.Call, stands: Mapping[str, str]) -> Iterator[str]:
    if isinstance(node, ast.Call) and not _is_getattr(node):
        return
    if isinstance(node, ast.Call) and not isinstance(node.args[1], ast.Constant):
        yield "getattr with a computed name"
    name = _dotted(node, stands)
    last = name.rpartition(".")[2]
    if last in _ATTRIBUTES and not _REACHED.fullmatch(name):
        yield f".{last}"
    elif "." in name and (_OURS.fullmatch(name) or _REACHED.fullmatch(name)):
        yield name


def _device_questions(node: ast.AST) -> Iterator[str]:
    """Where the kind of a device decides something: `.device` compared, looked up or made a text; `.type` read."""
    if isinstance(node, ast.Compare):
        if any(_reads(side, "type", "device") for side in (node.left, *node.comparators)):
            yield f"the comparison {ast.unparse(node)}"
    elif isinstance(node, ast.Match) and _reads(node.subject, "type", "device"):
        yield f"the comparison match {ast.unparse(node.subject)}"
    elif isinstance(node, ast.Subscript) and _reads(node.slice, "type", "device"):
        yield f"the look-up {ast.unparse(node)}"
    elif isinstance(node, ast.FormattedValue) and _reads(node.value, "type", "device"):
        yield f"the text of {ast.unparse(node.value)}"
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _TO_TEXT:
        if any(_reads(argument, "type", "device") for argument in node.args):
            yield f"the text {ast.unparse(node)}"
    elif _reads(node, "type"):
        yield f"the read {ast.unparse(node)}"


def _reads(node: ast.AST, *attributes: str) -> bool:
    if isinstance(node, ast.Call) and _is_getattr(node):
        return isinstance(node.args[1], ast.Constant) and node.args[1].value in attributes
    return isinstance(node, ast.Attribute) and node.attr in attributes
