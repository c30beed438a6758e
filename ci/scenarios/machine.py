"""A machine whose card is simulated: programs that run inside it open that card, and load weights without values.

Everything else is their own code. What is replaced stands at the edge: the device, the reading of weights, and the
language model's sampling, because a simulated card has no values to sample from.
"""

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgspec
import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from acestep.errors import NotMeasuredError
from acestep.hardware.card import SIMULATED_CAPABILITY, Card
from acestep.hardware.detection import Detection
from acestep.hardware.host import HostMemory
from acestep.knobs import Quantization, Variant
from acestep.stage import Stage
from acestep.tiers import BATCHES, Tier, TierTable
from acestep.units import GIB
from calibrate.probes.rehearsal import Rehearsal
from calibrate.probes.simulated.device import SimulatedDevice
from calibrate.probes.simulated.full_size_lm import FirstAllowed, full_size_lm
from calibrate.probes.simulated.host import rest_on_host
from calibrate.probes.simulated.kernels import CudaKernels
from calibrate.probes.simulated.ledger import Ledger
from calibrate.probes.simulated.memo import Memo, Regions, Tape
from calibrate.probes.simulated.prober import REGIONS, full_size
from calibrate.probes.simulated.sweep import pieces_of
from ci.scenarios.card_book import CardBook
from ci.scenarios.cards import card_of
from ci.scenarios.main_memory import host_bytes
from ci.scenarios.scenario import EntryPoint, Scenario, ScenarioResult, ServiceCall

_LARGE_IMPORTS = {EntryPoint.PAGE: ("gradio", "starlette", "uvicorn"), EntryPoint.SERVER: ("starlette", "uvicorn")}
"""Libraries of some programs, which have many objects and take seconds to import."""

_THREADS = "threading.Thread._bootstrap_inner"

LIMITS_S = {1: 40, 2: 30, 4: 20, 8: 10}
"""The longest song in seconds of each batch, in a table with low limits."""

MOST_HOST_BYTES = 1024 * GIB
"""Main memory of the machine: nothing is refused for want of it."""


class SilentDevice(SimulatedDevice):
    """A simulated card whose results are all zeros on the host, where programs read them."""

    def download(self, host: np.ndarray, source: Tensor) -> None:
        """Fill the array with zeros."""
        super().download(host, source)
        host.fill(0)


