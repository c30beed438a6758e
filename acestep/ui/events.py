"""The events of the page and their handlers."""

import json
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import gradio as gr

from acestep.request import Request, Task
from acestep.serving.failures import MissingCaptionError, MissingSourceError
from acestep.serving.uploads import uploaded_clip
from acestep.serving.visits import STOPPING, RunProgress, StoppedError, Visit
from acestep.ui.archive import forget_packed
from acestep.ui.cards import songs_html
from acestep.ui.choices import Choices
from acestep.ui.form import (
    GUARDED,
    KEPT,
    LIMITED,
    OF_TASKS,
    PLAN_OF,
    SETTINGS,
    SONG_INPUTS,
    WISH,
    Form,
    form_request,
    plan_values,
    request_to_plan,
    song_from,
)
from acestep.ui.gallery import Gallery
from acestep.ui.listener import Changes, Listener
from acestep.ui.page import Parts
from acestep.ui.places import Places
from acestep.ui.scripts import (
    ACTED_JS,
    KEEP_JS,
    PLAN_ASKED_JS,
    PLAN_CHANGED_JS,
    PLAN_MADE_JS,
    RESTORED,
    VISITOR_JS,
    connection_js,
    notify_js,
    plan_js,
    songs_js,
)
from acestep.ui.settings import Controls
from acestep.ui.songs import ACTED, FILLED, Songs
from acestep.ui.studio import Studio
from acestep.ui.views import failure_html, progress_html, warnings_html
from acestep.ui.words import PageText

RUNNING = ("generate", "plan", "cancel", "progress", "failure", "timer")
"""The components that change when a run begins and ends."""

RUN, PLAN = "generate", "plan"
"""The API's names of a run that makes songs and of one that only plans them."""

STOPPED_AT_ONCE = ("progress", "cancel")
"""The components that the browser itself changes when the stop button is clicked."""

MADE = ("warnings", "history", "files")
"""The components that a run fills."""

OF_PLAN = ("think", "planned", *PLAN_OF, "warnings")
"""The components that a plan fills."""

_Done = TypeVar("_Done")


class Runs:
    """Handlers of a run, from the click to the songs."""

    def __init__(self, studio: Studio, gallery: Gallery, places: Places, words: PageText, parts: Parts) -> None:
        self._studio = studio
        self._gallery = gallery
        self._places = places
        self._words = words
        self._parts = parts

    def announce(self, session: Visit) -> Changes:
        """A run joins the queue."""
        session.announce()
        self._places.join(session)
        return self._running(session)

    def generate(self, session: Visit, *values: Any) -> Changes:
        """Make the songs."""

        def make() -> dict[str, Any]:
            form, controls = _complete(values)
            request = form_request(form, uploaded_clip)
            return self._studio.generate(
                request, controls, form.audio_format, session, self._gallery.keep, adapter=form.adapter
            )

        began = time.monotonic()
        document = self._run(session, make)
        if document is None:
            return {self._parts["warnings"]: ""}
        count = len(document["songs"])
        songs = self._gallery.describe(session.made[:count], time.monotonic() - began)
        session.made = [*songs, *session.made[count:]]
        return {
            self._parts["warnings"]: warnings_html(document["warnings"], self._words),
            self._parts["history"]: songs_html(session.made, self._words),
            self._parts["files"]: [str(song.served) for song in songs],
        }

    def plan(self, session: Visit, *values: Any) -> Changes:
        """Let the language model plan the song, and show the plan."""

        def think() -> tuple[Request, tuple[str, ...]]:
            form, controls = _complete(values)
            request = request_to_plan(form, uploaded_clip)
            return self._studio.plan_song(request, controls, session, adapter=form.adapter)

        found = self._run(session, think)
        if found is None:
            return {self._parts["warnings"]: ""}
        planned, warnings = found
        shown = {self._parts[name]: value for name, value in plan_values(planned).items()}
        return shown | {self._parts["warnings"]: warnings_html(warnings, self._words)}

    def _run(self, session: Visit, work: Callable[[], _Done]) -> _Done | None:
        """Return what the work of a run gives; None if the visitor stopped it."""
        self._places.leave(session)
        try:
            with session.run():
                return work()
        except StoppedError:
            pass
        # Outside the except block, whose traceback keeps tensors of the run alive.
        self._studio.rest()
        return None

    def finish(self, session: Visit) -> Changes:
        """Show that a run is over, for whatever reason."""
        session.settle()
        if not session.busy:
            self._places.leave(session, with_all=True)
        return self._running(session)

    def poll(self, session: Visit) -> Changes:
        """Return the progress."""
        return {self._parts["progress"]: self._progress(session)}

    def stop(self, session: Visit) -> Changes:
        """Stop this visit's runs."""
        session.stop()
        self._places.leave(session, with_all=True)
        return self._running(session) | {self._parts["cancel"]: gr.update(interactive=False)}

    def stopping_js(self) -> str:
        """Return a JavaScript function for `STOPPED_AT_ONCE`: the browser's immediate reaction to the stop button."""
        said, off = (
            json.dumps(progress_html(RunProgress(stage=STOPPING), self._words)),
            json.dumps(gr.update(interactive=False)),
        )
        # The progress bar keeps its width.
        width = 'document.querySelector("#progress .bar div")?.style.width || "0%"'
        return f'() => [{said}.replace("width:0%", "width:" + ({width})), {off}]'

    def leave(self, session: Visit) -> None:
        """Stop the runs of a visitor who has left, because others wait, and delete the files that were uploaded."""
        session.stop()
        self._places.leave(session, with_all=True)
        self._studio.uploads.leave(session.name)

    def _running(self, session: Visit) -> Changes:
        return {
            self._parts["generate"]: gr.update(interactive=not session.busy),
            self._parts["plan"]: gr.update(interactive=not session.busy),
            self._parts["cancel"]: gr.update(interactive=session.busy),
            self._parts["progress"]: self._progress(session),
            self._parts["failure"]: failure_html(session.failure, self._words),
            self._parts["timer"]: gr.Timer(active=session.busy),
        }

    def _progress(self, session: Visit) -> str:
        return progress_html(session.progress, self._words, self._places.of(session))


