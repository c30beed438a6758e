"""Several virtual cards in one machine: `calibrate run --cards all` gives each a process that sees it alone."""

import json

from tests.virtual.processes import printed, running
from virtual_card.card import GIB, VirtualCard

TWIN, OTHER = VirtualCard(board_bytes=8 * GIB), VirtualCard(board_bytes=24 * GIB, capability=(9, 0))

OPEN_ALL = """
import json, msgspec
from acestep.budgets import System
from calibrate.executors.local_cards import LocalMachine
from calibrate.executors.remote import WorkerOpened, WorkerReport, WorkerSetup
from calibrate.probes.base import CapMethod

machine, found = LocalMachine(), {}
for kind, places in machine.kinds("cuda").items():
    method = CapMethod.FRACTION
    workers = machine.workers(WorkerSetup(device="cuda", kind=kind, system=System.LINUX, cap_method=method))
    for place in places:
        workers.start(place)
    found[kind] = {}
    while len(found[kind]) < len(places):
        event = workers.next_event(1)
        if event is not None:
            assert isinstance(event, WorkerOpened), event
            report = msgspec.json.decode(event.report, type=WorkerReport)
            found[kind][event.place.node] = report.card.uuid, report.device
    workers.close()
print(json.dumps(found))
"""


def test_each_card_has_a_process_that_sees_it_alone() -> None:
    with running(cards=(TWIN, OTHER, TWIN)) as machine:
        kinds = json.loads(printed(machine, OPEN_ALL))
    assert [len(cards) for cards in kinds.values()] == [2, 1]
    opened = [(asked, *seen) for cards in kinds.values() for asked, seen in cards.items()]
    assert all(asked == seen for asked, seen, _ in opened)
    assert len({seen for _, seen, _ in opened}) == 3
    assert {device for _, _, device in opened} == {"virtual"}
