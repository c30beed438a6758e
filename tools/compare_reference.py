"""Compares our conditions, contexts and latents with those of the original code on the same small weights.

python -m tools.compare_reference DIR [--tolerance X] [--variant NAME]

DIR holds checkpoint folders in the original layout, and for each VARIANT a VARIANT.json with requests as the original
names them and a VARIANT.safetensors with `CASE.condition`, `CASE.context` and `CASE.latents`. Prints the largest
difference of each, as a share of the largest number there; the exit code is 1 if one is above the tolerance. Latents
are computed from the original's context, so that no difference counts twice. A folder with requests that have no
tensors, or tensors without a request, is refused.

Where we decided otherwise, the case is computed as the original does it, and the line says what that is.
"""

import argparse
import math
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import msgspec
import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from acestep.audio.read import read_clip
from acestep.checkpoints.load import load
from acestep.devices.cpu import CpuDevice
from acestep.dit.place import StageContext
from acestep.dit.sampler import from_level, schedule, steps_for
from acestep.dit.vae_encode import TileEncoder, encode_clip
from acestep.engine import denoise as denoise_stage
from acestep.engine import encode_audio as audio_stage
from acestep.engine.denoise import denoise
from acestep.engine.encode import encode
from acestep.engine.encode_audio import encode_audio
from acestep.engine.pipeline import prepare
from acestep.errors import AceStepError, Exit, InvalidInputError, UsageError
from acestep.knobs import Knobs, Variant
from acestep.memory.placement import Placement
from acestep.request import Request, Task
from acestep.task import WINDOWED
from acestep.units import silent
from tools.reference_cover import dropping_the_source

TOLERANCE: Final = 2e-5
"""The largest difference that rounding in float32 explains, as a share of the largest number of a tensor."""

OF_ENCODED_AUDIO: Final = 15
"""So many times as much for encoded audio: a VAE of random weights amplifies rounding, and float32 is 9e-5 away from
float64 there (measured).
"""

COMPARED: Final = ("condition", "context", "latents")

_FIELDS: Final = {
    "audio_duration": "duration_s",
    "bpm": "bpm",
    "captions": "caption",
    "guidance_scale": "guidance_scale",
    "inference_steps": "steps",
    "key_scale": "keyscale",
    "lyrics": "lyrics",
    "repainting_end": "repaint_end_s",
    "repainting_start": "repaint_start_s",
    "seed": "seed",
    "shift": "shift",
    "time_signature": "timesignature",
    "vocal_language": "language",
}
"""The original's names of a request's fields that mean the same, and ours."""

_MASK: Final = "chunk_mask_mode"

_OF_THE_TOOL: Final = frozenset(
    {"task_type", "src_audio", "audio_codes", "instruction", "dcw", "repaint_mode", "batch_size", "seeds", "timesteps"}
    | {_MASK}
    | {"audio_cover_strength", "cfg_interval_start", "cfg_interval_end", "cover_noise_strength", "repaint_strength"}
)
"""The other fields that are understood."""


class CaseDifferences(msgspec.Struct, frozen=True, kw_only=True):
    """One case: the largest differences by the names of `COMPARED`; `encoded`: the context is encoded audio."""

    variant: str
    case: str
    differences: dict[str, float]
    encoded: bool
    remark: str = ""

    def within(self, tolerance: float) -> bool:
        """Whether everything was compared, and every difference is within the tolerance."""
        return self.differences.keys() == {*COMPARED} and all(
            found <= (OF_ENCODED_AUDIO * tolerance if name == "context" and self.encoded else tolerance)
            for name, found in self.differences.items()
        )


def compared_cases(folder: Path, only: str | None = None) -> Iterator[CaseDifferences]:
    """Yield each case of a folder; raise `InvalidInputError` for a folder of another form."""
    with _encoding_once():
        for variant in [one.value for one in Variant if only in (None, one.value)]:
            listed, tensors = (folder / f"{variant}.{ending}" for ending in ("json", "safetensors"))
            if listed.is_file() or tensors.is_file():
                yield from _compare_variant(folder, variant, *_read(listed, tensors))


