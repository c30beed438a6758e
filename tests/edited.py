"""Runs a program in a process of its own where some modules of the product have another source."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).parents[1]

_LOADS_EDITED = """
import importlib.abc, importlib.machinery, json, sys

edits = json.loads(sys.argv[1])

class Loader(importlib.machinery.SourceFileLoader):
    def get_code(self, fullname):
        source = open(self.path, encoding="utf-8").read()
        for old, new in edits[fullname].items():
            assert source.count(old) == 1, f"{fullname} has {source.count(old)} times {old!r}"
            source = source.replace(old, new)
        return compile(source, self.path, "exec")

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path, target=None):
        if fullname not in edits:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        spec.loader = Loader(fullname, spec.origin)
        return spec

sys.meta_path.insert(0, Finder())
"""


def answer_of(program: str, edits: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """The dict `answer` that `program` fills; `edits` are by module what is replaced in its source, and by what."""
    code = f"{_LOADS_EDITED}\nanswer = {{}}\n{program}\nprint(json.dumps(answer))"
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(edits)], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))
