"""What happens when somebody uses the page."""

import traceback
from collections.abc import Callable, Sequence
from html import escape
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any

import gradio as gr
import msgspec
from gradio.processing_utils import save_file_to_cache
from gradio.utils import get_upload_folder

from acestep.audio_input import read_clip
from acestep.clip import Clip
from acestep.errors import AceStepError, InvalidInputError, UsageError
from acestep.models.tokenizer import encodable
from acestep.plan import Plan
from acestep.request import MAX_DURATION_S, MIN_DURATION_S, Task
from acestep.ui.card_view import card_html
from acestep.ui.form import Form, form_from, request_of, task_fields
from acestep.ui.frame import refusal
from acestep.ui.guard_view import guard_html, outlook, panel_html
from acestep.ui.limits import limits_of
from acestep.ui.page import SONGS, Parts, setting_update
from acestep.ui.sessions import Session, StoppedError
from acestep.ui.settings import Controls, controls_from, settings_of
from acestep.ui.studio import Studio
from acestep.ui.views import history_html, progress_html, warnings_html
from acestep.ui.words import Words

Changes = dict[Any, Any]
"""Components and what becomes of them; those that are not named stay as they are."""

AT_ONCE: dict[str, Any] = {"queue": False, "api_visibility": "private"}
"""Events that are answered while a run goes on, and are nobody's business but the page's."""

BESIDE: dict[str, Any] = {"concurrency_limit": None}
"""Events that may have warnings, which only go through the queue, and wait for nothing there."""

SETTINGS = Controls.__struct_fields__
SONG = (*Form.__struct_fields__, *SETTINGS)
GUARDED = (
    *("batch", "duration", "think", "task", "cover_strength", "source_audio", "reference_audio"),
    *("tier", "offload_cpu", "offload_dit", "offload_stream", "quantization"),
)
LIMITED = ("batch", "duration", "think")
OF_TASKS = tuple(dict.fromkeys(name for task in Task for name in task_fields(task)))


