"""Cards of a Ray cluster: Ray starts a worker on each, and carries its messages. Ray is imported only here."""

import math
import os
import re
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from acestep.errors import NotMeasuredError, first_line
from acestep.units import GIB
from calibrate.executors.card_worker import CardWorker
from calibrate.executors.cards import one_name_each
from calibrate.executors.local import MOST_PROCESSES
from calibrate.executors.questions import ProbeTask
from calibrate.executors.remote import Place, TaskAnswered, WorkerEvent, WorkerLost, WorkerOpened, WorkerSetup
from calibrate.record.measurement import RecordedCardKind

TYPE_PREFIX: Final = "accelerator_type:"
"""Ray's name for the resource that says which kind of card a node has."""

RECOGNISED: Final = "ray.io/accelerator-type"
"""Ray's label with the kind of card that it recognised, which it also adds to the declared resources."""

SIMULATED_BYTES: Final = GIB
"""Main memory that Ray sets aside for a worker that simulates; its traces take up to this."""

GROWING_S: Final = 60.0
"""How long to wait for a card: a cluster that grows by itself needs some time."""

AUTO: Final = "auto"
"""Ray's word for the cluster of this machine."""

LAST_PORT: Final = 65535

ANSWERS_S: Final = 10.0
"""How long a machine may take to accept a connection."""

_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")

CLOSING_S: Final = 20.0
"""How long a worker of a real card may take to unload its model."""


class RayCluster:
    """A connection to a running cluster; `worker` is the class that answers on its nodes."""

    name, verb = "the cluster", "declares"
    worker: type[CardWorker] = CardWorker

    def __init__(self, address: str) -> None:
        """Raises `NotMeasuredError` if no cluster answers there; Ray has to be installed."""
        import ray

        # The driver sends no statistics; those of the cluster are its owner's choice.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # How often to try to connect, which takes half a minute; Ray tries for a quarter of an hour.
        os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "1")
        if address == AUTO:
            address = os.environ.get("RAY_ADDRESS") or AUTO
        where = "on this machine" if address == AUTO else f"at {address}"
        self.ray = ray
        try:
            _require_listener(address)
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise NotMeasuredError(
                f"no Ray cluster answers {where} ({first_line(error)}); start one with `ray start --head`, or give"
                " its address with --address"
            ) from None

    def kinds(self, device: str) -> dict[str, list[Place]]:
        """Every kind of card that the nodes declare, by name, and the cards of each; no card has two names."""
        found: dict[str, list[Place]] = {}
        for node in self._nodes():
            if places := _places_on(node, device):
                for kind in kinds_on(node):
                    found.setdefault(kind, []).extend(places)
        return dict(sorted(found.items()))

    def left_out(self) -> list[str]:
        """Return a sentence for every host with GPUs of a kind that Ray does not recognise and no resource declares."""
        return [
            f"{node['NodeManagerAddress']} has GPUs whose kind it does not declare, so they are left out; start it"
            """ with, for example, `ray start --resources '{"accelerator_type:RTX-4090": 1}'`."""
            for node in self._nodes()
            if node["Resources"].get("GPU") and not any(name.startswith(TYPE_PREFIX) for name in node["Resources"])
        ]

    def workers(self, setup: WorkerSetup) -> "RayWorkers":
        """The workers of one kind of card."""
        return RayWorkers(self, setup)

    def places_of(self, kind: str, device: str) -> list[Place]:
        """The cards of one kind that are there now."""
        return self.kinds(device).get(kind, [])

    def cores(self) -> int:
        """The number of cores of all nodes, as Ray counts them."""
        return sum(int(node["Resources"].get("CPU", 0)) for node in self._nodes())

    def close(self) -> None:
        """End the connection, and with it every worker."""
        self.ray.shutdown()

    def _nodes(self) -> list[dict[str, Any]]:
        try:
            return [node for node in self.ray.nodes() if node["Alive"]]
        except (ConnectionError, RuntimeError, self.ray.exceptions.RayError) as error:
            raise _gone(error) from None


