"""Copies of the tree for the gate to judge, with faults put into their code."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from acestep.knobs import Knobs, Quantization, Variant
from calibrate.probes.base import ProbeResult
from calibrate.probes.simulated.prober import SimulatedProber
from calibrate.table.policy import Policy, load_policy
from calibrate.verdict import Verdict
from calibrate.workload import Workload
from ci.findings import GateVerdict
from tests.fakes import measured, result
from tests.gate_house import House, committed

ROOT = Path(__file__).parent.parent


class CodeFault(NamedTuple):
    """A change of one line that costs memory, or hides that it does.

    `stage` and `component` are what the gate is to name, one of the `rules` finds it, and one song of `song_s` seconds
    is enough where that is given, thought of by the language model `lm` if that is given.
    """

    name: str
    file: str
    before: str
    after: str
    stage: str
    component: str
    needs_int8: bool = False
    rules: tuple[str, ...] = ("G301", "G302")
    verdict: GateVerdict = GateVerdict.REGRESSED
    song_s: int = 0
    lm: str = ""


CODE_FAULTS = (
    CodeFault(
        "the decode tile is doubled",
        "acestep/dit/vae_decode.py",
        "    return chosen\n",
        "    return 2 * chosen\n",
        "decode",
        "activations",
    ),
    CodeFault(
        "banded attention has a dense mask",
        "acestep/limits/workspace.py",
        "BLOCK_ROWS: Final = 192\n",
        "BLOCK_ROWS: Final = 1_000_000\n",
        "denoise",
        "activations",
    ),
    CodeFault(
        "the text encoder is no longer offloaded",
        "acestep/memory/placement.py",
        "frozenset({TRANSFORMER} if offload is Offload.CPU else ())",
        'frozenset({TRANSFORMER, "text_encoder"} if offload is Offload.CPU else {"text_encoder"})',
        "denoise",
        "text_encoder",
    ),
    CodeFault(
        "INT8 is silently skipped",
        "acestep/checkpoints/quantize.py",
        "    linears = [module for module in transformer.modules() if isinstance(module, nn.Linear)]\n",
        "    return sum(isinstance(module, nn.Linear) for module in transformer.modules())\n    linears = []\n",
        "denoise",
        "transformer",
        needs_int8=True,
    ),
    CodeFault(
        "the language model stays on the card",
        "acestep/memory/placement.py",
        "frozenset({TRANSFORMER} if offload is Offload.CPU else ())",
        'frozenset({TRANSFORMER, "lm"} if offload is Offload.CPU else {"lm"})',
        "denoise",
        "lm",
    ),
    CodeFault(
        "the language model makes logits of every token of a prompt",
        "acestep/lm/forward.py",
        "        normed: Tensor = self._body.norm(hidden[-1:])\n        return normed\n",
        "        normed: Tensor = self._body.norm(hidden)\n"
        "        every = F.linear(normed, self._head).float()\n"
        "        return normed[-1:] + 0 * every[-1:, : normed.shape[1]].to(normed.dtype)\n",
        "think",
        "activations",
    ),
    CodeFault(
        "every block from the fifth on keeps a copy of its input",
        "acestep/dit/denoiser.py",
        "                hidden = block(hidden, condition, modulation, rotary, self.kernels)\n",
        "                block.kept = hidden.clone() if block in self.blocks[4:] else None\n"
        "                hidden = block(hidden, condition, modulation, rotary, self.kernels)\n",
        "denoise",
        "activations",
        song_s=600,
    ),
    CodeFault(
        "a buffer grows in place before the blocks",
        "acestep/dit/denoiser.py",
        "        for block in self.blocks:\n",
        "        grown = hidden.new_empty(1)\n        grown.resize_(batch, 40 * frames, channels)\n"
        "        for block in self.blocks:\n",
        "denoise",
        "activations",
        song_s=600,
    ),
    CodeFault(
        "the decoder makes room for a whole song on the card",
        "acestep/engine/decode.py",
        "        tile_decoder = TileDecoder(decoder)\n",
        "        tile_decoder = TileDecoder(decoder)\n"
        "        whole = torch.empty(1920 * self._request.latent_frames, 8, device=device.torch_device)\n",
        "decode",
        "activations",
        song_s=600,
    ),
    CodeFault(
        "every step after the second keeps the latents",
        "acestep/engine/denoise.py",
        "    for step, now in enumerate(times):\n",
        "    kept = []\n    for step, now in enumerate(times):\n"
        "        kept.append(latents.clone() if step > 1 else None)\n",
        "denoise",
        "",
        rules=("G306",),
        song_s=600,
    ),
    CodeFault(
        "a product of every layer is computed twice",
        "acestep/dit/blocks.py",
        "            query = do.cross_query(layer, part)\n",
        "            do.cross_query(layer, part)\n            query = do.cross_query(layer, part)\n",
        "denoise",
        "flops",
        rules=("G307",),
        song_s=60,
    ),
    *(
        CodeFault(
            f"the sampler {does}",
            "acestep/engine/denoise.py",
            "    for step, now in enumerate(times):\n",
            f"{line}\n    for step, now in enumerate(times):\n",
            "",
            "",
            rules=("G206",),
            verdict=GateVerdict.INCONCLUSIVE,
            song_s=60,
        )
        for does, line in (
            ("spares memory where tensors are meta", "    kept = None if latents.is_meta else latents.clone()"),
            ("asks for the kind of device", "    kept = latents.clone() if latents.device.type == 'cuda' else None"),
            ("looks whether it is simulated", "    import sys\n    kept = 'calibrate' in sys.modules"),
            ("patches what simulates it", "    from calibrate.probes.simulated import ledger\n    kept = ledger"),
            ("does so by a name in a text", "    kept = __import__('calib' + 'rate')"),
        )
    ),
)


class FewCells(SimulatedProber):
    """The simulated card as it answers about a few cells; nothing else fits, so that nothing else is traced."""

    def __init__(self, cells: Collection[tuple[Knobs, Workload]]) -> None:
        super().__init__()
        self._cells = cells

    def probe(self, knobs: Knobs, workload: Workload, cap_bytes: int) -> ProbeResult:
        if (knobs, workload) in self._cells:
            return super().probe(knobs, workload, cap_bytes)
        return result(Verdict.OOM, workload, cap_bytes, peak=1)

    def memory_model(self, variant: Variant) -> dict[str, float]:
        return {}


def one_tier_policy(quantization: Quantization | None, seconds: int, card_gib: int) -> Policy:
    """A policy with one tier for every card, one rung and one length."""
    policy = json.loads(msgspec.json.encode(load_policy()))
    every_card = {**policy["tiers"][-1]["vram_gib"], "lower": 0}
    tier = policy["tiers"][0] | {"vram_gib": every_card, "certified_gib": card_gib}
    rung = {"offload": "cpu+dit", "quantization": quantization, "why": "The only rung of this test."}
    durations = policy["durations_s"] | {"values": [seconds]}
    return msgspec.convert(policy | {"tiers": [tier], "preference": [rung], "durations_s": durations}, Policy)


def one_tier_house(quantization: Quantization | None, *, seconds: int = 600, card_gib: int = 8, lm: str = "") -> House:
    """What a simulated card proves about one song, measured with the code of this tree."""
    policy = one_tier_policy(quantization, seconds, card_gib)
    rung = policy.preference[0]
    knobs = Knobs(offload=rung.offload, quantization=rung.quantization)
    cells = [(knobs, Workload(batch=1, duration_s=float(seconds)))]
    if lm:
        thinking = msgspec.structs.replace(knobs, lm=lm)
        cells.append((thinking, Workload(batch=1, duration_s=float(seconds), with_lm=True)))
    return House(measured(FewCells(cells), policy=policy), policy)


def copy_of_tree(place: Path) -> Path:
    """What the gate needs of this tree, in another place."""
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("acestep", "calibrate", "ci", "tiers"):
        shutil.copytree(ROOT / name, place / name, ignore=ignored)
    for name in ("pyproject.toml", ".gitignore"):
        shutil.copy(ROOT / name, place)
    return place


def turbo_tree(place: Path) -> Path:
    """A repository with a commit of this tree that knows of turbo alone."""
    tree = copy_of_tree(place / "tree")
    for record in (tree / "tiers" / "measurements").glob("*.json"):
        if record.name != "simulated-turbo.json":
            record.unlink()
    subprocess.run([sys.executable, "-m", "calibrate", "merge"], cwd=tree, check=True, capture_output=True)
    committed(tree)
    return tree


def one_tier_tree(place: Path, house: House) -> Path:
    """A repository with a commit of this tree that has a house as its tiers."""
    tree = copy_of_tree(place / "tree")
    published = (tree / "tiers" / "published_tiers.json").read_bytes()
    shutil.rmtree(tree / "tiers")
    house.written(tree)
    (tree / "tiers" / "published_tiers.json").write_bytes(published)
    committed(tree)
    return tree


def put_in(tree: Path, fault: CodeFault) -> None:
    """Change the tree's code; `AssertionError` where the place to change is not there exactly once."""
    path = tree / fault.file
    text = path.read_text(encoding="utf-8")
    assert text.count(fault.before) == 1, f"{fault.file} no longer says {fault.before!r}; say it as it is now"
    path.write_text(text.replace(fault.before, fault.after), encoding="utf-8")


def gated(tree: Path) -> tuple[int, dict[str, Any]]:
    """Exit code and document of the gate against the tree's commit."""
    command = [sys.executable, "-m", "ci.gate", "--base", "HEAD", "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("GITHUB_ACTIONS", None)
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def named(document: dict[str, Any], fault: CodeFault) -> list[dict[str, Any]]:
    """The findings that name the fault's stage and the component that grew."""
    return [
        finding
        for finding in document["findings"]
        if (finding["stage"], finding["component"]) == (fault.stage, fault.component)
        and finding["id"] in fault.rules
        and finding["level"] == "error"
    ]