class Machine:
    """What the programs on a simulated machine did: their songs, and the models that they loaded."""

    def __init__(self, scenario: Scenario, table: TierTable, known: Regions) -> None:
        self.scenario = scenario
        self._table = limited(table, scenario.variant) if scenario.limited else table
        self.card = card_of(scenario.card_gib)
        self.made: list[ServiceCall] = []
        self.models = 0
        self.language_models = 0
        self._at_end = 0, 0
        self._closed_bytes = 0
        self._called: set[str] = set()
        self._book = CardBook(scenario.free_bytes)
        self._tape = Tape(self._book)
        self._kernels = CudaKernels(SIMULATED_CAPABILITY)
        self._ledger = Ledger(self._tape, self._kernels)
        self._memo = Memo(self._ledger, self._tape, known)

    @property
    def held_bytes(self) -> int:
        """Bytes of tensors on the card now."""
        self._memo.forget()
        gc.collect()
        self._ledger.recount()
        return self._book.held_bytes

    def report(self, offers: dict[str, int]) -> ScenarioResult:
        """Return what the programs did, which have ended. Raises `RuntimeError` if the card failed at an operation."""
        self._ledger.require_no_failure()
        return ScenarioResult(
            made=tuple(self.made),
            held_bytes=self._at_end[0],
            host_bytes=self._at_end[1],
            left_bytes=max(self._closed_bytes, self.held_bytes),
            models=self.models,
            language_models=self.language_models,
            offers=offers,
            called=tuple(sorted(self._called)),
            stages_after=self._book.take()[0],
        )

    @contextmanager
    def running(self, folder: Path) -> Iterator[None]:
        """Let programs run on the machine inside the block; their files go below `folder`."""
        components = full_size(self.scenario.variant, None)
        layer = components.text_encoder.layers[0]
        of_qwen = type(layer), type(layer.mlp), type(layer.input_layernorm)
        for name in ("transformers", *_LARGE_IMPORTS.get(self.scenario.entry, ())):
            import_module(name)
        # What is there before the program is no garbage of its, and looking at it takes long.
        gc.collect()
        gc.freeze()
        with ExitStack() as stack:
            stack.callback(gc.unfreeze)
            # A language model of this scenario is none of the next.
            stack.callback(full_size_lm.cache_clear)
            # What is frozen is not seen.
            stack.enter_context(patch.object(gc, "freeze", lambda: None))
            stack.enter_context(_replaced(_THREADS, self._begun))
            for place, instead in self._edges().items():
                stack.enter_context(_replaced(place, self._counted(place, instead)))
            stack.enter_context(patch.dict(os.environ, {"ACESTEP_CHECKPOINTS_DIR": str(folder / "checkpoints")}))
            stack.enter_context(self._kernels)
            stack.enter_context(self._memo.patched((*REGIONS, *of_qwen, *pieces_of(components))))
            stack.enter_context(self._ledger.storages_seen())
            stack.enter_context(_Seen(self._ledger))
            yield

    def _edges(self) -> dict[str, Callable[[Any], Any]]:
        """What is replaced, by its place in the code: each makes the replacement of what is there."""
        return {
            "acestep.tiers._table_in_force": lambda _: lambda: self._table,
            "acestep.hardware.detection.reconcile": lambda _: self._detected,
            "acestep.devices.open.open_device": lambda _: self._open_device,
            "acestep.checkpoints.host_memory.host_memory": lambda _: _much_memory,
            "acestep.checkpoints.load.build": self._build,
            "acestep.engine.kept_model.prepare": _prepare,
            "acestep.lm.language.load_lm": lambda _: self._load_lm,
            "acestep.lm.language.PtBackend": _rehearsed,
            "acestep.engine.service.Service.generate": self._songs,
            "acestep.engine.service.Service.codes": lambda usual: self._told("codes", usual),
            "acestep.engine.service.Service.close": self._closed,
            "acestep.lm.language.Language.write": lambda usual: self._told("words", usual),
        }

    def _counted(self, place: str, instead: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Make the same replacement, but remember that it was called."""

        def replacement(usual: Any) -> Any:
            replaced = instead(usual)

            def called(*arguments: Any, **named: Any) -> Any:
                self._called.add(place)
                return replaced(*arguments, **named)

            return called

        return replacement

    def _begun(self, usual: Callable[..., None]) -> Callable[..., None]:
        def begun(thread: object) -> None:
            # Modes belong to a thread.
            with _Seen(self._ledger):
                usual(thread)

        return begun

    def _detected(self, *_: object) -> Detection:
        return Detection(card=self.card, cards=(self.card,), answers=())

    def _open_device(self, *_: object, **__: object) -> tuple[SilentDevice, Card]:
        device = SilentDevice(self._ledger, self._book, dtype=torch.bfloat16, grouped_attention=True)
        return device, self.card

    def _build(self, usual: Callable[..., Any]) -> Callable[..., Any]:
        def build(size: str, variant: Variant, *, dtype: torch.dtype) -> Any:
            self.models += 1
            with _disable_current_modes():
                return usual(size, variant, dtype=dtype, materialise="meta")

        return build

    def _load_lm(self, name: str, *, quantization: Quantization | None = None, **_: object) -> Any:
        self.language_models += 1
        with _disable_current_modes():
            return full_size_lm(f"acestep-5Hz-lm-{name.partition(':')[2]}", quantization)

    def _songs(self, usual: Callable[..., Any]) -> Callable[..., Any]:
        def generate(*arguments: Any, **named: Any) -> Any:
            return self._watch(
                "songs",
                lambda: usual(*arguments, **named),
                lambda answer: {
                    "batch": len(answer[0].songs),
                    "duration_s": min(song.audio.shape[1] / song.sample_rate for song in answer[0].songs),
                    "songs_per_pass": answer[0].songs_per_pass,
                    "thought_per_pass": sum(
                        stage.songs_per_pass for stage in answer[0].stages if stage.name == Stage.THINK
                    ),
                    "decode_path": str(answer[0].decode_path),
                    "knobs": answer[1].knobs,
                },
            )

        return generate

    def _told(self, what: str, usual: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments, **named: self._watch(what, lambda: usual(*arguments, **named), lambda _: {})

    def _watch(self, what: str, run: Callable[[], Any], about: Callable[[Any], dict[str, Any]]) -> Any:
        held, on_host = self.held_bytes, host_bytes()
        before, refused = self._book.take()
        told: dict[str, Any] = {"what": f"{what} that were stopped"}
        try:
            answer = run()
            told = {"what": what, **about(answer)}
            return answer
        finally:
            stages, refusals = self._book.take()
            self.made.append(
                ServiceCall(
                    held_bytes=held,
                    host_bytes=on_host,
                    stages=stages,
                    stages_before=before,
                    refusals=refused + refusals,
                    **told,
                )
            )

    def _closed(self, usual: Callable[..., Any]) -> Callable[..., Any]:
        def close(service: Any) -> None:
            self._at_end = self.held_bytes, host_bytes()
            usual(service)
            # A program may keep a service that it has closed.
            self._closed_bytes = self.held_bytes

        return close


def limited(table: TierTable, variant: Variant) -> TierTable:
    """Return a table whose tiers have low limits, and which predicts nothing beyond them."""
    entry = table.variants[variant]
    tiers = tuple(_limited_tier(tier) for tier in entry.tiers)
    entry = msgspec.structs.replace(entry, tiers=tiers, memory_model={}, windows=())
    return msgspec.structs.replace(table, variants={**table.variants, variant: entry})


def _limited_tier(tier: Tier) -> Tier:
    """Return a tier that promises less without a language model."""
    reach = {str(batch): LIMITS_S[batch] for batch in BATCHES}
    return msgspec.structs.replace(
        tier,
        frontier=msgspec.structs.replace(tier.frontier, without_lm=reach),
        max_duration_s=msgspec.structs.replace(tier.max_duration_s, without_lm=LIMITS_S[1]),
        max_batch=msgspec.structs.replace(tier.max_batch, without_lm=1),
    )


class _Seen(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch leaves its modes untyped
    """Passes the operations of one thread to a ledger. What comes from the card to the host is zeros."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._ledger = ledger

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = self._ledger.__torch_dispatch__(func, types, args, kwargs)
        if isinstance(out, Tensor) and out.device.type == "cpu" and isinstance(args[0], Tensor) and args[0].is_meta:
            out.zero_()
        return out


def _replaced(place: str, instead: Callable[[Any], Any]) -> AbstractContextManager[Any]:
    """Replace what is at a place of the code by what `instead` makes of it."""
    parts = place.split(".")
    # A class may stand between the module and the name.
    module = ".".join(part for part in parts[:-1] if part[0].islower() or part[0] == "_")
    try:
        owner: Any = import_module(module)
        for part in parts[module.count(".") + 1 : -1]:
            owner = getattr(owner, part)
        return patch.object(owner, parts[-1], instead(getattr(owner, parts[-1])))
    except (ImportError, AttributeError):
        raise NotMeasuredError(
            f"the code has no {place}, where a simulated machine differs from a real one (ci/scenarios/machine.py)"
        ) from None


def _much_memory() -> HostMemory:
    return HostMemory(total_bytes=MOST_HOST_BYTES, available_bytes=MOST_HOST_BYTES)


def _prepare(usual: Callable[..., None]) -> Callable[..., None]:
    def prepare(components: Any, knobs: Any) -> None:
        with _disable_current_modes():
            usual(components, knobs)
            rest_on_host(components.modules().values())

    return prepare


def _rehearsed(usual: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *arguments, **named: Rehearsal(usual(*arguments, **named, chooser=FirstAllowed()))
