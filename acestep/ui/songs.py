"""What a click on a song or on an example does: its settings on the form, another song like it, files."""

from typing import Any

import gradio as gr

from acestep.audio.comments import comment_in
from acestep.errors import UsageError
from acestep.serving.uploads import of_upload
from acestep.serving.visits import Visit
from acestep.song_settings import SongSettings, settings_in
from acestep.task import SOURCED, Task
from acestep.ui.archive import pack_songs
from acestep.ui.cards import link_html, songs_html
from acestep.ui.examples import example
from acestep.ui.form import OF_TASKS, Form, task_fields
from acestep.ui.gallery import Gallery
from acestep.ui.like import FilledForm, filled, filled_like
from acestep.ui.listener import Changes
from acestep.ui.page import Parts
from acestep.ui.studio import Studio
from acestep.ui.views import warnings_html
from acestep.ui.words import PageText
from acestep.version import version

FILLED = (*Form.__struct_fields__, "warnings")
"""The components that the settings of a song change."""

ACTED = (*FILLED, "history", "zip")
"""The components that a click on a song changes."""


class Songs:
    """Handlers of the songs' cards and of the examples."""

    def __init__(self, studio: Studio, gallery: Gallery, words: PageText, parts: Parts) -> None:
        self._studio = studio
        self._gallery = gallery
        self._words = words
        self._parts = parts

    def come_back(self, session: Visit, visitor: Any) -> Changes:
        """The page was opened: the songs that this browser made before are listed again."""
        self._gallery.come_back(session, str(visitor))
        return self._listed(session)

    def act(self, session: Visit, act: Any) -> Changes:
        """A button was clicked; its text is a number that differs each time, what to do, and the name of a song."""
        _, what, name = f"{act}  ".split(" ", 2)
        name = name.strip()
        if not what:
            return {}
        if what == "delete":
            self._gallery.delete(session, name)
            return self._listed(session)
        if what == "zip":
            return {self._parts["zip"]: link_html(pack_songs(session))}
        if what == "example":
            return self._fill(filled(example(name)), ())
        song = next((song for song in session.made if song.path.name == name), None)
        if song is None or song.settings is None:
            raise UsageError("this song is not there any more; reload the page")
        return self._fill_like(song.settings, new_seed=what == "another")

    def load(self, _: Visit, like: Any) -> Changes:
        """A song's file was given, for its settings."""
        if not like:
            return {}
        settings = of_upload(like["path"], lambda path: settings_in(comment_in(path), path.name))
        return self._fill_like(settings)

    def _listed(self, session: Visit) -> Changes:
        return {self._parts["history"]: songs_html(session.made, self._words)}

    def _fill_like(self, settings: SongSettings, *, new_seed: bool = False) -> Changes:
        form, remarks = filled_like(settings, new_seed=new_seed), self._remarks(settings)
        adapter = self._studio.adapters.like(settings.adapters)
        if adapter is not None:
            return self._fill(form, remarks) | {self._parts["adapter"]: gr.update(value=adapter)}
        named = ", ".join(f"{one.name}:{one.scale:g}" for one in settings.adapters)
        return self._fill(form, (*remarks, self._words("like_other_adapters", adapters=named)))

    def _fill(self, form: FilledForm, remarks: tuple[str, ...]) -> Changes:
        if form.left_out:
            remarks = (*remarks, self._words("like_left_out", fields=", ".join(form.left_out)))
        read = task_fields(Task(form.values["task"]))
        changes = {self._parts[name]: gr.update(value=value) for name, value in form.values.items()}
        seen = {self._parts[name]: gr.update(value=form.values[name], visible=name in read) for name in OF_TASKS}
        return changes | seen | {self._parts["warnings"]: warnings_html((), self._words, own=remarks)}

    def _remarks(self, settings: SongSettings) -> tuple[str, ...]:
        """What is different if a song is made again here. Its model and knobs are the program's own to choose."""
        words, remarks = self._words, list[str]()
        made_with, here = settings.model or settings.variant, self._studio.model
        if made_with != here:
            remarks.append(words("like_other_model", model=made_with, here=here))
        elif settings.acestep != version():
            remarks.append(words("like_other_release", release=settings.acestep, here=version()))
        if settings.request.task in SOURCED:
            remarks.append(words("like_source"))
        return tuple(remarks)