class Events:
    """The page's events, each answered from the studio."""

    def __init__(self, page: Any, studio: Studio, words: Words, parts: Parts) -> None:
        self._page = page
        self._studio = studio
        self._words = words
        self._parts = parts

    def wire(self) -> None:
        """Connect the components."""
        parts = self._parts
        running = ("generate", "cancel", "progress", "timer")
        made = ("warnings", *(f"song_{n}" for n in range(SONGS)), "download", "history")
        started = parts["generate"].click(**self._event(self.announce, (), running, **AT_ONCE))
        over = started.then(
            **self._event(self.generate, SONG, made, after=self._studio.rest, api_name="generate", concurrency_limit=1)
        )
        over.then(**self._event(self.finish, (), running, **AT_ONCE))
        parts["timer"].tick(**self._event(self.poll, (), ("progress",), **AT_ONCE))
        parts["cancel"].click(**self._event(self.stop, (), ("cancel",), **AT_ONCE))
        parts["tier"].input(
            **self._event(
                self.tier,
                ("tier", *LIMITED),
                (*SETTINGS, *LIMITED, "warnings", "card_panel"),
                api_name="tier",
                **BESIDE,
            )
        )
        wish, settled = (*SETTINGS, *LIMITED), (*SETTINGS, *LIMITED, "warnings")
        gr.on(
            [parts[name].input for name in SETTINGS if name not in ("tier", "init_lm")],
            **self._event(self.settings, wish, settled, api_name="settings", **BESIDE),
        )
        parts["init_lm"].input(
            **self._event(self.init_lm, wish, settled, api_visibility="private", **BESIDE),
        )
        gr.on(
            [parts["batch"].change, parts["think"].change],
            trigger_mode="always_last",
            **self._event(self.limits, wish, LIMITED, api_name="limits", **BESIDE),
        )
        parts["task"].change(**self._event(self.task, ("task",), OF_TASKS, **AT_ONCE))
        gr.on(
            [
                *(parts[name].change for name in GUARDED),
                *(parts[name].blur for name in ("caption", "lyrics")),
                self._page.load,
            ],
            trigger_mode="always_last",
            **self._event(self.guard, SONG, ("guard_panel",), api_name="guard", **BESIDE),
        )

    def announce(self, session: Session) -> Changes:
        """A run joins the queue."""
        session.announce()
        return self._running(session, now=True)

    def generate(self, session: Session, *values: Any) -> Changes:
        """Songs."""
        form, controls = self._form_and_controls(values)
        stopped = False
        document: dict[str, Any] = {}
        try:
            request = request_of(form, _clip)
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
        return self._running(session, now=False)

    def poll(self, session: Session) -> Changes:
        """How far it is."""
        return {self._parts["progress"]: progress_html(session.progress, self._words)}

    def stop(self, session: Session) -> Changes:
        """Stop this visit's runs."""
        session.stop()
        return {self._parts["cancel"]: gr.update(interactive=False)}

    def tier(self, session: Session, tier: Any, batch: Any, duration: Any, think: Any) -> Changes:  # noqa: ARG002 every handler gets its visit
        """Another class of card, with its own settings."""
        wish = controls_from({"tier": tier})
        controls, plan = self._studio.start(wish.tier)
        return self._settled(controls, plan, batch, duration, controls.init_lm) | {
            self._parts["warnings"]: warnings_html(plan.warnings, self._words),
            self._parts["card_panel"]: card_html(plan, self._studio.device, self._words),
        }

    def settings(self, session: Session, *values: Any) -> Changes:  # noqa: ARG002 every handler gets its visit
        """Settings were changed: what they come down to."""
        wish = controls_from(dict(zip(SETTINGS, values, strict=False)))
        batch, duration, think = values[len(SETTINGS) :]
        controls, plan, refused = self._studio.settle(wish)
        for sentence in refused:
            gr.Warning(escape(sentence, quote=False))
        return self._settled(controls, plan, batch, duration, think) | {
            self._parts["warnings"]: warnings_html((*refused, *plan.warnings), self._words)
        }

    def init_lm(self, session: Session, *values: Any) -> Changes:
        """The language model was switched on or off, and thinking with it."""
        *settings, batch, duration, _ = values
        return self.settings(session, *settings, batch, duration, settings[SETTINGS.index("init_lm")])

    def limits(self, session: Session, *values: Any) -> Changes:  # noqa: ARG002 every handler gets its visit
        """Where the sliders end now."""
        wish = controls_from(dict(zip(SETTINGS, values, strict=False)))
        _, plan, _ = self._studio.settle(wish)
        return self._limited(plan, *values[len(SETTINGS) :])

    def task(self, session: Session, task: Any) -> Changes:  # noqa: ARG002 every handler gets its visit
        """The fields that a task reads."""
        read = task_fields(form_from({"task": task}).task)
        return {self._parts[name]: gr.update(visible=name in read) for name in OF_TASKS}

    def guard(self, session: Session, *values: Any) -> Changes:  # noqa: ARG002 every handler gets its visit
        """What the VRAM guard would do with the request as it stands; what is amiss with it belongs into the panel."""
        try:
            panel = self._outlook(*self._form_and_controls(values))
        except UsageError as error:
            panel = panel_html(self._words, str(error))
        return {self._parts["guard_panel"]: panel}

    def _outlook(self, form: Form, wish: Controls) -> str:
        _, plan, _ = self._studio.settle(wish)
        seconds = form.duration or (_seconds(form.source_audio) if form.task is not Task.TEXT2MUSIC else 0.0)
        words_only = msgspec.structs.replace(
            form,
            task=Task.TEXT2MUSIC,
            think=form.think and form.task is Task.TEXT2MUSIC,
            duration=seconds,
            source_audio="",
            reference_audio="",
        )
        seen = outlook(
            plan,
            self._studio.memory_model,
            request_of(words_only, _clip),
            brings_audio=bool(form.source_audio or form.reference_audio),
            weak_cover=form.task is Task.COVER and form.cover_strength < 1,
            free_bytes=self._studio.free_bytes(wish.tier),
        )
        return guard_html(plan, seen, self._words)

    def _settled(self, controls: Controls, plan: Plan, batch: Any, duration: Any, think: Any) -> Changes:
        settings = settings_of(controls, plan, self._studio.tiers)
        changes = {self._parts[name]: setting_update(self._words, setting) for name, setting in settings.items()}
        return changes | self._limited(plan, batch, duration, think)

    def _limited(self, plan: Plan, batch: Any, duration: Any, think: Any) -> Changes:
        form = form_from({"batch": batch, "duration": duration, "think": think})
        limits = limits_of(plan, think=form.think, batch=form.batch, duration_s=form.duration)
        words = self._words
        return {
            self._parts["batch"]: gr.update(
                maximum=limits.max_batch, value=limits.batch, info=words("batch_info", most=limits.max_batch)
            ),
            self._parts["duration"]: gr.update(
                maximum=limits.max_duration_s,
                info=words("duration_info", longest=limits.max_duration_s),
                # A slider that is being dragged is left alone as long as it can be.
                **({} if limits.duration_s == form.duration else {"value": limits.duration_s}),
            ),
            self._parts["think"]: gr.update(value=form.think and limits.can_think, interactive=limits.can_think),
        }

    def _running(self, session: Session, *, now: bool) -> Changes:
        return {
            self._parts["generate"]: gr.update(interactive=not now),
            self._parts["cancel"]: gr.update(interactive=now),
            self._parts["progress"]: progress_html(session.progress, self._words),
            self._parts["timer"]: gr.Timer(active=now),
        }

    def _form_and_controls(self, values: tuple[Any, ...]) -> tuple[Form, Controls]:
        given = dict(zip(SONG, values, strict=True))
        for name in ("reference_audio", "source_audio"):
            given[name] = given[name] and given[name]["path"]
        form = form_from({name: given[name] for name in Form.__struct_fields__})
        return form, controls_from({name: given[name] for name in SETTINGS})

    def _event(
        self,
        handler: Callable[..., Any],
        inputs: Sequence[str],
        outputs: Sequence[str],
        after: Callable[[], None] = lambda: None,
        **more: Any,
    ) -> dict[str, Any]:
        """A listener's arguments. `handler` gets its visit and values as the browser sent them.

        Its failure is a sentence; `after` runs then, when nothing of it is left.
        """

        def answer(request: gr.Request, *values: Any) -> Any:
            try:
                # Half a character, which JSON can spell and UTF-8 cannot, would break the answer.
                plain = [encodable(value) if isinstance(value, str) else value for value in values]
                return handler(self._studio.sessions.of(request.session_hash or ""), *plain)
            except AceStepError as error:
                problem = str(error)
            except Exception:
                # A page that is open to many must go on; whoever runs it finds the traceback in the terminal.
                traceback.print_exc()
                problem = self._words("unexpected")
            after()
            raise refusal(problem)

        # The names and defaults of the API's parameters.
        named = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, default=None) for name in inputs]
        request = Parameter("request", Parameter.POSITIONAL_OR_KEYWORD, annotation=gr.Request)
        answer.__signature__ = Signature([request, *named])  # type: ignore[attr-defined]
        return {
            "fn": answer,
            "inputs": [self._parts[name] for name in inputs],
            "outputs": [self._parts[name] for name in outputs],
            "preprocess": False,
            "show_progress": "hidden",
            **more,
        }


def _clip(path: str) -> Clip:
    try:
        return read_clip(Path(path))
    except InvalidInputError as error:
        # The folder of uploads is nobody's business.
        problem = error.problem.replace(path, Path(path).name)
    raise InvalidInputError(Path(path).name, problem)


def _seconds(path: str) -> float:
    """The length of an uploaded file as its header says, 0 where it says nothing that can be used."""
    import soundfile

    try:
        about = soundfile.info(path) if path else None
    except (OSError, RuntimeError):
        return 0.0
    return 0.0 if about is None else min(max(about.duration, MIN_DURATION_S), MAX_DURATION_S)


def _keep(path: Path) -> Path:
    """A copy in gradio's cache, below the hash of its content: the only place that files are served from."""
    return Path(save_file_to_cache(path, cache_dir=get_upload_folder()))
