"""`python -m calibrate run --cards`: a campaign for each kind of card of this machine, or of a Ray cluster."""

import re
import sys
from collections import Counter
from contextlib import closing, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

import click
import msgspec

from acestep.cli import console
from acestep.errors import Exit, NotMeasuredError, UsageError
from calibrate.extras import require_extra

if TYPE_CHECKING:
    from calibrate.campaign.recording import Campaigning
    from calibrate.executors.remote import Machines
    from calibrate.fleet.campaigns import KindCampaign, OpenWorkers

ALL_CARDS: Final = "all"

executor_option = click.option(
    "--executor",
    type=click.Choice(("local", "ray")),
    default="local",
    show_default=True,
    help="Where the probes run: on this machine, or on the cards of a Ray cluster.",
)

address_option = click.option(
    "--address", metavar="ADDRESS", help="The address of the Ray cluster; that of this machine if not given."
)

cards_option = click.option(
    "--cards",
    metavar="all|NAMES",
    help="The kinds of card to probe, such as H100,L4, each with a file of its own; on a cluster all if not given.",
)

card_option = click.option(
    "--card", metavar="NAME", help="With --device simulated: simulate the kernels of this card, such as H100."
)

lines_option = click.option(
    "--json", "as_lines", is_flag=True, help="With several cards: print each event as one line of JSON."
)


class FleetAsked(msgspec.Struct, frozen=True, kw_only=True):
    """The kinds of card that were asked for, none for all that there are; no address stands for this machine."""

    address: str | None
    kinds: tuple[str, ...]
    as_lines: bool

    @property
    def is_here(self) -> bool:
        """Whether all cards are in this machine."""
        return self.address is None


def fleet_asked(
    device: str, executor: str, address: str | None, cards: str | None, card: str | None, *, as_lines: bool
) -> FleetAsked | None:
    """Return the fleet that the options describe, None if there is none.

    Raises `UsageError` for options that do not go together, `MissingExtraError` without Ray.
    """
    if executor != "ray" and address is not None:
        raise UsageError("--address goes only with --executor ray; leave it out")
    if executor != "ray" and cards is None:
        if as_lines:
            raise UsageError("--json goes only with --executor ray or with --cards; leave it out")
        if card is not None and device != "simulated":
            raise UsageError("--card goes only with --device simulated; leave it out")
        return None
    if card is not None:
        raise UsageError("--card goes only with --executor local and without --cards; leave it out")
    kinds = () if cards in (None, ALL_CARDS) else tuple(dict.fromkeys(name.strip() for name in cards.split(",")))
    if not all(kinds):
        raise UsageError(f"--cards needs names between commas, such as H100,L4, got {cards!r}")
    if executor != "ray":
        return FleetAsked(address=None, kinds=kinds, as_lines=as_lines)
    require_extra("ray")
    return FleetAsked(address=address or "auto", kinds=kinds, as_lines=as_lines)


def run_fleet(asked: FleetAsked, device: str, campaigning: "Campaigning", folder: Path | None) -> int:
    """Run a campaign for each kind of card; without a folder only tell which cards there are.

    Exit code 4 if a campaign could not be finished.
    """
    lines = sys.stdout if asked.as_lines else None
    # Ray tells people on stdout what happens to its nodes.
    with redirect_stdout(sys.stderr), closing(_machines(asked)) as machines:
        kinds = _kinds(machines, asked, device)
        if folder is None:
            return Exit.OK
        campaigns = _campaigns(kinds, device, campaigning, folder)
        return _run(campaigns, campaigning, machines.workers, lines)


def _machines(asked: FleetAsked) -> "Machines":
    from calibrate.campaign.probers import passes_descriptors
    from calibrate.executors import local_cards, ray_cluster

    if asked.address is not None:
        return ray_cluster.RayCluster(asked.address)
    if not passes_descriptors():
        raise NotMeasuredError("--cards needs Linux, WSL or macOS; on Windows, --card simulates one card")
    return local_cards.LocalMachine(asked.kinds)


def _kinds(machines: "Machines", asked: FleetAsked, device: str) -> list[str]:
    """The kinds to probe, with a sentence about the cards of each."""
    from calibrate.executors.cards import simulated_as, spelled
    from calibrate.record.measurement import RecordedCardKind

    found = machines.kinds(device)
    for sentence in machines.left_out():
        console.notify(sentence)
    named = {spelled(kind): kind for kind in found} | {kind: kind for kind in found}
    kinds = tuple(named.get(kind, named.get(spelled(kind), kind)) for kind in asked.kinds) or tuple(found)
    if missing := [kind for kind in kinds if kind not in found]:
        raise NotMeasuredError(
            f"{machines.name} has no {', '.join(missing)}; it {machines.verb} {', '.join(found) or 'no kind of card'}"
        )
    if not kinds:
        raise NotMeasuredError(
            f"{machines.name} has no card that could be probed; a node of a cluster names the kind of its cards with a"
            " resource accelerator_type:NAME"
        )
    if device == RecordedCardKind.SIMULATED:
        for kind in kinds:
            simulated_as(kind)
    names = Counter(_file_name(kind).lower() for kind in kinds)
    if alike := [kind for kind in kinds if names[_file_name(kind).lower()] > 1]:
        raise UsageError(
            f"{' and '.join(alike)} would be written to one file; choose one with --cards, and declare one name on all"
            " nodes of a cluster"
        )
    for kind in kinds:
        hosts = dict.fromkeys(place.host for place in found[kind])
        console.notify(f"{kind}: {len(found[kind])} worker{'s' * (len(found[kind]) > 1)} on {', '.join(hosts)}.")
    return list(kinds)


def _campaigns(kinds: list[str], device: str, campaigning: "Campaigning", folder: Path) -> "list[KindCampaign]":
    from calibrate.executors.remote import WorkerSetup
    from calibrate.fleet.campaigns import KindCampaign
    from calibrate.record.measurement import RecordedCardKind

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the folder {folder}: {error.strerror}; choose another path") from None
    scope, prefix = campaigning.scope, "simulated-" if device == RecordedCardKind.SIMULATED else ""
    return [
        KindCampaign(
            setup=WorkerSetup(device=device, kind=kind, system=scope.system, cap_method=campaigning.cap_method),
            output=folder / f"{prefix}{_file_name(kind)}-{scope.variant}.json",
        )
        for kind in kinds
    ]


def _file_name(kind: str) -> str:
    """A kind of card as a part of a file's name: whatever a node declares, it names no other folder."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", kind).strip(".") or "card"


def _run(
    campaigns: "list[KindCampaign]", campaigning: "Campaigning", workers: "OpenWorkers", lines: TextIO | None
) -> int:
    from calibrate.campaign.recording import InterruptedCampaignError
    from calibrate.fleet.campaigns import run_campaigns
    from calibrate.fleet.updates import Failed
    from calibrate.fleet.views import fleet_view, print_line

    try:
        with fleet_view(lines) as tell:
            ended = run_campaigns(campaigns, campaigning, workers, tell)
    except InterruptedCampaignError as interruption:
        console.notify(str(interruption))
        if lines is not None:
            print_line(lines, {"error": {"exit_code": int(Exit.INTERRUPTED), "message": str(interruption)}})
        return Exit.INTERRUPTED
    return next((one.exit_code for one in ended if isinstance(one, Failed)), Exit.OK)
