"""Behind the page: one model for all, loaded once, idle after a stop, and separate songs for each visit."""

import gc
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import soundfile
import torch
import torch.nn.functional as F

from acestep.engine import kept_model, service
from acestep.errors import RunFailedError, UsageError
from acestep.hardware.card import simulated_card
from acestep.knobs import Offload, Variant
from acestep.limits.plan import Overrides
from acestep.request import Request, Task
from acestep.serving.visits import StoppedError, Visit
from acestep.ui.settings import THIS_CARD, Controls
from acestep.ui.studio import Studio
from acestep.units import GIB
from tests.small_card import SmallCard
from tests.some import first_of

SHORT = Request(caption="drums", duration_s=1, steps=2, seed=3)


class CountingCard(SmallCard):
    """A small card that knows how many bytes of it are in use."""

    def __init__(self) -> None:
        super().__init__(free_bytes=8 * GIB)
        self.used = 0

    def upload(self, host: torch.Tensor, owner: str) -> torch.Tensor:
        return self._counted(super().upload(host, owner))

    def reserve(self, n_bytes: int, owner: str) -> torch.Tensor:
        return self._counted(super().reserve(n_bytes, owner))

    def _counted(self, tensor: torch.Tensor) -> torch.Tensor:
        size = tensor.untyped_storage().nbytes()
        self.used += size
        weakref.finalize(tensor.untyped_storage(), self._gone, size)
        return tensor

    def _gone(self, size: int) -> None:
        self.used -= size


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> CountingCard:
    """The card that the studio finds."""
    found = CountingCard()
    monkeypatch.setenv("MAX_CUDA_VRAM", "8")
    monkeypatch.setattr(service, "open_here", lambda: (found, simulated_card(8)))
    return found


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Every load of a model."""
    calls: list[tuple[Any, ...]] = []
    load = kept_model.load

    def counted(*what: Any, **how: Any) -> Any:
        calls.append(what)
        return load(*what, **how)

    monkeypatch.setattr(kept_model, "load", counted)
    return calls


@pytest.fixture
def studio(card: CountingCard, tmp_path: Path) -> Iterator[Studio]:
    """A studio with the tiny model, closed at the end."""
    made = opened(tmp_path / "out")
    yield made
    made.close()


def opened(out: Path, **overrides: Any) -> Studio:
    # Compiling takes longer than anything else here, and changes nothing that is looked at.
    return Studio("tiny", Overrides(compile=False, **overrides), out)


def make(studio: Studio, visit: Visit, request: Request = SHORT, **settings: Any) -> dict[str, Any]:
    controls, _ = studio.start()
    wish = Controls(**{name: getattr(controls, name) for name in Controls.__struct_fields__} | settings)
    with visit.run():
        return studio.generate(request, wish, "wav", visit, lambda path: path)


def test_a_model_is_loaded_once_for_many_songs_and_again_for_other_weights(
    studio: Studio, loads: list[tuple[Any, ...]]
) -> None:
    ann, bob = studio.sessions.of("ann"), studio.sessions.of("bob")
    first = make(studio, ann)
    second = make(studio, bob)
    make(studio, ann, offload_dit=True)
    assert len(loads) == 1
    make(studio, ann, quantization="int8")
    assert len(loads) == 2
    songs = [Path(document["songs"][0]["path"]) for document in (first, second)]
    assert songs[0].read_bytes() == songs[1].read_bytes()


def test_only_a_new_song_is_planned_and_only_by_a_language_model(studio: Studio) -> None:
    visit, (controls, _) = studio.sessions.of("ann"), studio.start()
    cover = Request(caption="drums", task=Task.COVER, audio_codes=(1,) * 50)
    with pytest.raises(UsageError, match="only new songs are planned"):
        studio.plan_song(cover, controls, visit)
    without = msgspec.structs.replace(controls, lm="", init_lm=False)
    with pytest.raises(UsageError, match="no language model was chosen"):
        studio.plan_song(SHORT, without, visit)
    assert visit.made == []


def test_a_plan_that_is_stopped_while_it_waits_loads_no_language_model(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("acestep.engine.service.Service._thinker", lambda *_: pytest.fail("a model is loaded"))
    visit, (controls, _) = studio.sessions.of("ann"), studio.start()

    def plan() -> None:
        with visit.run():
            visit.stop()
            studio.plan_song(SHORT, controls, visit)

    with pytest.raises(StoppedError):
        plan()


def test_whoever_opens_the_device_first_what_follows_is_done_once(card: CountingCard, tmp_path: Path) -> None:
    done: list[str] = []
    studio = Studio("tiny", Overrides(compile=False), tmp_path, opened=lambda: done.append("opened"))
    assert done == []
    for _ in range(2):
        make(studio, studio.sessions.of("ann"))
        studio.open()
    assert done == ["opened"]
    studio.close()


def test_songs_go_only_to_their_visits_folder_and_list(studio: Studio, tmp_path: Path) -> None:
    ann, bob = studio.sessions.of("ann"), studio.sessions.of("bob")
    document = make(studio, ann, Request(caption="../../x", duration_s=1, steps=1, batch=2))
    paths = [Path(song["path"]) for song in document["songs"]]
    assert {path.parent for path in paths} == {ann.folder}
    assert [made.path for made in ann.made] == paths
    assert bob.made == []
    assert all(soundfile.info(path).frames == 48_000 for path in paths)
    assert {path for path in (tmp_path / "out").rglob("*") if path.is_file()} == set(paths)
    make(studio, ann)
    assert [made.seed for made in ann.made] == [3, 0, 1]


@pytest.mark.parametrize(
    ("offload", "stages"), first_of([(Offload.CPU_DIT, ("think", "denoise")), (Offload.NONE, ("encode", "decode"))], 1)
)
def test_a_run_that_is_stopped_leaves_nothing_behind_and_the_next_one_sounds_the_same(
    offload: Offload, stages: tuple[str, ...], card: CountingCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("acestep.lm.grammar.MAX_CAPTION_TOKENS", 12)
    monkeypatch.setenv("MAX_CUDA_VRAM", "24" if offload is Offload.NONE else "8")
    studio = opened(tmp_path, offload=offload)
    visit = studio.sessions.of("ann")
    wish = Request(caption="drums", duration_s=1, steps=2, seed=3, think=True)
    undisturbed = Path(make(studio, visit, wish)["songs"][0]["path"]).read_bytes()
    gc.collect()
    at_rest, report, stage = card.used, visit.report, ""
    assert (at_rest > 0) == (offload is Offload.NONE)

    def stopping(name: str, done: int, total: int) -> None:
        if name == stage:
            visit.stop()
        report(name, done, total)

    monkeypatch.setattr(visit, "report", stopping)
    for stage in stages:
        with pytest.raises(StoppedError):
            make(studio, visit, wish)
        studio.rest()
        assert (visit.progress.stage, card.used) == ("stopped", at_rest), stage
    monkeypatch.setattr(visit, "report", report)
    assert Path(make(studio, visit, wish)["songs"][0]["path"]).read_bytes() == undisturbed
    studio.close()
    assert card.used == 0


def test_a_run_without_thinking_has_no_language_model_on_the_card(
    card: CountingCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAX_CUDA_VRAM", "24")
    monkeypatch.setattr("acestep.lm.grammar.MAX_CAPTION_TOKENS", 12)
    studio = opened(tmp_path, offload=Offload.NONE)
    visit = studio.sessions.of("ann")
    make(studio, visit)
    alone = card.used
    make(studio, visit, Request(caption="drums", duration_s=1, steps=1, think=True))
    assert card.used > alone
    make(studio, visit)
    gc.collect()
    assert card.used == alone
    studio.close()


def test_runs_of_two_visits_follow_each_other(studio: Studio) -> None:
    inside, most = 0, 0
    generate = studio._maker._service.generate

    def watched(*what: Any, **how: Any) -> Any:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        try:
            return generate(*what, **how)
        finally:
            inside -= 1

    studio._maker._service.generate = watched  # type: ignore[method-assign]
    visits = [studio.sessions.of(name) for name in ("ann", "bob")]
    threads = [threading.Thread(target=make, args=(studio, visit)) for visit in visits]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert [len(visit.made) for visit in visits] == [1, 1]


def test_all_songs_are_computed_in_one_thread(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    computing: set[int] = set()
    product = F.linear

    def noted(*what: Any, **how: Any) -> torch.Tensor:
        computing.add(threading.get_ident())
        return product(*what, **how)

    monkeypatch.setattr(F, "linear", noted)
    visits = [studio.sessions.of(str(number)) for number in range(3)]
    threads = [threading.Thread(target=make, args=(studio, visit)) for visit in visits]
    for thread in threads:
        thread.start()
    # All of them are there at once: a thread that has ended may leave its number to the next.
    for thread in threads:
        thread.join()
    assert [len(visit.made) for visit in visits] == [1, 1, 1]
    assert len(computing) == 1
    assert not computing & {thread.ident for thread in threads}


def test_a_failed_run_says_so_and_the_next_one_works(studio: Studio, card: CountingCard) -> None:
    visit = studio.sessions.of("ann")
    card.denoise_refusals = 99
    with pytest.raises(RunFailedError):
        make(studio, visit)
    assert visit.progress.stage == "failed"
    card.denoise_refusals = 0
    make(studio, visit)
    assert visit.progress.stage == "finished"


def test_a_run_that_gave_up_memory_does_not_slow_the_next(studio: Studio, card: CountingCard) -> None:
    visit = studio.sessions.of("ann")
    card.denoise_refusals = 1
    assert any("is used from now on" in sentence for sentence in make(studio, visit)["warnings"])
    assert studio._maker._service._pipelines == {}
    make(studio, visit)
    ((knobs, _),) = studio._maker._service._pipelines
    assert knobs.offload is Offload.CPU


def test_closing_stops_what_runs(studio: Studio) -> None:
    visit, began = studio.sessions.of("ann"), threading.Event()
    report = visit.report

    def slow(name: str, done: int, total: int) -> None:
        began.set()
        report(name, done, total)

    visit.report = slow  # type: ignore[method-assign]
    ended: list[str] = []

    def run() -> None:
        try:
            make(studio, visit, Request(caption="x", duration_s=60, steps=200))
        except StoppedError:
            ended.append("stopped")

    thread = threading.Thread(target=run)
    thread.start()
    assert began.wait(20)
    studio.close()
    thread.join(20)
    assert ended == ["stopped"]


def test_the_plan_is_that_of_the_tier_and_of_the_command_line(card: CountingCard, tmp_path: Path) -> None:
    studio = opened(tmp_path, variant=Variant.BASE, offload=Offload.STREAM)
    controls, plan = studio.start()
    assert (controls.offload_stream, plan.variant, plan.tier) == ("stream", Variant.BASE, "tier4")
    for tier in studio.tiers:
        assert tier == THIS_CARD or studio.start(tier)[1].tier == tier
    with pytest.raises(UsageError, match="tier"):
        studio.start("tier99")
    studio.close()


def test_a_wish_that_the_card_cannot_honour_is_put_back_with_a_sentence(studio: Studio) -> None:
    controls, plan, refused = studio.settle(Controls(offload_cpu=False, quantization="fp8", lm="4B", backend="vllm"))
    usual = studio.start()[1]
    assert (plan.offload, plan.quantization, plan.lm) == (usual.offload, usual.quantization, usual.lm)
    assert controls.offload_cpu
    assert len(refused) == 3
    for word in ("Offload", "fp8", "4B"):
        assert any(word in sentence for sentence in refused)
