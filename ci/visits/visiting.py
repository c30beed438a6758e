"""Makes a visit on a simulated machine."""

from pathlib import Path
from tempfile import TemporaryDirectory

from calibrate.probes.simulated.memo import Regions
from ci.visits.machine import Machine
from ci.visits.visit import Visit, Visited
from ci.visits.ways import WAYS


def visited(visit: Visit, known: Regions) -> Visited:
    """Return what came of a visit; raises what its requests raise, and `NotMeasuredError` where nothing can be seen."""
    machine = Machine(visit, known)
    with TemporaryDirectory() as place:
        with machine.running(Path(place)):
            offers = WAYS[visit.way](visit.asked, Path(place))
        return machine.report(offers)
