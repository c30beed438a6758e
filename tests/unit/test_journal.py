"""A journal returns complete answers, only for the fingerprint they were written for, and survives any interruption."""

import errno
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acestep.errors import Exit, InvalidInputError, RunFailedError, UsageError
from acestep.knobs import Knobs, Variant
from calibrate.campaign.journal import UNKNOWN_CARDS, AnsweredBy, Journal, journal_path
from calibrate.campaign.lock import Lock
from calibrate.executors.answers import simulated_answer
from calibrate.executors.questions import Fit, Fitted, JournalEntry, Probed, Question
from calibrate.fingerprint import Fingerprint, code_version, fingerprint
from calibrate.probes.base import UNCONDITIONED
from calibrate.verdict import Verdict
from calibrate.workload import Workload
from tests.fakes import AnalyticProber

HERE = fingerprint(card="a formula", cap_method="model", budget="sha256:0")
PROBER = AnalyticProber()
QUESTIONS = [
    Question(knobs=Knobs(), workload=Workload(batch=1, duration_s=float(seconds)), cap_bytes=2**32, attempt=attempt)
    for seconds in (60, 600)
    for attempt in (0, 1)
]
ENTRIES: list[JournalEntry] = [
    *(simulated_answer(PROBER, question) for question in QUESTIONS),
    Fitted(task=Fit(variant=Variant.TURBO), coefficients={"denoise": 1.5}),
]


def written(path: Path, entries: Sequence[JournalEntry] = tuple(ENTRIES)) -> bytes:
    journal = Journal(path, HERE, resume=False)
    for entry in entries:
        journal.keep(entry)
    journal.close()
    return path.read_bytes()


def reopened(path: Path) -> list[JournalEntry]:
    journal = Journal(path, HERE, resume=True)
    journal.close()
    return list(journal.entries.values())


CARDS = [
    AnsweredBy(serials=(f"sha256:{letter}",), conditions=msgspec.structs.replace(UNCONDITIONED, **fields))
    for letter, fields in (
        ("a", {"watched": True, "context_bytes": 7}),
        ("b", {"watched": True, "foreign_bytes": 9}),
        ("c", {"watched": False, "returned_s": 1.5}),
    )
]


@settings(max_examples=20)
@given(cards=st.lists(st.sampled_from([UNKNOWN_CARDS, *CARDS]), min_size=len(ENTRIES), max_size=len(ENTRIES)))
def test_the_cards_of_all_runs_are_remembered_with_the_worst_conditions(cards: list[AnsweredBy]) -> None:
    with TemporaryDirectory() as place:
        for entry, by in zip(ENTRIES, cards, strict=True):
            journal = Journal(Path(place) / "j", HERE, resume=True)
            journal.keep(entry, by)
            journal.close()
        resumed = Journal(Path(place) / "j", HERE, resume=True)
        resumed.close()
    known = [by for by in cards if by != UNKNOWN_CARDS]
    assert resumed.by == journal.by
    assert resumed.by.serials == tuple(sorted({serial for by in known for serial in by.serials}))
    assert resumed.by.conditions.watched is (bool(known) and all(by.conditions.watched for by in known))
    for field in ("foreign_bytes", "context_bytes", "returned_s"):
        assert getattr(resumed.by.conditions, field) == max((getattr(by.conditions, field) for by in known), default=0)