def _read(listed: Path, tensors: Path) -> tuple[dict[str, dict[str, Any]], dict[str, Tensor]]:
    """Return the requests and the tensors of a variant, which must belong together."""
    try:
        cases = msgspec.json.decode(listed.read_bytes(), type=dict[str, dict[str, Any]])
        expected = load_file(tensors)
    except (OSError, msgspec.MsgspecError, SafetensorError) as error:
        raise InvalidInputError(listed, f"it and {tensors.name} cannot be read ({error})") from None
    needed = {f"{case}.{name}" for case in cases for name in COMPARED}
    if apart := sorted(needed ^ expected.keys()):
        where = "has no" if apart[0] in needed else "lacks the request of"
        raise InvalidInputError(tensors if apart[0] in needed else listed, f"{where} {', '.join(apart[:4])}")
    return cases, expected


def _compare_variant(
    folder: Path, variant: str, cases: dict[str, dict[str, Any]], expected: dict[str, Tensor]
) -> Iterator[CaseDifferences]:
    components = load(str(folder / f"acestep-v15-{variant}"), Variant(variant), dtype=torch.float32)
    knobs, device = Knobs(variant=components.variant), CpuDevice()
    prepare(components, knobs)
    placement = Placement(components.modules(), components.blocks(), knobs.offload, device)
    place = StageContext(components=components, knobs=knobs, device=device, placement=placement)
    for case, asked in cases.items():
        request, theirs = request_of(asked, folder, components.variant), {n: expected[f"{case}.{n}"] for n in COMPARED}
        with torch.no_grad():
            differences, remarks = _differences(request, theirs, place, asked)
        yield CaseDifferences(
            variant=variant,
            case=case,
            differences=differences,
            encoded=request.source_audio is not None,
            remark="; ".join(remarks),
        )


def _differences(
    request: Request, theirs: dict[str, Tensor], place: StageContext, asked: dict[str, Any]
) -> tuple[dict[str, float], list[str]]:
    """Return the differences of a case, and what is said about it. An explicit mask is 0 outside the window."""
    remarks, explicit, seeds = [], asked.get(_MASK) == "explicit", seeds_of(asked)
    conditions = encode(request, place, encode_audio(request, place))
    ours, channels = conditions.context, conditions.context.shape[-1] // 2
    if request.task in WINDOWED and not explicit:
        # The original's default mask is 1 outside the window too: a defect, but its latents follow from it.
        remarks.append("with the original's mask, which is 1 everywhere")
        ours[..., channels:] = 1
    found = {
        "condition": difference(_of_each(conditions.condition, seeds), theirs["condition"]),
        "context": difference(_of_each(ours, seeds), theirs["context"]),
    }
    times = _times(request, place.components.variant, asked)
    songs = []
    with ExitStack() as stack:
        stack.enter_context(patch.object(denoise_stage, "schedule", lambda *_: list(times)))
        if request.cover_strength < 1:
            remarks.append("as the original drops the source after a share of the steps")
            used = from_level(list(times), 1.0 - request.cover_noise) if request.cover_noise else times
            stack.enter_context(dropping_the_source(request, place, used))
            conditions = msgspec.structs.replace(conditions, uncovered=None)
        for number, seed in enumerate(seeds):
            context = theirs["context"][number : number + 1]
            # Where the source stays, its latents are part of the context.
            recorded = context[..., :channels] if request.keeps_outside else conditions.recorded
            own = msgspec.structs.replace(conditions, context=context, recorded=recorded)
            songs.append(denoise(msgspec.structs.replace(request, seed=seed), own, place, silent))
    found["latents"] = difference(torch.cat(songs), theirs["latents"])
    return found, remarks


def seeds_of(asked: dict[str, Any]) -> list[int]:
    """Return the seed of each song of a request: those listed, or the one given and those after it."""
    given = asked.get("seeds", asked.get("seed", 0))
    listed = given.split(",") if isinstance(given, str) else given if isinstance(given, list) else [given]
    seeds, batch = [int(seed) for seed in listed], int(asked.get("batch_size", len(listed)))
    if len(seeds) == 1:
        return [seeds[0] + number for number in range(batch)]
    if len(seeds) != batch:
        raise UsageError(f"a batch of {batch} has {len(seeds)} seeds")
    return seeds


def _of_each(tensor: Tensor, seeds: Sequence[int]) -> Tensor:
    """The same for each song, as the original has it."""
    return tensor.expand(len(seeds), *tensor.shape[1:]) if len(tensor) == 1 else tensor


