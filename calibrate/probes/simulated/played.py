"""A trace that is replayed under many caps, and the work of its stages."""

import msgspec

from calibrate.probes.simulated.loops import Loop
from calibrate.probes.simulated.replay import Player, ReplayResult
from calibrate.probes.simulated.trace import Trace
from calibrate.probes.simulated.under_caps import UnderCaps
from calibrate.probes.work import Work


class Played:
    """Replays a trace once for all caps under which the allocator does the same."""

    def __init__(self, trace: Trace, loops: tuple[Loop, ...], work: dict[str, Work]) -> None:
        self.trace = trace
        self.loops = loops
        self.work = work
        self._outcomes: UnderCaps[ReplayResult] = UnderCaps()
        self._ends: UnderCaps[Player] = UnderCaps()

    def under(self, cap_bytes: int) -> ReplayResult:
        """Replay it under a cap."""
        found = self._outcomes.find(cap_bytes)
        if found is None:
            _, found = self._play(cap_bytes)
        return msgspec.structs.replace(found, cap_bytes=cap_bytes)

    def end(self, cap_bytes: int) -> Player:
        """Return the state in which a replay under a cap ends, for another trace to go on from."""
        player = self._ends.find(cap_bytes)
        if player is None:
            player, _ = self._play(cap_bytes)
            self._ends.keep(player.held, player.denied, player)
        return player

    def _play(self, cap_bytes: int) -> tuple[Player, ReplayResult]:
        player = Player(self.trace, cap_bytes)
        found = player.play(self.loops)
        self._outcomes.keep(player.held, player.denied, found)
        return player, found