def _complete(values: Sequence[Any]) -> tuple[Form, Controls]:
    """Return the form and the settings of a run; raise an error if the form lacks what every song needs."""
    form, controls = song_from(values)
    if not form.caption.strip():
        raise MissingCaptionError("a song needs a caption: a few words about how it sounds")
    if form.task is not Task.TEXT2MUSIC and not form.source_audio:
        raise MissingSourceError(
            f"{form.task} works on a song that exists, and no source audio was given; add one,"
            f" or choose the task {Task.TEXT2MUSIC}"
        )
    return form, controls


AT_ONCE: dict[str, Any] = {"queue": False, "api_visibility": "private"}
"""Events that are answered during a run, and only called by the page itself."""

BESIDE: dict[str, Any] = {"concurrency_limit": None}
"""Events that may produce warnings, which only work through the queue; these events never wait there."""

SETTLED = (*WISH, "warnings", "plan")

OF_CARD = (*SETTLED, "card_panel")
"""The components that show a card and what it can do."""


def wire(page: Any, studio: Studio, gallery: Gallery, places: Places, words: PageText, parts: Parts) -> None:
    """Connect the components of a page."""
    listener = Listener(studio, words, parts)
    runs = Runs(studio, gallery, places, words, parts)
    songs = Songs(studio, gallery, words, parts)
    page.unload(listener(runs.leave, (), ())["fn"])
    page.unload(listener(forget_packed, (), ())["fn"])
    watch = connection_js(words, {"adapter": studio.adapters.names})
    restored = page.load(fn=None, js=watch, outputs=[parts[name] for name in RESTORED], **AT_ONCE)
    for script in (songs_js(words), plan_js(words), notify_js(words)):
        page.load(fn=None, js=script, **AT_ONCE)
    _wire_runs(runs, listener, parts, studio)
    _wire_songs(songs, listener, parts, page)
    choices = Choices(studio, words, parts)
    restored.then(**listener(choices.arrive, LIMITED, OF_CARD, **AT_ONCE))
    _wire_choices(choices, listener, parts, page)


