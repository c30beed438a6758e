"""Fuzzes one reader of files that strangers send: `python -m tests.fuzzing READER CORPUS [libFuzzer's options]`.

A file is read, or refused with an error of ours that ends a command with a sentence. Any other exception, a hang and
memory beyond libFuzzer's limit are findings. The corpus grows by the inputs that reach new code.
"""

import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["acestep", "calibrate"]):
    from acestep.adapters.files import read_adapter_file
    from acestep.audio.read import read_clip, said_seconds
    from acestep.checkpoints.header import read_header
    from acestep.checkpoints.tokenizer import HubTokenizer
    from acestep.errors import AceStepError
    from acestep.tiers import load_tiers
    from calibrate.campaign.journal import journal_path, open_journal
    from calibrate.fingerprint import Fingerprint
    from calibrate.record.measurement import load_measurement

HOLDS_FOR = Fingerprint(code="a", libraries={}, card="b", cap_method="fraction", budget="c", allocator="")


def read_record(path: Path) -> None:
    load_measurement(path)


def read_table(path: Path) -> None:
    load_tiers(path)


def read_journal(path: Path) -> None:
    output = path.with_name("record.json")
    journal_path(output).write_bytes(path.read_bytes())
    with open_journal(output, HOLDS_FOR, resume=True):
        pass


def read_weights(path: Path) -> None:
    read_header(path)


def read_adapter(path: Path) -> None:
    (path.parent / "adapter.safetensors").write_bytes(path.read_bytes())
    read_adapter_file(path.parent / "adapter.safetensors")


def read_tokenizer(path: Path) -> None:
    (path.parent / "tokenizer.json").write_bytes(path.read_bytes())
    HubTokenizer(path.parent, 300).encode("la la", 64)


def read_audio(path: Path) -> None:
    said_seconds(path)
    read_clip(path)


READERS: dict[str, Callable[[Path], None]] = {
    "record": read_record,
    "table": read_table,
    "journal": read_journal,
    "weights": read_weights,
    "adapter": read_adapter,
    "tokenizer": read_tokenizer,
    "audio": read_audio,
}


def main() -> None:
    """Fuzz until libFuzzer's options end it; its exit code is not 0 after a finding."""
    read = READERS[sys.argv[1]]
    with tempfile.TemporaryDirectory(prefix="fuzzing-") as folder:
        path = Path(folder) / "input"

        def once(data: bytes) -> None:
            path.write_bytes(data)
            with suppress(AceStepError):
                read(path)

        atheris.Setup([sys.argv[0], *sys.argv[2:]], once)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
