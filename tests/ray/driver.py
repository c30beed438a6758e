"""`calibrate` with the workers of a test: `python -m tests.ray.driver WORKER WRITE ARGUMENTS`.

It kills itself in the middle of the given write of a journal; -1 for never.
"""

import sys

from acestep.cli import console
from calibrate.campaign import journal, probers
from calibrate.campaign.boundary import Method
from calibrate.cli import cli
from calibrate.executors.ray_cluster import RayCluster
from tests.killing import Killing
from tests.ray import workers


def main(worker: str, write: int) -> None:
    RayCluster.worker = getattr(workers, worker)
    if worker == "FakeGpuWorker":
        # The forecasts of a real card need torch and minutes.
        probers.method_for = lambda device: Method()
    if write >= 0:
        journal.os = Killing(write, 0.5)  # type: ignore[attr-defined, assignment]
    console.run_and_exit(cli)


if __name__ == "__main__":
    worker, write = sys.argv[1:3]
    del sys.argv[1:3]
    main(worker, int(write))