def _times(request: Request, variant: Variant, asked: dict[str, Any]) -> list[float]:
    """The timesteps of a request: those that it names, without the last 0, or those of its steps and shift."""
    named = asked.get("timesteps")
    if not named:
        return schedule(steps_for(variant, request.steps), request.shift)
    times = [float(time) for time in (named.split(",") if isinstance(named, str) else named)]
    return times[:-1] if times[-1] == 0 else times


@contextmanager
def _encoding_once() -> Iterator[None]:
    """Encode the audio of all cases once, because they share it and its encoder, which is the slowest part."""
    encoded: dict[bytes, Tensor] = {}

    def remembered(encoder: TileEncoder, audio: np.ndarray, *rest: Any) -> Tensor:
        key = audio.tobytes()
        if key not in encoded:
            encoded[key] = encode_clip(encoder, audio, *rest)
        return encoded[key].clone()

    with patch.object(audio_stage, "encode_clip", remembered):
        yield


def request_of(asked: dict[str, Any], folder: Path, variant: Variant) -> Request:
    """Return our form of a request of the original; raise `InvalidInputError` for a field that is not known."""
    if "task_type" not in asked:
        raise InvalidInputError(folder, "a request has no task_type")
    if unknown := asked.keys() - _FIELDS.keys() - _OF_THE_TOOL:
        raise InvalidInputError(folder, f"a request has unknown fields: {', '.join(sorted(unknown))}")
    fields: dict[str, Any] = {ours: asked[theirs] for theirs, ours in _FIELDS.items() if theirs in asked}
    fields["seed"] = seeds_of(asked)[0]
    codes = tuple(asked.get("audio_codes", ()))
    # Codes are a cover's: the original uses its instruction too.
    task = fields["task"] = Task.COVER if codes else Task(asked["task_type"])
    fields["audio_codes"] = codes
    if "src_audio" in asked:
        fields["source_audio"] = read_clip(folder / asked["src_audio"])
    if task in WINDOWED:
        modes = {"aggressive": 1.0, "conservative": 0.0}
        fields["repaint_strength"] = modes.get(asked.get("repaint_mode", ""), asked.get("repaint_strength", 0.5))
    if task is Task.COVER:
        fields["cover_strength"] = asked.get("audio_cover_strength", 1.0)
        fields["cover_noise"] = asked.get("cover_noise_strength", 0.0)
    named = re.findall(r"[A-Z_]{2,}", asked.get("instruction", ""))
    if task is Task.COMPLETE:
        fields["tracks"] = tuple(named)
    elif task in (Task.EXTRACT, Task.LEGO):
        fields["track"] = named[0]
    # Counted from the song to noise, where ours is from noise to the song.
    start, end = asked.get("cfg_interval_start", 0.0), asked.get("cfg_interval_end", 1.0)
    fields["guidance_interval"] = (1.0 - end, 1.0 - start)
    # Only the original's turbo models carry out its wavelet correction.
    fields["dcw"] = bool(asked.get("dcw")) and variant.is_turbo
    return Request(**fields)


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Return the largest difference as a share of the largest number; infinity for another shape, and for NaN."""
    if ours.shape != theirs.shape:
        return float("inf")
    largest = theirs.double().abs().max().item()
    found = (ours.double() - theirs.double()).abs().max().item() / (largest or 1.0)
    return float("inf") if math.isnan(found) else found


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line for each case and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.compare_reference", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, metavar="X")
    parser.add_argument("--variant", metavar="NAME", help="only this one")
    options = parser.parse_args(arguments)
    cases = above = 0
    try:
        for found in compared_cases(options.folder, options.variant):
            within = found.within(options.tolerance)
            cases, above = cases + 1, above + (not within)
            told = "  ".join(f"{name} {share:.1e}" for name, share in found.differences.items())
            remark = f"  ({found.remark})" if found.remark else ""
            sys.stdout.write(f"{found.variant:<8} {found.case:<16}  {told}{'' if within else '  ABOVE'}{remark}\n")
            sys.stdout.flush()
        if not cases:
            raise InvalidInputError(options.folder, "has no VARIANT.json beside a VARIANT.safetensors")
    except ValueError as error:
        sys.stderr.write(f"{options.folder}: a request cannot be used ({error})\n")
        return Exit.INVALID
    except AceStepError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit
    sys.stdout.write(f"{cases} cases, {above} above the tolerance of {options.tolerance:.0e}\n")
    return Exit.REGRESSED if above else Exit.OK


if __name__ == "__main__":
    sys.exit(main())
