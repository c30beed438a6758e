"""The prober on a real card: a child for each loaded model, capped, watched, and never trusted to end by itself."""

import os
import sys
import time
from collections.abc import Mapping, Sequence

from acestep.checkpoints import catalog
from acestep.checkpoints.locate import locate
from acestep.errors import InvalidInputError, NotMeasuredError
from acestep.hardware.card import Card, CardKind
from acestep.hardware.detection import Detection, look
from acestep.knobs import Knobs, Variant
from acestep.limits.capabilities import computes_in_float32
from acestep.stage import StageReport
from calibrate.probes.base import SIMULATED_CARD, CapMethod, CardConditions, MeasuredStage, ProbeResult
from calibrate.probes.caps import SLACK_BYTES, require_cap_room
from calibrate.probes.child import Patience, ProbeEndedError
from calibrate.probes.messages import RunOutcome, Setup, setup_for
from calibrate.probes.nvml import gauge_for
from calibrate.probes.session import ProbeSession, ProbeSetup
from calibrate.probes.virtual_marks import virtual_marks
from calibrate.probes.watch import Return, require_flat, wait_until_flat
from calibrate.verdict import Verdict
from calibrate.workload import Workload

LOADING_PROBE = Patience(wall_s=900, silence_s=900)
"""A child says nothing while it reads weights, and disks are slow."""

PROBING = Patience(wall_s=1800, silence_s=900)
"""A two-step probe takes a few minutes on the slowest cards; a song that only the processor could decode takes many."""

PROBE_WORKER = (sys.executable, "-m", "calibrate.probes.worker")
BALLAST = (sys.executable, "-m", "calibrate.probes.ballast")

NO_CACHING = "PYTORCH_NO_CUDA_MEMORY_CACHING"
"""This setting makes PyTorch's allocator ignore a cap, so children do not inherit it."""

UNWATCHED = (
    "NVML could not be read, so the card was not watched: memory taken by other programs during the probe is unnoticed."
)


def model_of(variant: Variant) -> str:
    """The variant's own weights where they are on disk, else `dummy`; both take the same."""
    try:
        locate(variant.value, catalog.checkpoints_dir())
    except InvalidInputError:
        return "dummy"
    return variant.value


class ChildProber:
    """Probes in children of its own; the model stays loaded between probes of the same weights."""

    device = "cuda"

    def __init__(self, bench: ProbeSetup, card: Card = SIMULATED_CARD) -> None:
        self.bench = bench
        self.card = card
        self._before = bench.gauge.read()
        self._returned = Return(seconds=0.0, left_bytes=0)
        self._session: ProbeSession | None = None

    @property
    def conditions(self) -> CardConditions:
        """Of the session that is open; without one, no context was measured."""
        session = self._session
        return CardConditions(
            watched=self.bench.gauge.watches,
            foreign_bytes=self._before.used_bytes,
            context_bytes=session.context_bytes if session else 0,
            allocator=session.allocator[:80] if session else "",
            returned_s=round(self._returned.seconds, 3),
        )

    def model_for(self, knobs: Knobs) -> str:
        """The weights a probe runs on."""
        return model_of(knobs.variant)

    def probe(self, knobs: Knobs, workload: Workload, cap_bytes: int) -> ProbeResult:
        """Run once under a cap; a child that dies or hangs is a verdict, not an error.

        Raises `NotMeasuredError` on a card without room for the cap, or that cannot be used or asked at all.
        """
        return self._probe(knobs, workload, cap_bytes, full=False)

    def certify(self, knobs: Knobs, workload: Workload, cap_bytes: int) -> ProbeResult:
        return self._probe(knobs, workload, cap_bytes, full=True)

    def close(self) -> None:
        """End the child, and wait until the card is as before."""
        session, self._session = self._session, None
        if session is not None:
            session.close()
            self._returned = wait_until_flat(self.bench.gauge, self._before, self.bench.return_s)

    def _probe(self, knobs: Knobs, workload: Workload, cap_bytes: int, *, full: bool) -> ProbeResult:
        started = time.perf_counter()
        watched = self.bench.gauge.watches
        if watched:
            require_cap_room(cap_bytes, self.bench.context_bytes, self._before)
        answer, withheld = self._ask(knobs, workload, cap_bytes, full=full)
        remarks = () if watched else (UNWATCHED,)
        return _result(answer, cap_bytes, withheld, time.perf_counter() - started, remarks)

    def _ask(self, knobs: Knobs, workload: Workload, cap_bytes: int, *, full: bool) -> tuple[RunOutcome, int]:
        """Return the session's answer and the withheld bytes.

        A session that crashed or did not end by itself is not used again.
        """
        withheld = 0
        try:
            session = self._session_for(setup_for(knobs, self.model_for(knobs)))
            answer = session.probe(knobs, workload, cap_bytes, full=full)
            withheld = session.withheld_bytes
        except ProbeEndedError as end:
            answer = RunOutcome.of_no_run(0, end.verdict, workload.batch, str(end))
        else:
            if answer.verdict in (Verdict.FITS, Verdict.DEGRADED, Verdict.OOM):
                return answer, withheld
        try:
            self.close()
        except NotMeasuredError:  # the card cannot be asked whether all came back, and the verdict stands without it
            self._session = None
        return answer, withheld

    def _session_for(self, setup: Setup) -> ProbeSession:
        """Return the open session, or a new one if it has another model or its child kept memory."""
        session = self._session
        if session is not None and (session.setup != setup or session.resting_bytes > SLACK_BYTES):
            self.close()
        if self._session is None:
            require_flat(wait_until_flat(self.bench.gauge, self._before, self.bench.return_s))
            self._session = ProbeSession(setup, self.bench)
        return self._session


