"""What a choice on the page changes: settings, limits, and the prediction of the guard."""

from html import escape
from typing import Any

import gradio as gr
import msgspec

from acestep.errors import UsageError
from acestep.limits.plan import Plan
from acestep.request import Task
from acestep.serving.uploads import uploaded_clip
from acestep.serving.visits import Visit
from acestep.ui.form import OF_TASKS, Form, form_from, form_request, limited_from, song_from, task_fields, wish_from
from acestep.ui.frame import seconds_of
from acestep.ui.listener import Changes
from acestep.ui.outlook import guard_html, outlook, panel_html
from acestep.ui.page import Parts, setting_update
from acestep.ui.settings import Controls, controls_from, limits_of, settings_of
from acestep.ui.studio import Studio
from acestep.ui.views import card_html, warnings_html
from acestep.ui.words import PageText


class Choices:
    """Handlers of everything that is chosen before a run."""

    def __init__(self, studio: Studio, words: PageText, parts: Parts) -> None:
        self._studio = studio
        self._words = words
        self._parts = parts
        self._made_for = *studio.start(), studio.device

    def arrive(self, _: Visit, *values: Any) -> Changes:
        """A visitor has opened the page, which was made before PyTorch was asked which card there is."""
        controls, plan = self._studio.start()
        if (controls, plan, self._studio.device) == self._made_for:
            return {}
        form = limited_from(*values)
        # A box that is still as the page was made follows the card that there is.
        untouched = form.think == self._made_for[0].init_lm
        wanted = msgspec.structs.replace(form, think=controls.init_lm) if untouched else form
        return self._begun(controls, plan, wanted, form)

    def tier(self, _: Visit, tier: Any, batch: Any, duration: Any) -> Changes:
        """Another class of card, with its own settings."""
        controls, plan = self._studio.start(controls_from({"tier": tier}).tier)
        form = limited_from(batch, duration, controls.init_lm)
        # Whether the page thinks is not asked: the tier decides it.
        shown = msgspec.structs.replace(form, think=not form.think)
        return self._begun(controls, plan, form, shown)

    def settings(self, _: Visit, *values: Any) -> Changes:
        """Settings were changed: the controls show what the plan makes of them."""
        wish, form = wish_from(values)
        return self._granted(wish, form, form)

    def init_lm(self, _: Visit, *values: Any) -> Changes:
        """The language model was switched on or off, and thinking with it."""
        wish, form = wish_from(values)
        return self._granted(wish, msgspec.structs.replace(form, think=wish.init_lm), form)

    def limits(self, _: Visit, *values: Any) -> Changes:
        """Something that limits the sliders was changed."""
        wish, form = wish_from(values)
        return self._limited(self._studio.settle(wish)[1], form, form)

    def task(self, _: Visit, task: Any) -> Changes:
        """The fields that a task reads."""
        chosen = form_from({"task": task}).task
        read = task_fields(chosen)
        fields = {self._parts[name]: gr.update(visible=name in read) for name in OF_TASKS}
        return fields | {self._parts["plan_panel"]: gr.update(visible=chosen is Task.TEXT2MUSIC)}

    def guard(self, _: Visit, *values: Any) -> Changes:
        """What the VRAM guard would do with the request, or why the request is not valid."""
        try:
            panel = self._outlook(*song_from(values))
        except UsageError as error:
            panel = panel_html(self._words, str(error))
        return {self._parts["guard_panel"]: panel}

    def _outlook(self, form: Form, wish: Controls) -> str:
        _, plan, _ = self._studio.settle(wish)
        seconds = form.duration or (seconds_of(form.source_audio) if form.task is not Task.TEXT2MUSIC else 0.0)
        words_only = msgspec.structs.replace(
            form,
            task=Task.TEXT2MUSIC,
            think=form.think and form.task is Task.TEXT2MUSIC,
            duration=seconds,
            source_audio=None,
            reference_audio=None,
        )
        free_bytes, held_bytes = self._studio.free_and_held(wish.tier)
        seen = outlook(
            plan,
            self._studio.memory_model,
            form_request(words_only, uploaded_clip),
            brings_audio=bool(form.source_audio or form.reference_audio),
            weak_cover=form.task is Task.COVER and form.cover_strength < 1,
            free_bytes=free_bytes,
            held_bytes=held_bytes,
            adapters=self._studio.adapter_memory,
        )
        return guard_html(plan, seen, self._words)

    def _granted(self, wish: Controls, form: Form, shown: Form) -> Changes:
        controls, plan, refused = self._studio.settle(wish)
        for sentence in refused:
            gr.Warning(escape(self._words.sentence(sentence), quote=False))
        return self._settled(controls, plan, form, shown) | {
            self._parts["warnings"]: warnings_html((*refused, *plan.warnings), self._words)
        }

    def _begun(self, controls: Controls, plan: Plan, form: Form, shown: Form) -> Changes:
        """Everything that the page shows of a card, with the settings that it begins with."""
        return self._settled(controls, plan, form, shown) | {
            self._parts["warnings"]: warnings_html(plan.warnings, self._words),
            self._parts["card_panel"]: card_html(plan, self._studio.device, self._words, self._studio.times(plan)),
        }

    def _settled(self, controls: Controls, plan: Plan, form: Form, shown: Form) -> Changes:
        settings = settings_of(controls, plan, self._studio.tiers)
        changes = {self._parts[name]: setting_update(self._words, name, setting) for name, setting in settings.items()}
        return changes | self._limited(plan, form, shown)

    def _limited(self, plan: Plan, form: Form, shown: Form) -> Changes:
        """What the limits make of a form; `shown` is what the page shows."""
        limits = limits_of(plan, think=form.think, batch=form.batch, duration_s=form.duration)
        words = self._words

        def unless(same: bool, value: Any) -> dict[str, Any]:
            # What the user may have changed in the meantime is left alone as long as it can be.
            return {} if same else {"value": value}

        think = form.think and limits.can_think
        return {
            self._parts["batch"]: gr.update(
                maximum=limits.max_batch,
                info=words("batch_info", most=limits.max_batch),
                **unless(limits.batch == shown.batch, limits.batch),
            ),
            self._parts["duration"]: gr.update(
                maximum=limits.max_duration_s,
                info=words("duration_info", longest=limits.max_duration_s),
                **unless(limits.duration_s == shown.duration, limits.duration_s),
            ),
            self._parts["think"]: gr.update(interactive=limits.can_think, **unless(think == shown.think, think)),
            self._parts["plan"]: gr.update(visible=limits.can_think),
        }
