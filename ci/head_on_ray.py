"""The processes with the code of a change on the machines of a Ray cluster; their files are sent along."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from acestep.errors import NotMeasuredError, first_line
from calibrate.executors import ray_process
from calibrate.executors.ray_cluster import SIMULATED_BYTES, RayCluster
from calibrate.executors.ray_process import LineProcess, packed
from calibrate.fingerprint import LIBRARIES, library_versions
from ci.head_channel import MOST_SECONDS, PASSED_ON, HeadGoneError, HeadLostError
from ci.two_judges import JUDGE_PARTS

TIDYING_S: Final = 2
STARTING_S: Final = 120
"""How long a process may wait for a free core."""


class RayPlaces:
    """The cores of a cluster; every cell gets a process of its own, as far as they suffice."""

    each_cell_apart = True

    def __init__(self, cluster: RayCluster) -> None:
        """Raises `NotMeasuredError` for a cluster without cores for the probes."""
        self._cluster = cluster
        self._archives: dict[Path, Any] = {}
        if not self.most:
            raise NotMeasuredError("the Ray cluster has no cores for probes; start a node with --num-cpus 1 or more")

    @property
    def most(self) -> int:
        return self._cluster.cores()

    def start(self, command: Sequence[str], search: Sequence[Path]) -> "RayChannel":
        return RayChannel(self._cluster, self._sent(*search), command[1:])

    def _sent(self, head: Path, judge: Path) -> Any:
        """The files of both in the cluster, once."""
        if head not in self._archives:
            archive = packed({"head": (head, JUDGE_PARTS), "judge": (judge, JUDGE_PARTS)})
            self._archives[head] = self._cluster.ray.put(archive)
        return self._archives[head]


class RayChannel:
    """A process on a machine of the cluster."""

    def __init__(self, cluster: RayCluster, archive: Any, arguments: Sequence[str]) -> None:
        self._ray = cluster.ray
        # Judge and change need not be installed on the machines.
        self._ray.cloudpickle.register_pickle_by_value(ray_process)
        options = {"num_cpus": 1, "memory": SIMULATED_BYTES, "max_restarts": 0}
        remote = self._ray.remote(LineProcess).options(**options)
        self._actor = remote.remote(archive, ["head", "judge"], list(arguments), PASSED_ON)
        self._compared = False

    def ask(self, line: bytes) -> bytes:
        """As `HeadChannel.ask`; raises `NotMeasuredError` for a machine with other libraries."""
        try:
            if not self._compared:
                _require_libraries(self._ray.get(self._actor.libraries.remote(LIBRARIES), timeout=STARTING_S))
                self._compared = True
            asked = self._actor.ask.remote(line)
            if not self._ray.wait([asked], timeout=MOST_SECONDS)[0]:
                raise HeadGoneError(f"a process that simulates took over {MOST_SECONDS} s")
            answer = bytes(self._ray.get(asked))
        except self._ray.exceptions.RayError as error:
            raise HeadLostError(first_line(error)) from None
        if not answer.endswith(b"\n"):
            raise HeadGoneError("a process that simulates has ended on a machine of the cluster")
        return answer

    def close(self) -> None:
        if self._ray.is_initialized():
            # An idle process removes its files; one at work is ended.
            self._ray.wait([self._actor.close.remote()], timeout=TIDYING_S)
            self._ray.kill(self._actor)


def _require_libraries(there: Mapping[str, str]) -> None:
    here = library_versions()
    unlike = [name for name in LIBRARIES if there[name] != here[name]]
    if unlike:
        different = ", ".join(f"{name} {there[name] or 'missing'} instead of {here[name]}" for name in unlike)
        raise NotMeasuredError(
            f"a machine of the cluster has {different}, so its answers cannot be compared; install the same versions"
            " there"
        )
