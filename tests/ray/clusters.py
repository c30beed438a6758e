"""A Ray cluster on this machine, of nodes that declare cards; nothing listens outside of loopback."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.command_lines import ROOT

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "RAY_enable_metrics_collection": "0",
    "RAY_BACKEND_LOG_LEVEL": "error",
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "500",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "PYTHONPATH": str(ROOT),
    "OMP_NUM_THREADS": "1",
}
"""No statistics, no metrics, and tests can be imported by the workers."""

STORE_BYTES = 100 * 2**20
MEMORY_BYTES = 8 * 2**30


class LocalCluster:
    """Starts nodes and removes them.

    `LIE` in a node's environment is what its workers lie about, and `HOLD` names a file that they wait for.
    """

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self._cluster = Cluster()
        # The head has no cards, so that every other node can be lost.
        self._add(num_cpus=0)

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def add(self, *kinds: str, cpus: int = 1, gpus: int = 0, lie: str = "", hold: Path | None = None) -> Any:
        resources = {f"accelerator_type:{kind}": 1 for kind in kinds}
        environ = {"LIE": lie, "HOLD": str(hold or "")}
        return self._add(num_cpus=cpus, num_gpus=gpus, resources=resources, env_vars=environ)

    def remove(self, *nodes: Any) -> None:
        """Kill nodes, and wait until the cluster knows that they are gone."""
        for node in nodes:
            self._cluster.remove_node(node, allow_graceful=False)
        self._cluster.wait_for_nodes()

    def shutdown(self) -> None:
        self._cluster.shutdown()

    def _add(self, **args: Any) -> Any:
        return self._cluster.add_node(
            node_ip_address="127.0.0.1",
            object_store_memory=STORE_BYTES,
            memory=MEMORY_BYTES,
            include_dashboard=False,
            include_log_monitor=False,
            **args,
        )


@contextmanager
def local_cluster(nodes: Sequence[Sequence[str]] = ()) -> Iterator[LocalCluster]:
    """A cluster with a node for each list of declared kinds; all its processes have ended when the context is left."""
    # Ray's sockets need a short path.
    place = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    before = dict(os.environ)
    os.environ.update(QUIET | {"RAY_TMPDIR": str(place)})
    try:
        cluster = LocalCluster()
        try:
            for kinds in nodes:
                cluster.add(*kinds)
            yield cluster
        finally:
            cluster.shutdown()
    finally:
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(place, ignore_errors=True)
