"""The measurement file, version 1: the probes, their card, and which probes prove which boundary."""

import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Protocol, Self

import msgspec

from acestep.budgets import System
from acestep.evidence import EvidenceKind
from acestep.knobs import KNOBS, Knobs, Variant
from acestep.request import DecodePath
from acestep.strict_json import read_json, strings_in
from calibrate.files import digest
from calibrate.fingerprint import code_version, library_versions
from calibrate.probes.base import (
    SAFE_TEXT,
    UNCONDITIONED,
    Bytes,
    CapMethod,
    CardConditions,
    MeasuredStage,
    ProbeResult,
    Text,
)
from calibrate.probes.virtual_marks import virtual_marks
from calibrate.record.flaws import BracketError, Flaw, FlawedError, flawed
from calibrate.verdict import Verdict
from calibrate.workload import Workload

RECORD_SCHEMA_VERSION = 1
"""Version of `tiers/measurements/*.json` that this code writes and reads."""

Index = Annotated[int, msgspec.Meta(ge=0)]
Digest = Annotated[str, msgspec.Meta(pattern="^sha256:[0-9a-f]{64}$")]

MOST_CARDS = 1000
"""More than any fleet has of one kind."""


UNSEALED = "sha256:" + "0" * 64
"""The digest of a measurement before its content is complete."""


class RecordedCardKind(StrEnum):
    """The kind of the card that answered."""

    SIMULATED = "simulated"
    VIRTUAL = "virtual"
    CUDA = "cuda"

    @property
    def evidence(self) -> EvidenceKind:
        """The kind of evidence that a card of this kind gives."""
        return EvidenceKind.MEASURED if self is RecordedCardKind.CUDA else EvidenceKind(self.value)


