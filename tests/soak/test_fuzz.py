"""Files that strangers send are read or refused with a sentence, whatever is in them: libFuzzer finds no other end.

Each reader is fuzzed for `FUZZ_SECONDS` (60), from seeds and from the corpus of earlier runs in `.fuzz/`, which git
ignores. What it finds is kept there too.
"""

import io
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import click
import msgspec
import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save

from calibrate.files import pretty_json
from calibrate.fingerprint import Fingerprint
from tests.fakes import measured
from tests.planner_tokenizers import trained_backend

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(find_spec("atheris") is None, reason="atheris is not installed; `make soak` installs it"),
]

ROOT = Path(__file__).parents[2]
CORPUS = ROOT / ".fuzz"
HOLDS_FOR = Fingerprint(code="a", libraries={}, card="b", cap_method="fraction", budget="c", allocator="")
SECONDS = int(os.environ.get("FUZZ_SECONDS", "60"))
LONGEST_INPUT_S = 25
MOST_MIB = 4096


def record() -> list[bytes]:
    whole = msgspec.to_builtins(measured())
    few = whole | {"probes": whole["probes"][:2], "certificates": whole["certificates"][:1]}
    return [json.dumps(few).encode(), pretty_json(few).encode()]


def table() -> list[bytes]:
    whole = json.loads((ROOT / "tiers" / "generated_tiers.json").read_text())
    turbo = whole["variants"]["turbo"]
    few = [turbo | {"tiers": turbo["tiers"][:count]} for count in (1, 2)]
    return [json.dumps(whole | {"variants": {"turbo": variant}}).encode() for variant in few]


def journal() -> list[bytes]:
    probe = msgspec.to_builtins(measured().probes[0], str_keys=True)
    head = {"fingerprint": msgspec.to_builtins(HOLDS_FOR)}
    lines = [head, {"key": "0" * 64, "entry": probe}]
    return [b"".join(json.dumps(line).encode() + b"\n" for line in lines), json.dumps(head).encode() + b"\n"]


def weights() -> list[bytes]:
    tensors = {"a.weight": torch.zeros(2, 3), "b": torch.zeros(4, dtype=torch.bfloat16)}
    return [save(tensors), save(tensors, metadata={"format": "pt"})]


def adapter() -> list[bytes]:
    layer = "layers.0.self_attn.q_proj"
    lora = {f"{layer}.lora_A.weight": torch.zeros(2, 8), f"{layer}.lora_B.weight": torch.zeros(8, 2)}
    lokr = {
        f"{layer}.lokr_w1": torch.zeros(2, 2),
        f"{layer}.lokr_w2": torch.zeros(4, 4),
        f"{layer}.alpha": torch.ones(()),
    }
    told = json.dumps({"transformer.r": 2, "transformer.lora_alpha": 4, "transformer.rank_pattern": {"q_proj": 2}})
    return [save(lora), save(lokr), save(lora, metadata={"lora_adapter_metadata": told})]


def tokenizer() -> list[bytes]:
    return [trained_backend(codes=4).to_str().encode()]


def audio() -> list[bytes]:
    made = []
    sound = np.sin(np.linspace(0, 60, 4_800, dtype=np.float32))
    for kind, channels in (("WAV", 1), ("FLAC", 2), ("OGG", 1), ("MP3", 2), ("AIFF", 6), ("CAF", 1), ("AU", 1)):
        file = io.BytesIO()
        soundfile.write(file, np.repeat(sound[:, None], channels, 1), 48_000, format=kind)
        made.append(file.getvalue())
    return made


SEEDS = {seeds.__name__: seeds for seeds in (record, table, journal, weights, adapter, tokenizer, audio)}


@pytest.mark.parametrize("reader", SEEDS)
def test_no_file_ends_a_reader_in_another_way(reader: str) -> None:
    corpus, findings = CORPUS / reader, CORPUS / "findings"
    for folder in (corpus, findings):
        folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(SEEDS[reader]()):
        (corpus / f"seed-{number}").write_bytes(seed)
    command = [sys.executable, "-m", "tests.fuzzing", reader, str(corpus)]
    options = [f"-max_total_time={SECONDS}", f"-timeout={LONGEST_INPUT_S}", f"-rss_limit_mb={MOST_MIB}"]
    options += [f"-artifact_prefix={findings}/{reader}-", "-max_len=200000", "-print_final_stats=1"]
    done = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, check=False)
    tried = [line for line in done.stderr.splitlines() if "number_of_executed_units" in line]
    assert done.returncode == 0, done.stderr[-4_000:]
    click.echo(f"\n{reader}: {tried[-1].split()[-1]} inputs")
