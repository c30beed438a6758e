"""What happens when somebody uses the page: which event is answered by whom."""

from typing import Any

import gradio as gr

from acestep.ui.choices import Choices
from acestep.ui.connection import RESTORED, connection_js
from acestep.ui.inputs import GUARDED, LIMITED, OF_TASKS, SETTINGS, SONG, WISH
from acestep.ui.listener import Listener
from acestep.ui.page import Parts
from acestep.ui.runs import MADE, RUNNING, STOPPED_AT_ONCE, Runs
from acestep.ui.studio import Studio
from acestep.ui.words import Words

AT_ONCE: dict[str, Any] = {"queue": False, "api_visibility": "private"}
"""Events that are answered while a run goes on, and are nobody's business but the page's."""

BESIDE: dict[str, Any] = {"concurrency_limit": None}
"""Events that may have warnings, which only go through the queue, and wait for nothing there."""

SETTLED = (*WISH, "warnings")


def wire(page: Any, studio: Studio, words: Words, parts: Parts) -> None:
    """Connect the components of a page."""
    listener = Listener(studio.sessions, words, parts)
    runs = Runs(studio, words, parts)
    page.unload(listener(runs.leave, (), ())["fn"])
    page.load(fn=None, js=connection_js(words), outputs=[parts[name] for name in RESTORED], **AT_ONCE)
    _wire_runs(runs, listener, parts, studio)
    _wire_choices(Choices(studio, words, parts), listener, parts, page)


def _wire_runs(runs: Runs, listener: Listener, parts: Parts, studio: Studio) -> None:
    # Somebody who stopped a run that waits may start another: neither may drop the other's end.
    every: dict[str, Any] = {"trigger_mode": "multiple"}
    announced = parts["generate"].click(**listener(runs.announce, (), RUNNING, **AT_ONCE))
    over = announced.success(
        **listener(
            runs.generate,
            SONG,
            MADE,
            after=studio.rest,
            shown=False,
            api_name="generate",
            concurrency_limit=1,
            **every,
        )
    )
    # One of the two always runs, and never both. `then` is left out by gradio's page after a failure.
    for ended in (over.success, over.failure):
        ended(**listener(runs.finish, (), RUNNING, **every, **AT_ONCE))
    parts["timer"].tick(**listener(runs.poll, (), ("progress",), **AT_ONCE))
    # The browser answers the click itself, before it asks the server, which may be computing.
    parts["cancel"].click(fn=None, js=runs.stopping_js(), outputs=[parts[name] for name in STOPPED_AT_ONCE], **AT_ONCE)
    parts["cancel"].click(**listener(runs.stop, (), RUNNING, **AT_ONCE))


def _wire_choices(choices: Choices, listener: Listener, parts: Parts, page: Any) -> None:
    of_tier = ("tier", "batch", "duration")
    # Of a list, opening it and leaving it is an input too: only what was selected counts.
    parts["tier"].select(**listener(choices.tier, of_tier, (*SETTLED, "card_panel"), api_name="tier", **BESIDE))
    parts["init_lm"].input(**listener(choices.init_lm, WISH, SETTLED, api_visibility="private", **BESIDE))
    # One event for each: an event that still runs drops its next trigger, whichever control that comes from.
    named: dict[str, Any] = {"api_name": "settings"}
    for name in SETTINGS:
        if name not in ("tier", "init_lm"):
            changed = parts[name].select if isinstance(parts[name], gr.Dropdown) else parts[name].input
            changed(**listener(choices.settings, WISH, SETTLED, **named, **BESIDE))
            named = {"api_visibility": "private"}
    gr.on(
        [parts["batch"].change, parts["think"].change],
        trigger_mode="always_last",
        **listener(choices.limits, WISH, LIMITED, api_name="limits", **BESIDE),
    )
    parts["task"].change(**listener(choices.task, ("task",), OF_TASKS, **AT_ONCE))
    gr.on(
        [
            *(parts[name].change for name in GUARDED),
            *(parts[name].blur for name in ("caption", "lyrics")),
            page.load,
        ],
        trigger_mode="always_last",
        **listener(choices.guard, SONG, ("guard_panel",), api_name="guard", **BESIDE),
    )
