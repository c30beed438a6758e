"""Runs one campaign for each kind of card, all at once; each has a journal on this machine."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue

import msgspec

from acestep.errors import AceStepError, NotMeasuredError
from acestep.output_file import output_file
from calibrate.campaign.journal import unwritable
from calibrate.campaign.lock import Lock
from calibrate.campaign.pace import Paced
from calibrate.campaign.recording import Campaigning, InterruptedCampaignError, run_and_record
from calibrate.executors.base import ExecutorStoppedError
from calibrate.executors.fleet import LISTEN_S, Fleet, FleetState, WatchFleet
from calibrate.executors.remote import Workers, WorkerSetup
from calibrate.fleet.updates import Cards, Failed, Progressed, TellUpdate, Told, Update, Written

OpenWorkers = Callable[[WorkerSetup], Workers]
"""Returns the workers of a kind of card."""


class KindCampaign(msgspec.Struct, frozen=True, kw_only=True):
    """The campaign of one kind of card, and its measurement file."""

    setup: WorkerSetup
    output: Path


def run_campaigns(
    campaigns: Sequence[KindCampaign], campaigning: Campaigning, workers: OpenWorkers, tell: TellUpdate
) -> list[Written | Failed]:
    """Run all campaigns and return how each ended, in their order.

    One that fails leaves its journal, and the others go on. After Ctrl-C raises `InterruptedCampaignError` with the
    answers that all journals keep; all workers have ended then.
    """
    stopped, updates = threading.Event(), SimpleQueue[Update]()
    interrupted = False
    with ThreadPoolExecutor(len(campaigns)) as pool:
        running = [pool.submit(_run, one, campaigning, workers, updates.put, stopped) for one in campaigns]
        try:
            while not (_ended(running) and updates.empty()):
                _tell_next(updates, tell)
        except KeyboardInterrupt:
            interrupted = True
        finally:
            stopped.set()
    stops = [error for one in running if (error := one.exception()) is not None]
    for error in stops:
        if not isinstance(error, InterruptedCampaignError | ExecutorStoppedError):
            raise error
    if interrupted:
        kept = sum(one.kept for one in stops if isinstance(one, InterruptedCampaignError))
        raise InterruptedCampaignError(kept, campaigns[0].output.parent)
    return [one.result() for one in running]


def _run(
    campaign: KindCampaign,
    campaigning: Campaigning,
    workers: OpenWorkers,
    tell: TellUpdate,
    stopped: threading.Event,
) -> Written | Failed:
    """Run one campaign in this thread."""
    kind, started = campaign.setup.kind, time.monotonic()

    def say(sentence: str) -> None:
        tell(Told(card=kind, message=sentence))

    def paced(step: Paced) -> None:
        tell(Progressed(card=kind, done=step.done, left=step.left, left_s=step.left_s))

    update: Written | Failed
    try:
        fleet = Fleet(campaign.setup, workers(campaign.setup), stopped=stopped, watch=_watching(kind, tell))
        with output_file(campaign.output) as write, _alone_with(campaign.output), closing(fleet):
            on_card = _on_card(campaigning, fleet, say)
            findings = run_and_record(fleet, on_card, campaign.output, write, say, paced)
    except AceStepError as error:
        update = Failed(card=kind, message=str(error), exit_code=int(error.exit))
    else:
        seconds = time.monotonic() - started
        update = Written(card=kind, path=str(campaign.output), probes=len(findings.probes), seconds=round(seconds, 3))
    tell(update)
    return update


@contextmanager
def _alone_with(output: Path) -> Iterator[None]:
    """Keep other campaigns from a measurement file, also while this one waits for cards; raises `UsageError`."""
    try:
        lock = Lock(output)
    except OSError as error:
        raise unwritable(output, error) from None
    try:
        yield
    finally:
        lock.release()


def _on_card(campaigning: Campaigning, fleet: Fleet, tell: Callable[[str], None]) -> Campaigning:
    """Leave out the sizes that are larger than a real card. Raises `NotMeasuredError` where none is left."""
    card, scope = fleet.card, campaigning.scope
    sizes = tuple(size for size in scope.sizes_gib if not card.total_bytes or size <= card.nameplate_gib)
    if not sizes:
        raise NotMeasuredError(f"{card.name} is smaller than every size that was asked for; choose others with --tiers")
    tell(f"Probes run on {card.name}; sizes: {', '.join(f'{size:g}' for size in sizes)} GiB.")
    return msgspec.structs.replace(campaigning, scope=msgspec.structs.replace(scope, sizes_gib=sizes))


def _watching(kind: str, tell: TellUpdate) -> WatchFleet:
    """Return a function that tells the state of a fleet whenever it changes."""
    told: list[Cards] = []

    def watch(state: FleetState) -> None:
        update = Cards(
            card=kind, at_work=state.at_work, starting=state.starting, excluded=state.excluded, slow=state.slow
        )
        if told[-1:] != [update]:
            told[:] = [update]
            tell(update)

    return watch


def _tell_next(updates: "SimpleQueue[Update]", tell: TellUpdate) -> None:
    """Tell one update, if one comes within a moment."""
    with suppress(Empty):
        tell(updates.get(timeout=LISTEN_S))


def _ended(running: "Sequence[Future[Written | Failed]]") -> bool:
    """Whether all campaigns have ended, or one in a way that ends all."""
    ended = [one for one in running if one.done()]
    return len(ended) == len(running) or any(one.exception() is not None for one in ended)
