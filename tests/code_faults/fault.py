"""A change of the code that costs memory or time, and how it is to be found."""

from typing import NamedTuple

from ci.findings import GateVerdict


class CodeFault(NamedTuple):
    """A change of one line that costs memory, or hides that it does.

    `stage` and `component` are what the gate is to name, one of the `rules` finds it, and one song of `song_s` seconds
    is enough where that is given, on a card of `card_gib`, thought of by the language model `lm` if that is given.
    `scenario` names the only scenario that is needed.
    """

    name: str
    file: str
    before: str
    after: str
    stage: str
    component: str
    needs_int8: bool = False
    rules: tuple[str, ...] = ("G301", "G302")
    verdict: GateVerdict = GateVerdict.REGRESSED
    song_s: int = 0
    lm: str = ""
    card_gib: int = 8
    scenario: str = ""