def test_cards_that_were_changed_after_they_were_written_are_noticed(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", HERE, resume=False)
    journal.keep(ENTRIES[0], CARDS[0])
    journal.close()
    text = (tmp_path / "j").read_bytes()
    (tmp_path / "j").write_bytes(text.replace(b"sha256:a", b"sha256:b"))
    with pytest.raises(InvalidInputError, match="line 2 was changed"):
        Journal(tmp_path / "j", HERE, resume=True)


def test_it_lies_beside_the_file_it_becomes_under_a_name_no_record_has(tmp_path: Path) -> None:
    path = journal_path(tmp_path / "card.json")
    assert path == tmp_path / "card.json.journal.jsonl"
    path.touch()
    assert list(tmp_path.glob("*.json")) == []


@pytest.mark.parametrize("verdict", [Verdict.TAINTED, Verdict.CRASHED, Verdict.TIMEOUT])
def test_a_run_without_an_answer_is_there_with_its_reason_and_is_asked_again(tmp_path: Path, verdict: Verdict) -> None:
    answered = ENTRIES[0]
    assert isinstance(answered, Probed)
    probe = msgspec.structs.replace(answered.probe, verdict=verdict)
    without = Probed(task=answered.task, probe=probe, problem="another program came on the card")
    path = tmp_path / "j"
    assert b"another program came on the card" in written(path, [ENTRIES[1], without])
    assert reopened(path) == [ENTRIES[1]]
    journal = Journal(path, HERE, resume=True)
    journal.keep(answered)
    journal.close()
    assert reopened(path) == [ENTRIES[1], answered]


def test_answers_come_back_as_they_were_given(tmp_path: Path) -> None:
    written(tmp_path / "j")
    assert reopened(tmp_path / "j") == ENTRIES


@settings(max_examples=30)
@given(st.floats(0, 1))
def test_wherever_it_was_cut_the_whole_lines_count_and_the_next_answer_follows_them(
    tmp_path_factory: pytest.TempPathFactory, share: float
) -> None:
    path = tmp_path_factory.mktemp("cut") / "j"
    whole = written(path)
    cut = whole[: int(len(whole) * share)]
    path.write_bytes(cut)
    lines = max(cut.count(b"\n") - 1, 0)
    journal = Journal(path, HERE, resume=True)
    assert list(journal.entries.values()) == ENTRIES[:lines]
    for entry in ENTRIES[lines:]:
        journal.keep(entry)
    journal.close()
    assert path.read_bytes() == whole


def test_an_existing_journal_is_kept_without_resume(tmp_path: Path) -> None:
    whole = written(tmp_path / "j")
    with pytest.raises(UsageError, match="--resume"):
        Journal(tmp_path / "j", HERE, resume=False)
    assert (tmp_path / "j").read_bytes() == whole


def test_one_without_answers_is_begun_again(tmp_path: Path) -> None:
    written(tmp_path / "j", ())
    written(tmp_path / "j")
    assert reopened(tmp_path / "j") == ENTRIES


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"code": "0.0.1+tree.0"}, "0.0.1"),
        ({"libraries": {"torch": "1.0"}}, "torch 1.0"),
        ({"card": "another card"}, "another card"),
        ({"cap_method": "ballast"}, "ballast"),
        ({"budget": "sha256:1"}, "sha256:1"),
        ({"allocator": "expandable_segments:True"}, "expandable_segments"),
    ],
)
def test_answers_that_hold_for_something_else_are_refused_by_name(
    tmp_path: Path, change: dict[str, object], words: str
) -> None:
    elsewhere: Fingerprint = msgspec.structs.replace(HERE, **change)
    Journal(tmp_path / "j", elsewhere, resume=False).close()
    with pytest.raises(UsageError, match=r"cannot be continued.*" + words.replace("+", r"\+")):
        Journal(tmp_path / "j", HERE, resume=True)


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole.replace(b'"oom"', b'"fits"', 1),
        lambda whole: whole.replace(b'"duration_s":60.0', b'"duration_s":90.0', 1),
        lambda whole: whole.replace(b"\n", b"\n\n", 1),
        lambda whole: b"RIFF\n" + whole,
        lambda whole: b"\xff\xfe\n" + whole,
        lambda whole: whole.replace(b"oom", b"\xff\xffm", 1),
    ],
)
def test_what_was_changed_or_is_no_journal_is_refused_and_left_alone(tmp_path: Path, damage: object) -> None:
    spoilt = damage(written(tmp_path / "j"))  # type: ignore[operator]
    (tmp_path / "j").write_bytes(spoilt)
    with pytest.raises(InvalidInputError, match="line"):
        Journal(tmp_path / "j", HERE, resume=True)
    assert (tmp_path / "j").read_bytes() == spoilt


def test_a_full_disk_is_a_failed_run_that_says_how_to_go_on_and_keeps_what_there_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = written(tmp_path / "j", ENTRIES[:2])
    journal = Journal(tmp_path / "j", HERE, resume=True)
    real = os.pwrite
    room = [40]

    def full(file: int, line: bytes, place: int) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        part, room[0] = line[: room[0]], 0
        return real(file, part, place)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(RunFailedError, match=r"No space left.*--resume") as caught:
        journal.keep(ENTRIES[2])
    assert caught.value.exit is Exit.RUN_FAILED
    assert (tmp_path / "j").read_bytes() == before


def test_a_place_that_cannot_be_written_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot write"):
        Journal(tmp_path / "missing" / "j", HERE, resume=False)
    with pytest.raises(InvalidInputError, match="cannot be read"):
        Journal(tmp_path, HERE, resume=False)


def test_two_runs_do_not_write_one_journal(tmp_path: Path) -> None:
    first = Journal(tmp_path / "j", HERE, resume=False)
    for resume in (False, True):
        with pytest.raises(UsageError, match="another run"):
            Journal(tmp_path / "j", HERE, resume=resume)
    first.close()
    Journal(tmp_path / "j", HERE, resume=True).close()
    assert [path.name for path in tmp_path.iterdir()] == ["j"], "the lock's file is removed"


def test_a_lock_is_gone_with_the_process_that_held_it(tmp_path: Path) -> None:
    imports = "from pathlib import Path; from calibrate.campaign.lock import Lock"
    holder = f"{imports}; lock = Lock(Path({str(tmp_path / 'j')!r}))"
    process = subprocess.Popen(
        [sys.executable, "-c", f"{holder}; print('held', flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(BlockingIOError, match="held by another process"):
            Lock(tmp_path / "j")
        process.kill()
    Lock(tmp_path / "j").release()


def test_it_is_locked_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "j"
    first = Journal(path, HERE, resume=False)
    first.keep(ENTRIES[0])
    monkeypatch.setattr("calibrate.campaign.journal._read", lambda _: pytest.fail("another run still writes it"))
    for resume in (False, True):
        with pytest.raises(UsageError, match="another run is writing it"):
            Journal(path, HERE, resume=resume)
    monkeypatch.undo()
    first.close()
    assert reopened(path) == ENTRIES[:1]


def test_one_that_is_refused_is_not_locked_any_more(tmp_path: Path) -> None:
    path = tmp_path / "j"
    written(path)
    for resume, card in ((False, "a formula"), (True, "another card")):
        with pytest.raises(UsageError):
            Journal(path, msgspec.structs.replace(HERE, card=card), resume=resume)
    assert [file.name for file in tmp_path.iterdir()] == ["j"]
    assert reopened(path) == ENTRIES


def test_without_pwrite_a_journal_holds_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows."""
    usual = written(tmp_path / "usual", ENTRIES)
    monkeypatch.delattr(os, "pwrite")
    assert written(tmp_path / "without", ENTRIES) == usual
    assert reopened(tmp_path / "without") == ENTRIES


def test_the_code_that_counts_is_whatever_answers_depend_on() -> None:
    assert HERE.code == code_version()
    assert set(HERE.libraries) == {"python", "torch", "diffusers", "transformers", "torchao"}