def _wire_songs(songs: Songs, listener: Listener, parts: Parts, page: Any) -> None:
    page.load(**listener(songs.come_back, ("visitor",), ("history",), **AT_ONCE), js=VISITOR_JS)
    acted = parts["act"].change(**listener(songs.act, ("act",), ACTED, trigger_mode="multiple", **AT_ONCE))
    acted.success(fn=None, js=ACTED_JS, **AT_ONCE)
    parts["like"].upload(**listener(songs.load, ("like",), FILLED, **AT_ONCE))
    gr.on([parts[name].change for name in KEPT], fn=None, js=KEEP_JS, inputs=[parts[name] for name in KEPT], **AT_ONCE)


def _wire_runs(runs: Runs, listener: Listener, parts: Parts, studio: Studio) -> None:
    # A user who stopped a waiting run may start another: the end of neither may be dropped.
    every: dict[str, Any] = {"trigger_mode": "multiple"}
    # Songs and plans wait in one queue.
    queued: dict[str, Any] = {"after": studio.rest, "shown": False, "concurrency_limit": 1, "concurrency_id": "runs"}
    kept = [parts["planned"], parts["warnings"]]
    for button, run, filled in ((RUN, runs.generate, MADE), (PLAN, runs.plan, OF_PLAN)):
        announced = parts[button].click(**listener(runs.announce, (), RUNNING, **AT_ONCE))
        over = announced.success(**listener(run, SONG_INPUTS, filled, api_name=button, **queued, **every))
        # Exactly one of the two runs. gradio's page skips `then` after a failure.
        for ended in (over.success, over.failure):
            ended(**listener(runs.finish, (), RUNNING, **every, **AT_ONCE))
        if button == PLAN:
            announced.success(fn=None, js=PLAN_ASKED_JS, **every, **AT_ONCE)
            over.success(fn=None, js=PLAN_MADE_JS, outputs=kept, **every, **AT_ONCE)
    for name in PLAN_OF.values():
        changed = _changed_by_visitor(parts[name])
        changed(fn=None, js=PLAN_CHANGED_JS, inputs=[parts["planned"]], outputs=kept, **every, **AT_ONCE)
    parts["unplan"].click(fn=None, js="() => false", outputs=[parts["planned"]], **AT_ONCE)
    parts["timer"].tick(**listener(runs.poll, (), ("progress",), **AT_ONCE))
    # The browser reacts to the click itself, before it asks the server, which may be computing.
    parts["cancel"].click(fn=None, js=runs.stopping_js(), outputs=[parts[name] for name in STOPPED_AT_ONCE], **AT_ONCE)
    parts["cancel"].click(**listener(runs.stop, (), RUNNING, **AT_ONCE))


def _changed_by_visitor(part: Any) -> Any:
    """The event of a control that its visitor has changed."""
    # For a list, opening and leaving it count as input too, so only a selection is used.
    return part.select if isinstance(part, gr.Dropdown) else part.input


def _wire_choices(choices: Choices, listener: Listener, parts: Parts, page: Any) -> None:
    of_tier = ("tier", "batch", "duration")
    _changed_by_visitor(parts["tier"])(**listener(choices.tier, of_tier, OF_CARD, api_name="tier", **BESIDE))
    parts["init_lm"].input(**listener(choices.init_lm, WISH, SETTLED, api_visibility="private", **BESIDE))
    # One event for each control: a running event drops its next trigger, whichever control it comes from.
    named: dict[str, Any] = {"api_name": "settings"}
    for name in SETTINGS:
        if name not in ("tier", "init_lm"):
            _changed_by_visitor(parts[name])(**listener(choices.settings, WISH, SETTLED, **named, **BESIDE))
            named = {"api_visibility": "private"}
    gr.on(
        [parts["batch"].change, parts["think"].change],
        trigger_mode="always_last",
        **listener(choices.limits, WISH, (*LIMITED, "plan"), api_name="limits", **BESIDE),
    )
    parts["task"].change(**listener(choices.task, ("task",), (*OF_TASKS, "plan_panel"), **AT_ONCE))
    gr.on(
        [
            *(parts[name].change for name in GUARDED),
            *(parts[name].blur for name in ("caption", "lyrics")),
            page.load,
        ],
        trigger_mode="always_last",
        **listener(choices.guard, SONG_INPUTS, ("guard_panel",), api_name="guard", **BESIDE),
    )
