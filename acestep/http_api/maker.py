"""What the server needs of the model that makes the songs."""

from collections.abc import Sequence
from typing import Any, Protocol

from acestep.adapter_memory import AdapterMemory
from acestep.adapters.choice import Adapter
from acestep.limits.plan import Overrides, Plan
from acestep.request import Request
from acestep.serving.visits import Visit


class Maker(Protocol):
    """Makes songs, as `acestep.serving.song_maker.SongMaker` does."""

    overrides: Overrides
    adapters: tuple[Adapter, ...]
    adapter_memory: AdapterMemory

    def plan(self, overrides: Overrides, request: Request | None = None) -> Plan:
        """Return the plan of this machine's card."""

    def generate(
        self,
        request: Request,
        plan: Plan,
        audio_format: str,
        visit: Visit,
        *,
        unasked: bool,
        mp3_bitrate: int | None = None,
        adapters: Sequence[Adapter] | None = None,
    ) -> dict[str, Any]:
        """Write the songs to the visit's folder and return the document about them; no `adapters`: the server's own."""

    def rest(self) -> None:
        """Free what an interrupted run left behind."""

    def stop(self) -> None:
        """Stop the current run."""