class CudaProber(ChildProber):
    """Probes this machine's NVIDIA card with the weights on disk, or with dummy ones of the same sizes."""

    def __init__(self, method: CapMethod = CapMethod.FRACTION, *, in_float32: bool = False) -> None:
        """Raises `NotMeasuredError` if there is no such card, or, unless `in_float32`, one that computes in float32."""
        card = _found(os.environ).card
        if computes_in_float32(card) and not in_float32:
            raise NotMeasuredError(
                f"{card.name} has no bfloat16 and computes in float32, where everything takes twice as much; its plan"
                " is that of a card of half its size, so there is nothing to measure; use `--device simulated`"
            )
        if virtual_marks(name=card.name, uuid=card.uuid, driver=card.driver):
            self.device = "virtual"
        super().__init__(
            ProbeSetup(
                gauge=gauge_for(card.uuid),
                worker=PROBE_WORKER,
                ballast=BALLAST,
                environ=child_environ(os.environ, card.uuid),
                loading=LOADING_PROBE,
                probing=PROBING,
                method=method,
            ),
            card,
        )


def found_cards(environ: Mapping[str, str]) -> Sequence[Card]:
    """Return all NVIDIA cards of this machine; raise `NotMeasuredError` if there is none that can be used."""
    return [card for card in _found(environ).cards if card.kind is CardKind.CUDA]


def _found(environ: Mapping[str, str]) -> Detection:
    found = look(environ)
    if found.card.kind is not CardKind.CUDA:
        why = "".join(f" {sentence}" for sentence in found.remarks)
        raise NotMeasuredError(
            f"no NVIDIA card was found ({found.card.name}), so nothing can be measured; use `--device simulated`.{why}"
        )
    if found.obstacle:
        raise NotMeasuredError(f"{found.obstacle} So nothing can be measured; use `--device simulated`")
    return found


def child_environ(environ: Mapping[str, str], uuid: str) -> dict[str, str]:
    """The environment of a child: one card by its permanent id, NVML's numbering, no network, no child process of vLLM.

    A card without a UUID is the only one, and is shown as it is.
    """
    kept = {name: value for name, value in environ.items() if name != NO_CACHING}
    return kept | {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        **({"CUDA_VISIBLE_DEVICES": uuid} if uuid else {}),
        "HF_HUB_OFFLINE": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    }


def _result(
    answer: RunOutcome, cap_bytes: int, withheld_bytes: int, seconds: float, remarks: tuple[str, ...]
) -> ProbeResult:
    return ProbeResult(
        verdict=answer.verdict,
        cap_bytes=cap_bytes,
        stages=tuple(
            MeasuredStage(
                **{name: getattr(stage, name) for name in StageReport.__struct_fields__},
                resident_bytes=0,
                allowance_bytes=0,
            )
            for stage in answer.stages
        ),
        songs_per_pass=answer.songs_per_pass,
        decode_path=answer.decode_path,
        seconds=seconds,
        warnings=((answer.problem,) if answer.problem else ()) + answer.warnings + remarks,
        withheld_bytes=withheld_bytes,
    )
