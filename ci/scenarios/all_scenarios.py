"""The scenarios that the gate plays."""

from acestep.units import GIB, gib_to_bytes
from ci.scenarios.scenario import EntryPoint, RequestKind, Scenario, ScenarioRequest

_SONGS = ScenarioRequest(batch=2, duration_s=20.0)
_LONG_WORDS = ScenarioRequest(batch=3, duration_s=17.0, lyrics="사랑해 " * 700, language="ko")
_PLANNED = ScenarioRequest(batch=2, duration_s=12.0, think=True)
_STOPPED = ScenarioRequest(batch=2, duration_s=20.0, kind=RequestKind.STOPPED)
_OTHERWISE = ScenarioRequest(batch=2, duration_s=12.0, think=True, language="ja", kind=RequestKind.OTHERWISE)
_COVER = ScenarioRequest(batch=2, duration_s=20.0, kind=RequestKind.COVER)
_REPAINT = ScenarioRequest(batch=2, duration_s=20.0, kind=RequestKind.REPAINT)

SCENARIOS = (
    # The same request again and again, with others between them: what stays of one is seen in the next.
    Scenario(
        name="an afternoon on the page",
        entry=EntryPoint.PAGE,
        card_gib=8,
        free_bytes=gib_to_bytes(6.9),
        requests=(_SONGS, _LONG_WORDS, _SONGS, _PLANNED, _PLANNED),
    ),
    Scenario(
        name="more than the table allows",
        entry=EntryPoint.COMMAND,
        card_gib=8,
        free_bytes=gib_to_bytes(6.9),
        requests=(
            ScenarioRequest(batch=8, duration_s=25.0),
            ScenarioRequest(batch=1, duration_s=55.0),
            ScenarioRequest(batch=1, duration_s=3.0),
        ),
        limited=True,
    ),
    # Too little for the offload of the plan, and too little for all songs at once.
    Scenario(
        name="a card that others use",
        entry=EntryPoint.SERVER,
        card_gib=16,
        free_bytes=gib_to_bytes(3.04),
        requests=(ScenarioRequest(batch=8, duration_s=20.0), _SONGS, _COVER, _SONGS, _COVER),
    ),
    Scenario(
        name="a large card",
        entry=EntryPoint.PYTHON,
        card_gib=24,
        free_bytes=22 * GIB,
        requests=(_PLANNED, _SONGS, _STOPPED, _OTHERWISE, _SONGS, _COVER, _REPAINT, _PLANNED, _PLANNED),
    ),
    # Nothing predicts what fits, so that only running out of memory shows it.
    Scenario(
        name="a card without a prediction",
        entry=EntryPoint.PYTHON,
        card_gib=16,
        free_bytes=gib_to_bytes(3.0),
        requests=(ScenarioRequest(batch=2, duration_s=25.0),) * 2,
        limited=True,
    ),
    Scenario(
        name="a recording in words",
        entry=EntryPoint.COMMAND,
        card_gib=8,
        free_bytes=gib_to_bytes(6.9),
        requests=(ScenarioRequest(batch=1, duration_s=30.0, kind=RequestKind.WORDS),),
    ),
)
"""Together they go every way, and through every decision between a request and its songs."""
