"""The events of the page and their handlers."""

import json
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.processing_utils import save_file_to_cache
from gradio.utils import get_upload_folder

from acestep.request import Task
from acestep.serving.failures import MissingSourceError
from acestep.serving.uploads import uploaded_clip
from acestep.serving.visits import STOPPING, RunProgress, StoppedError, Visit
from acestep.ui.choices import Choices
from acestep.ui.connection import RESTORED, connection_js
from acestep.ui.form import GUARDED, LIMITED, OF_TASKS, SETTINGS, SONG_INPUTS, WISH, form_request, song_from
from acestep.ui.listener import Changes, Listener
from acestep.ui.page import MOST_SONGS, Parts
from acestep.ui.studio import Studio
from acestep.ui.views import failure_html, history_html, progress_html, warnings_html
from acestep.ui.words import PageText

RUNNING = ("generate", "cancel", "progress", "failure", "timer")
"""The components that change when a run begins and ends."""

RUN = "generate"
"""The API's name of a run."""

STOPPED_AT_ONCE = ("progress", "cancel")
"""The components that the browser itself changes when the stop button is clicked."""

MADE = ("warnings", *(f"song_{number}" for number in range(MOST_SONGS)), "download", "history")
"""The components that a run fills."""


class Runs:
    """Handlers of a run, from the click to the songs."""

    def __init__(self, studio: Studio, words: PageText, parts: Parts) -> None:
        self._studio = studio
        self._words = words
        self._parts = parts

    def announce(self, session: Visit) -> Changes:
        """A run joins the queue."""
        session.announce()
        return self._running(session)

    def generate(self, session: Visit, *values: Any) -> Changes:
        """Make the songs."""
        stopped = False
        document: dict[str, Any] = {}
        try:
            with session.run():
                form, controls = song_from(values)
                if form.task is not Task.TEXT2MUSIC and not form.source_audio:
                    raise MissingSourceError(
                        f"{form.task} works on a song that exists, and no source audio was given; add one,"
                        f" or choose the task {Task.TEXT2MUSIC}"
                    )
                request = form_request(form, uploaded_clip)
                document = self._studio.generate(
                    request, controls, form.audio_format, session, _keep, adapter=form.adapter
                )
        except StoppedError:
            stopped = True
        if stopped:
            # Outside the except block, whose traceback keeps tensors of the run alive.
            self._studio.rest()
            return {self._parts["warnings"]: ""}
        songs = session.made[: len(document["songs"])]
        players = {
            self._parts[f"song_{n}"]: gr.update(
                value=str(songs[n].served),
                label=f"{self._words('song', number=n + 1)} · {songs[n].seed}",
                visible=True,
            )
            if n < len(songs)
            else gr.update(value=None, visible=False)
            for n in range(MOST_SONGS)
        }
        return players | {
            self._parts["warnings"]: warnings_html(document["warnings"], self._words),
            self._parts["download"]: gr.update(value=[str(song.served) for song in songs], visible=True),
            self._parts["history"]: history_html(session.made, self._words),
        }

    def finish(self, session: Visit) -> Changes:
        """Show that a run is over, for whatever reason."""
        session.settle()
        return self._running(session)

    def poll(self, session: Visit) -> Changes:
        """Return the progress."""
        return {self._parts["progress"]: progress_html(session.progress, self._words)}

    def stop(self, session: Visit) -> Changes:
        """Stop this visit's runs."""
        session.stop()
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
        self._studio.uploads.leave(session.name)

    def _running(self, session: Visit) -> Changes:
        return {
            self._parts["generate"]: gr.update(interactive=not session.busy),
            self._parts["cancel"]: gr.update(interactive=session.busy),
            self._parts["progress"]: progress_html(session.progress, self._words),
            self._parts["failure"]: failure_html(session.failure, self._words),
            self._parts["timer"]: gr.Timer(active=session.busy),
        }


def _keep(path: Path) -> Path:
    """Copy a file to gradio's cache, in a folder named by the hash of its content: only this place is served."""
    return Path(save_file_to_cache(path, cache_dir=get_upload_folder()))


AT_ONCE: dict[str, Any] = {"queue": False, "api_visibility": "private"}
"""Events that are answered during a run, and only called by the page itself."""

BESIDE: dict[str, Any] = {"concurrency_limit": None}
"""Events that may produce warnings, which only work through the queue; these events never wait there."""

SETTLED = (*WISH, "warnings")


def wire(page: Any, studio: Studio, words: PageText, parts: Parts) -> None:
    """Connect the components of a page."""
    listener = Listener(studio, words, parts)
    runs = Runs(studio, words, parts)
    page.unload(listener(runs.leave, (), ())["fn"])
    page.load(fn=None, js=connection_js(words), outputs=[parts[name] for name in RESTORED], **AT_ONCE)
    _wire_runs(runs, listener, parts, studio)
    _wire_choices(Choices(studio, words, parts), listener, parts, page)


def _wire_runs(runs: Runs, listener: Listener, parts: Parts, studio: Studio) -> None:
    # A user who stopped a waiting run may start another: the end of neither may be dropped.
    every: dict[str, Any] = {"trigger_mode": "multiple"}
    announced = parts["generate"].click(**listener(runs.announce, (), RUNNING, **AT_ONCE))
    over = announced.success(
        **listener(
            runs.generate,
            SONG_INPUTS,
            MADE,
            after=studio.rest,
            shown=False,
            api_name=RUN,
            concurrency_limit=1,
            **every,
        )
    )
    # Exactly one of the two runs. gradio's page skips `then` after a failure.
    for ended in (over.success, over.failure):
        ended(**listener(runs.finish, (), RUNNING, **every, **AT_ONCE))
    parts["timer"].tick(**listener(runs.poll, (), ("progress",), **AT_ONCE))
    # The browser reacts to the click itself, before it asks the server, which may be computing.
    parts["cancel"].click(fn=None, js=runs.stopping_js(), outputs=[parts[name] for name in STOPPED_AT_ONCE], **AT_ONCE)
    parts["cancel"].click(**listener(runs.stop, (), RUNNING, **AT_ONCE))


def _wire_choices(choices: Choices, listener: Listener, parts: Parts, page: Any) -> None:
    of_tier = ("tier", "batch", "duration")
    # For a list, opening and leaving it count as input too, so only a selection is used.
    parts["tier"].select(**listener(choices.tier, of_tier, (*SETTLED, "card_panel"), api_name="tier", **BESIDE))
    parts["init_lm"].input(**listener(choices.init_lm, WISH, SETTLED, api_visibility="private", **BESIDE))
    # One event for each control: a running event drops its next trigger, whichever control it comes from.
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
        **listener(choices.guard, SONG_INPUTS, ("guard_panel",), api_name="guard", **BESIDE),
    )