class RayWorkers:
    """The workers of one kind of card in a cluster."""

    patience_s = GROWING_S

    def __init__(self, cluster: RayCluster, setup: WorkerSetup) -> None:
        self._cluster = cluster
        self._ray = cluster.ray
        self._setup = setup
        self._actors: dict[Place, Any] = {}
        self._expected: dict[Any, tuple[Place, type[WorkerOpened | TaskAnswered]]] = {}

    def places(self) -> Sequence[Place]:
        return self._cluster.places_of(self._setup.kind, self._setup.device)

    def start(self, place: Place) -> None:
        actor = self._ray.remote(self._cluster.worker).options(**self._options(place))
        self._actors[place] = actor.remote(msgspec.json.encode(self._setup))
        self._expected[self._actors[place].report.remote()] = place, WorkerOpened

    def ask(self, place: Place, task: ProbeTask) -> None:
        self._expected[self._actors[place].answer.remote(msgspec.json.encode(task))] = place, TaskAnswered

    def stop(self, place: Place) -> None:
        self._forget(place)
        if (actor := self._actors.pop(place, None)) is not None:
            self._end([actor])

    def next_event(self, timeout_s: float) -> WorkerEvent | None:
        if not self._expected:
            time.sleep(timeout_s)
            return None
        try:
            done, _ = self._ray.wait(list(self._expected), num_returns=1, timeout=timeout_s)
        except self._ray.exceptions.RayError as error:
            raise _gone(error) from None
        if not done:
            return None
        place, event = self._expected.pop(done[0])
        try:
            said = self._ray.get(done[0])
        except self._ray.exceptions.RayError as error:
            self.stop(place)
            return WorkerLost(place=place, reason=lost_because(str(error)))
        return (
            WorkerOpened(place=place, report=said) if event is WorkerOpened else TaskAnswered(place=place, answer=said)
        )

    def close(self) -> None:
        actors, self._actors, self._expected = list(self._actors.values()), {}, {}
        self._end(actors)

    def _end(self, actors: Sequence[Any]) -> None:
        if not self._ray.is_initialized():
            return
        if self._setup.device != RecordedCardKind.SIMULATED and actors:
            # The processes of a real card end before their worker does.
            closing = [actor.close.remote() for actor in actors]
            self._ray.wait(closing, num_returns=len(closing), timeout=CLOSING_S)
        for actor in actors:
            self._ray.kill(actor)

    def _forget(self, place: Place) -> None:
        self._expected = {ref: of for ref, of in self._expected.items() if of[0] != place}

    def _options(self, place: Place) -> Mapping[str, object]:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        simulated = self._setup.device == RecordedCardKind.SIMULATED
        needs = {"num_cpus": 1, "memory": SIMULATED_BYTES} if simulated else {"num_cpus": 0, "num_gpus": 1}
        return {
            **needs,
            "accelerator_type": self._setup.kind,
            "max_restarts": 0,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(place.node, soft=False),
        }


def _require_listener(address: str) -> None:
    """Raise `OSError` if nothing listens at an address, `ValueError` for one that is not such as 10.0.0.1:6379."""
    host, _, port = address.rpartition(":")
    if address == AUTO:
        return
    if not host or "/" in host or not port.isdecimal() or int(port) > LAST_PORT:
        raise ValueError("an address is HOST:PORT, such as 10.0.0.1:6379")
    socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWERS_S).close()


def lost_because(text: str) -> str:
    """Return the reason in an error of Ray: the last line of a traceback, else the first line."""
    lines = [_COLOUR.sub("", line) for line in text.splitlines() if line.strip()]
    if any(line.startswith("  File ") for line in lines):
        return lines[-1].strip().removeprefix(f"{NotMeasuredError.__module__}.{NotMeasuredError.__name__}: ")
    return lines[0] if lines else "it gave no reason"


def _gone(error: Exception) -> NotMeasuredError:
    return NotMeasuredError(f"the Ray cluster does not answer any more ({first_line(error)}); go on with --resume")


def kinds_on(node: Mapping[str, Any]) -> list[str]:
    """The kinds of card of a node; what it declares goes before another name of it that Ray recognised."""
    named = [name.removeprefix(TYPE_PREFIX) for name in node["Resources"] if name.startswith(TYPE_PREFIX)]
    return one_name_each(named, (node.get("Labels") or {}).get(RECOGNISED, ""))


def _places_on(node: Mapping[str, Any], device: str) -> list[Place]:
    """The cards of a node; one that simulates has as many as it has cores, up to a limit."""
    has = node["Resources"]
    cards = min(int(has.get("CPU", 0)), MOST_PROCESSES) if device == RecordedCardKind.SIMULATED else has.get("GPU", 0)
    # Several nodes may run on one host.
    host = f"{node['NodeManagerHostname'] or node['NodeManagerAddress']}/{node['NodeID'][:6]}"
    return [Place(node=node["NodeID"], host=host, number=number + 1) for number in range(math.floor(cards))]
