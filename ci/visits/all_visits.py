"""The visits that the gate makes."""

from acestep.units import GIB, gib_to_bytes
from ci.visits.visit import Asked, Visit, Wanted, Way

_SONGS = Asked(batch=2, duration_s=20.0)
_LONG_WORDS = Asked(batch=3, duration_s=17.0, lyrics="사랑해 " * 700, language="ko")
_PLANNED = Asked(batch=2, duration_s=12.0, think=True)
_STOPPED = Asked(batch=2, duration_s=20.0, wanted=Wanted.STOPPED)

VISITS = (
    # The same request again and again, with others between them: what stays of one is seen in the next.
    Visit(
        name="an afternoon on the page",
        way=Way.PAGE,
        card_gib=8,
        free_bytes=gib_to_bytes(6.9),
        asked=(_SONGS, _LONG_WORDS, _SONGS, _PLANNED, _PLANNED),
    ),
    Visit(
        name="more than the table allows",
        way=Way.COMMAND,
        card_gib=8,
        free_bytes=gib_to_bytes(6.9),
        asked=(Asked(batch=8, duration_s=25.0), Asked(batch=1, duration_s=55.0)),
        limited=True,
    ),
    # Too little for the offload of the plan, and too little for all songs at once.
    Visit(
        name="a card that others use",
        way=Way.SERVER,
        card_gib=16,
        free_bytes=gib_to_bytes(3.04),
        asked=(Asked(batch=8, duration_s=20.0), _SONGS),
    ),
    Visit(
        name="a large card",
        way=Way.PYTHON,
        card_gib=24,
        free_bytes=22 * GIB,
        asked=(_PLANNED, _SONGS, _STOPPED, _SONGS, _PLANNED, _PLANNED),
    ),
    Visit(
        name="a recording in words",
        way=Way.COMMAND,
        card_gib=8,
        free_bytes=gib_to_bytes(6.9),
        asked=(Asked(batch=1, duration_s=30.0, wanted=Wanted.WORDS),),
    ),
)
"""Together they go every way, and through every decision between a request and its songs."""
