"""What a browser sends, looked at before gradio does anything with it: files it uploaded here, and nothing else."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from acestep.audio_input import read_clip
from acestep.clip import Clip
from acestep.errors import InvalidInputError
from acestep.request import MAX_DURATION_S, MIN_DURATION_S


def problem_of(values: Sequence[Any], files: Sequence[bool], folder: Path) -> int:
    """The index of the first value that cannot be taken, -1 where all can. `files` says which may be a file.

    gradio reads, and for an address even fetches, whatever looks like a file anywhere in its input.
    """
    for index, (value, may_be_file) in enumerate(zip(values, files, strict=False)):
        if may_be_file:
            if value is not None and not _uploaded(value, folder):
                return index
        elif isinstance(value, dict | list):
            return index
    return -1


def _uploaded(value: Any, folder: Path) -> bool:
    path = value.get("path") if isinstance(value, dict) else None
    if not isinstance(path, str) or not path or "\0" in path:
        return False
    try:
        real = Path(path).resolve()
        return real.is_relative_to(folder.resolve()) and real.is_file()
    except (OSError, RuntimeError, ValueError):
        return False


def file_of(value: dict[str, Any]) -> dict[str, Any]:
    """What gradio needs to know of an uploaded file, and nothing that the browser said besides."""
    return {"path": value["path"], "meta": {"_type": "gradio.FileData"}}


def clip_of(path: str) -> Clip:
    """The clip in an uploaded file; `InvalidInputError` names it as its owner does."""
    try:
        return read_clip(Path(path))
    except InvalidInputError as error:
        # The folder of uploads is nobody's business.
        problem = error.problem.replace(path, Path(path).name)
    raise InvalidInputError(Path(path).name, problem)


def seconds_of(path: str) -> float:
    """The length of an uploaded file as its header says, 0 where it says nothing that can be used."""
    import soundfile

    try:
        about = soundfile.info(path) if path else None
    except (OSError, RuntimeError):
        return 0.0
    return 0.0 if about is None else min(max(about.duration, MIN_DURATION_S), MAX_DURATION_S)