class _Data(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every value in a record."""


class RecordedCard(_Data, frozen=True, omit_defaults=True):
    """The card that answered; a simulated one has no size of its own (`total_bytes` 0).

    `system` is what the card ran under; it decides a simulated card's kernels and the budget. `uuid` is kept of a
    virtual card only, because that of a real one tells whose it is. Older files have no `driver`. `serials` are digests
    of the UUIDs of the cards of a fleet, which answered together.
    """

    kind: RecordedCardKind
    name: Text
    compute_capability: Text
    total_bytes: Bytes
    driver: Text = ""
    uuid: Text = ""
    system: System = System.LINUX
    serials: Annotated[tuple[Digest, ...], msgspec.Meta(max_length=MOST_CARDS)] = ()

    @property
    def virtual_marks(self) -> dict[str, str]:
        """Which fields say that the card is virtual, and what they hold."""
        return virtual_marks(name=self.name, uuid=self.uuid, driver=self.driver)

    @property
    def capability(self) -> tuple[int, int]:
        """The compute capability as numbers; (0, 0), which no card has, if the text is not such as 8.6."""
        major, _, minor = self.compute_capability.partition(".")
        return (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else (0, 0)


class Environment(_Data, frozen=True):
    """Versions of the libraries whose allocations were counted."""

    python: Text
    torch: Text
    diffusers: Text
    transformers: Text
    torchao: Text


class RecordedProbe(_Data, frozen=True, omit_defaults=True):
    """One probe: its question, its cap and its result.

    `asked` is the number of runs: a real card's out-of-memory is repeated before it counts, and the result is that of
    the last run. `withheld_bytes` are the part of the cap that the driver's context took beyond its share.
    """

    knobs: Knobs
    workload: Workload
    cap_bytes: Annotated[int, msgspec.Meta(gt=0)]
    verdict: Verdict
    songs_per_pass: int
    decode_path: DecodePath
    stages: tuple[MeasuredStage, ...]
    asked: Annotated[int, msgspec.Meta(ge=1)] = 1
    withheld_bytes: Bytes = 0

    def __post_init__(self) -> None:
        if self.withheld_bytes > self.cap_bytes:
            raise ValueError(f"withheld_bytes must be at most cap_bytes ({self.cap_bytes}), got {self.withheld_bytes}")

    @property
    def allocator_bytes(self) -> int:
        """The part of the cap that a small card would leave to the allocator; 0 if the context alone filled it."""
        return self.cap_bytes - self.withheld_bytes

    @property
    def question(self) -> tuple[Knobs, Workload, int]:
        """Knobs, workload and cap, as the key of a look-up."""
        return self.knobs, self.workload, self.cap_bytes

    @property
    def counts(self) -> bool:
        """Whether this probe can prove a limit."""
        return keeps_promise(self, self.workload.batch)

    @classmethod
    def of(cls, knobs: Knobs, workload: Workload, result: ProbeResult, *, timed: bool, asked: int = 1) -> Self:
        """Return the recorded form of a result; times only if a real clock measured them."""
        return cls(
            knobs=knobs,
            workload=workload,
            cap_bytes=result.cap_bytes,
            verdict=result.verdict,
            songs_per_pass=result.songs_per_pass,
            decode_path=result.decode_path,
            stages=recorded_stages(result, timed=timed),
            asked=asked,
            withheld_bytes=result.withheld_bytes,
        )


def recorded_stages(result: ProbeResult, *, timed: bool) -> tuple[MeasuredStage, ...]:
    """The stages of a result as they are written down."""
    return tuple(
        msgspec.structs.replace(stage, seconds=round(stage.seconds, 3) if timed else 0.0) for stage in result.stages
    )


class Ended(Protocol):
    """The fields that every form of a probe's result shares."""

    @property
    def verdict(self) -> Verdict:
        """How it ended."""
        ...

    @property
    def songs_per_pass(self) -> int:
        """Songs that denoise ran at once."""
        ...

    @property
    def decode_path(self) -> DecodePath:
        """Where the audio was decoded."""
        ...


def keeps_promise(result: Ended, batch: int) -> bool:
    """Whether a probe of `batch` songs fits, in one denoise pass, decoded on the card."""
    in_one_pass = result.songs_per_pass == batch and result.decode_path is not DecodePath.CPU
    return result.verdict is Verdict.FITS and in_one_pass


class Certificate(_Data, frozen=True):
    """The longest song of a batch that fits under a cap: indices of the probe that fits and of the next that does not.

    `fits` is null when not even the shortest song fits, `fails` when the longest does.
    """

    knobs: Knobs
    cap_bytes: Annotated[int, msgspec.Meta(gt=0)]
    batch: Annotated[int, msgspec.Meta(gt=0)]
    fits: Index | None
    fails: Index | None


class Coefficient(_Data, frozen=True):
    """One coefficient of the VRAM guard's memory model of a variant, in bytes (`acestep.limits.guard`)."""

    variant: Variant
    name: Text
    value: float


class Measurement(_Data, frozen=True, omit_defaults=True):
    """A measurement file as a value; `digest` is that of everything else in it.

    `memory_model` and `conditions` are left out of a file that has none, as older ones have.
    """

    schema_version: Annotated[int, msgspec.Meta(ge=1)]
    card: RecordedCard
    environment: Environment
    cap_method: CapMethod
    code_version: Text
    probes: tuple[RecordedProbe, ...]
    certificates: tuple[Certificate, ...]
    digest: Digest
    memory_model: tuple[Coefficient, ...] = ()
    conditions: CardConditions = UNCONDITIONED

    def __post_init__(self) -> None:
        for number, certificate in enumerate(self.certificates):
            self._check(number, certificate)

    def sealed(self) -> Self:
        """Return the same measurement as a reader will see it, checked, with the digest of its content."""
        as_read = msgspec.convert(msgspec.to_builtins(self), type(self))
        return msgspec.structs.replace(as_read, digest=content_digest(as_read))

    @property
    def evidence(self) -> EvidenceKind:
        """The kind of evidence that this record gives."""
        return self.card.kind.evidence

    def longest(self, certificate: Certificate) -> int:
        """Return the seconds of the longest song a certificate proves, 0 when it proves none."""
        return 0 if certificate.fits is None else int(self.probes[certificate.fits].workload.duration_s)

    def _check(self, number: int, certificate: Certificate) -> None:
        """Check that a certificate refers to two probes of its own knobs, cap and batch that bracket the boundary."""
        own = f"certificates[{number}]"
        sides = {"fits": certificate.fits, "fails": certificate.fails}
        for side, index in sides.items():
            if index is None:
                continue
            if index >= len(self.probes):
                raise BracketError(f"{own}.{side}", f"is probe {index}, there are {len(self.probes)}")
            probe = self.probes[index]
            asked = (probe.knobs, probe.cap_bytes, probe.workload.batch)
            if asked != (certificate.knobs, certificate.cap_bytes, certificate.batch):
                raise BracketError(f"{own}.{side}", f"is probe {index}, which asked something else")
            if probe.counts != (side == "fits"):
                raise BracketError(f"{own}.{side}", f"is probe {index}, which ended {probe.verdict}")
        if certificate.fits is None and certificate.fails is None:
            raise BracketError(own, "names no probe")
        if certificate.fits is not None and certificate.fails is not None:
            fits, fails = self.probes[certificate.fits], self.probes[certificate.fails]
            if fits.workload.duration_s >= fails.workload.duration_s:
                raise BracketError(own, "does not bracket: the song that fits is not the shorter one")


def measurement_of(
    card: RecordedCard,
    probes: tuple[RecordedProbe, ...],
    certificates: tuple[Certificate, ...],
    memory_model: tuple[Coefficient, ...] = (),
    cap_method: CapMethod = CapMethod.MODEL,
    conditions: CardConditions = UNCONDITIONED,
    libraries: Mapping[str, str] | None = None,
) -> Measurement:
    """Return the measurement file of a campaign on `card` with this code and `libraries`, by default those here."""
    return Measurement(
        schema_version=RECORD_SCHEMA_VERSION,
        card=card,
        environment=Environment(**(libraries or library_versions())),
        cap_method=cap_method,
        code_version=code_version(),
        probes=probes,
        certificates=certificates,
        digest=UNSEALED,
        memory_model=memory_model,
        conditions=conditions,
    ).sealed()


def content_digest(measurement: Measurement) -> str:
    """The digest a measurement must carry."""
    content = msgspec.to_builtins(measurement)
    del content["digest"]
    for asked in (*content["probes"], *content["certificates"]):
        for name, knob in KNOBS.items():
            if knob.added and asked["knobs"][name] == knob.default:
                del asked["knobs"][name]
    return digest(content)


def load_measurement(path: Path) -> Measurement:
    """Return a measurement file; `InvalidInputError` names it and what is wrong, a `FlawedError` also the flaw."""
    document = read_json(path)
    safe = re.compile(SAFE_TEXT)
    for where, text in strings_in(document):
        if not safe.fullmatch(text):
            said = "text outside A-Z a-z 0-9 and space ._+:/()@- or over 80 characters"
            raise FlawedError(path, Flaw.TEXT, where, said, place=where)
    version = document.get("schema_version") if isinstance(document, dict) else None
    if isinstance(version, int) and version > RECORD_SCHEMA_VERSION:
        said = f"schema_version is {version}, this program reads up to {RECORD_SCHEMA_VERSION}; update it"
        raise FlawedError(path, Flaw.VERSION, "$.schema_version", said)
    try:
        measurement = msgspec.convert(document, Measurement)
    except msgspec.ValidationError as error:
        raise flawed(path, error) from None
    if measurement.digest != content_digest(measurement):
        said = "digest is not that of its content; was it edited?"
        raise FlawedError(path, Flaw.DIGEST, "$.digest", said, place="$.digest")
    return measurement
