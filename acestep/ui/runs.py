"""The buttons that make songs and stop, and what is seen of a run."""

import json
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.processing_utils import save_file_to_cache
from gradio.utils import get_upload_folder

from acestep.request import Task
from acestep.ui.failures import MissingSourceError
from acestep.ui.form import request_of
from acestep.ui.inputs import song_from
from acestep.ui.listener import Changes
from acestep.ui.page import SONGS, Parts
from acestep.ui.sessions import STOPPING, Progress, Session, StoppedError
from acestep.ui.studio import Studio
from acestep.ui.uploads import clip_of
from acestep.ui.views import failure_html, history_html, progress_html, warnings_html
from acestep.ui.words import Words

RUNNING = ("generate", "cancel", "progress", "failure", "timer")
"""What changes when a run begins and ends."""

STOPPED_AT_ONCE = ("progress", "cancel")
"""What the browser changes by itself when the stop button is clicked."""

MADE = ("warnings", *(f"song_{number}" for number in range(SONGS)), "download", "history")
"""What a run fills."""


class Runs:
    """Handlers of a run, from the click to the songs."""

    def __init__(self, studio: Studio, words: Words, parts: Parts) -> None:
        self._studio = studio
        self._words = words
        self._parts = parts

    def announce(self, session: Session) -> Changes:
        """A run joins the queue."""
        session.announce()
        return self._running(session)

    def generate(self, session: Session, *values: Any) -> Changes:
        """Songs."""
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
                request = request_of(form, clip_of)
                document = self._studio.generate(request, controls, form.audio_format, session, _keep)
        except StoppedError:
            stopped = True
        if stopped:
            # Here, where no traceback holds what the run had on the device.
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
            for n in range(SONGS)
        }
        return players | {
            self._parts["warnings"]: warnings_html(document["warnings"], self._words),
            self._parts["download"]: gr.update(value=[str(song.served) for song in songs], visible=True),
            self._parts["history"]: history_html(session.made, self._words),
        }

    def finish(self, session: Session) -> Changes:
        """A run is over, however it ended."""
        session.settle()
        return self._running(session)

    def poll(self, session: Session) -> Changes:
        """How far it is."""
        return {self._parts["progress"]: progress_html(session.progress, self._words)}

    def stop(self, session: Session) -> Changes:
        """Stop this visit's runs."""
        session.stop()
        return self._running(session) | {self._parts["cancel"]: gr.update(interactive=False)}

    def stopping_js(self) -> str:
        """The browser's own answer to a click on the stop button: a function for `STOPPED_AT_ONCE`."""
        said, off = (
            json.dumps(progress_html(Progress(stage=STOPPING), self._words)),
            json.dumps(gr.update(interactive=False)),
        )
        # The bar stays as long as it is.
        width = 'document.querySelector("#progress .bar div")?.style.width || "0%"'
        return f'() => [{said}.replace("width:0%", "width:" + ({width})), {off}]'

    def leave(self, session: Session) -> None:
        """Nobody is there any more who could hear what is still to come, and others wait."""
        session.stop()

    def _running(self, session: Session) -> Changes:
        return {
            self._parts["generate"]: gr.update(interactive=not session.busy),
            self._parts["cancel"]: gr.update(interactive=session.busy),
            self._parts["progress"]: progress_html(session.progress, self._words),
            self._parts["failure"]: failure_html(session.failure, self._words),
            self._parts["timer"]: gr.Timer(active=session.busy),
        }


def _keep(path: Path) -> Path:
    """A copy in gradio's cache, below the hash of its content: the only place that files are served from."""
    return Path(save_file_to_cache(path, cache_dir=get_upload_folder()))
