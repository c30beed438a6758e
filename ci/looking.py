"""Names in code with which it can find out that it is being simulated, or change the code that simulates it.

The code is only parsed. A list of names is no proof: code can hide a name from it.
"""

import ast
import re
from collections.abc import Iterator, Mapping

_OURS = re.compile(r"(calibrate|ci|virtual_card|tests)(\..*)?")
"""The packages that judge."""

_IMPORTED = re.compile(
    r"(importlib|ctypes|inspect|atexit|builtins|marshal|subprocess|multiprocessing|runpy|pkgutil|traceback|signal"
    r"|code|codeop|zipimport|site|linecache|faulthandler|tracemalloc|sysconfig|pdb|bdb|trace"
    r"|datetime|calendar|random|secrets|uuid|_thread)(\..*)?"
)
"""Modules that start or load other code, or show what runs; those with which code does something else another day, or
now and then; and one that starts threads, in which a probe does not see what is allocated.
"""

_REACHED = re.compile(
    r"(.*\.)?((importlib|ctypes|inspect|atexit|builtins|marshal|subprocess|runpy|pkgutil|traceback)\.\w+"
    r"|time\.(?!(perf_counter|monotonic|sleep)$)\w+|threading\.(active_count|enumerate|main_thread|Thread|Timer|\*)"
    r"|concurrent\.futures\.\w+|asyncio\.(to_thread|\*)"
    r"|numpy\.random|os\.(urandom|getrandom|times)|gc\.(get_\w+|freeze|unfreeze|\*)|operator\.(attrgetter|methodcaller|\*)"
    r"|sys\.(?!(platform|version_info|maxsize|byteorder|float_info|stderr|stdout)$)\w+|sys\.\*"
    r"|os\.(_exit|abort|environb?|exec\w*|fork\w*|getenvb?|getppid|kill\w*|popen|posix_spawn\w*|spawn\w*|system|\*)"
    r"|torch\.(cuda|xpu|mps|backends\.\w+)\.(is_available|is_initialized|device_count))(\..*)?"
)
"""Attributes of modules, by whatever name the module is imported or reached."""

_ALONE = frozenset({"__import__", "exec", "eval", "__builtins__", "SystemExit", "globals", "vars", "__file__", "open"})
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
    }
)
"""Attributes that count whatever object they are read from; a text that names one may be read with `getattr`."""

_TEXTS = _ATTRIBUTES | {"meta", "dummy"}
"""Texts that count: attributes, where tensors have no values, and the model that probes and scenarios run."""

NOT_PARSED = "code that Python cannot parse"

_TO_TEXT = frozenset({"str", "repr", "format", "hash"})


def looking_names(source: bytes) -> dict[str, int]:
    """The names of these lists and the questions about a device in some code, each with its first line.

    Code that cannot be parsed, also because it is nested too deeply, is `NOT_PARSED`.
    """
    found: dict[str, int] = {}
    try:
        nodes = list(ast.walk(ast.parse(source)))
        modules = _modules(nodes)
        for node in nodes:
            for name in _names(node, modules):
                found.setdefault(name, getattr(node, "lineno", 1))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {NOT_PARSED: 1}
    return found


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


def _imported(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    names = [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        names = [f"{node.module}.{name}" for name in names] if node.module and not node.level else []
    for name in names:
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
