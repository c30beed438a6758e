"""The layout of the page."""

from typing import Any

import gradio as gr

from acestep.fields import KEYSCALES, LYRIC_LANGUAGES, TIMESIGNATURES, UNKNOWN_LANGUAGE
from acestep.language_names import OWN_NAMES
from acestep.limits.names import AUDIO_FORMATS
from acestep.request import Task
from acestep.ui.cards import examples_html, songs_html
from acestep.ui.examples import example_names
from acestep.ui.form import Form
from acestep.ui.settings import CONTROL_ROWS, Limits, Setting, limits_of, settings_of
from acestep.ui.studio import Studio
from acestep.ui.views import card_html, notify_html, warnings_html
from acestep.ui.words import PageText

KEYS = tuple(key for key in KEYSCALES if key.isascii())

Parts = dict[str, Any]
"""The page's components by name; those of a form and of the settings have the names of their fields."""


def lay_out(words: PageText, studio: Studio) -> Parts:
    """Add every component to the page that is being built, with the settings of this card's plan."""
    controls, plan = studio.start()
    settings = settings_of(controls, plan, studio.tiers)
    form = Form(think=controls.init_lm)
    limits = limits_of(plan, think=form.think, batch=form.batch, duration_s=form.duration)
    parts: Parts = {}
    _html(f"<h1>{words('title')}</h1><p>{words('subtitle')}</p>", elem_id="heading")
    with gr.Tabs():
        with gr.Tab(words("tab_song"), id="song"), gr.Row():
            with gr.Column(scale=6, min_width=320):
                _start(parts, words)
                _song(parts, words, form)
                _limited(parts, words, form, limits)
                _adapters(parts, words, studio.adapters.names)
                _folded(parts, words, form)
            with gr.Column(scale=5, min_width=320):
                _results(parts, words, form, warnings_html(plan.warnings, words), can_think=limits.can_think)
        with gr.Tab(words("tab_settings"), id="settings", render_children=True), gr.Row():
            with gr.Column(scale=5, min_width=320):
                _settings(parts, words, settings)
            with gr.Column(scale=6, min_width=320):
                parts["card_panel"] = _html(
                    card_html(plan, studio.device, words, studio.times(plan)), elem_id="card-panel"
                )
                parts["guard_panel"] = _html(elem_id="guard-panel")
    parts["timer"] = gr.Timer(0.4, active=False)
    return parts


def _html(value: str = "", *, elem_id: str) -> Any:
    """A text with the page's own style."""
    return gr.HTML(value, elem_id=elem_id, apply_default_css=False)


def _named(words: PageText, name: str, *, interactive: bool = True, **values: object) -> dict[str, Any]:
    """The arguments of the control `name`: its label, its explanation if there is one, and its id."""
    named: dict[str, Any] = {"label": words(name), "elem_id": name.replace("_", "-"), "interactive": interactive}
    if words.has(f"{name}_info"):
        named["info"] = words(f"{name}_info", **values)
    return named


def options(words: PageText, choices: tuple[str, ...], *, of: str | None = None) -> list[tuple[str, str]]:
    """The text and the value of each choice of the control `of`."""
    return [(words.choice(str(choice), of=of), str(choice)) for choice in choices]


def _start(parts: Parts, words: PageText) -> None:
    """What the form can be filled with: an example, or the settings of a song."""
    titles = [(name, words(f"example_{name}")) for name in example_names(words.language)]
    _html(examples_html(titles, words), elem_id="examples")
    parts["like"] = gr.UploadButton(words("like"), elem_id="like", file_types=["audio"], size="sm")


def _song(parts: Parts, words: PageText, form: Form) -> None:
    parts["caption"] = gr.Textbox(
        **_named(words, "caption"), value=form.caption, lines=2, placeholder=words("caption_hint")
    )
    parts["lyrics"] = gr.Textbox(
        **_named(words, "lyrics"), value=form.lyrics, lines=7, max_lines=24, placeholder=words("lyrics_hint")
    )


def _limited(parts: Parts, words: PageText, form: Form, limits: Limits) -> None:
    """The controls that the frontier limits; it depends on whether a language model plans the song."""
    with gr.Row():
        parts["instrumental"] = gr.Checkbox(form.instrumental, **_named(words, "instrumental"), min_width=140)
        parts["think"] = gr.Checkbox(form.think, **_named(words, "think", interactive=limits.can_think), min_width=140)
    with gr.Row():
        parts["duration"] = gr.Slider(
            0,
            limits.max_duration_s,
            **_named(words, "duration", longest=limits.max_duration_s),
            value=form.duration,
            step=1,
        )
        parts["batch"] = gr.Slider(
            1, limits.max_batch, **_named(words, "batch", most=limits.max_batch), value=form.batch, step=1
        )


def _adapters(parts: Parts, words: PageText, choices: tuple[str, ...]) -> None:
    """The choice of adapters, where the page has some."""
    parts["adapter"] = gr.Dropdown(
        options(words, choices), **_named(words, "adapter"), value=choices[0], visible=len(choices) > 1
    )


def _folded(parts: Parts, words: PageText, form: Form) -> None:
    """The controls that most songs do not need, in closed sections."""
    with gr.Accordion(words("section_music"), open=False):
        _language_and_bpm(parts, words, form)
        _key_and_time(parts, words, form)
    with gr.Accordion(words("section_audio"), open=False):
        _audio(parts, words, form)
    with gr.Accordion(words("section_sampling"), open=False):
        _sampling(parts, words, form)


def _of_plan(named: dict[str, Any], prefix: str) -> dict[str, Any]:
    """The arguments of a control of the form for the control of the plan with this prefix; "" leaves it the form's."""
    return named | {"elem_id": f"{prefix}{named['elem_id']}".replace("_", "-")}


def _language_and_bpm(parts: Parts, words: PageText, form: Form, prefix: str = "") -> None:
    languages = (
        (words("choice_"), UNKNOWN_LANGUAGE),
        *sorted((OWN_NAMES[code], code) for code in LYRIC_LANGUAGES if code != UNKNOWN_LANGUAGE),
    )
    with gr.Row():
        parts[f"{prefix}language"] = gr.Dropdown(
            languages,
            **_of_plan(_named(words, "language"), prefix),
            value=getattr(form, f"{prefix}language"),
            min_width=140,
        )
        parts[f"{prefix}bpm"] = gr.Number(
            getattr(form, f"{prefix}bpm"),
            **_of_plan(_named(words, "bpm"), prefix),
            precision=0,
            minimum=-1,
            maximum=300,
            min_width=140,
        )


def _key_and_time(parts: Parts, words: PageText, form: Form, prefix: str = "") -> None:
    with gr.Row():
        for name, choices in (("keyscale", KEYSCALES if prefix else KEYS), ("timesignature", TIMESIGNATURES)):
            parts[f"{prefix}{name}"] = gr.Dropdown(
                options(words, ("", *choices)),
                **_of_plan(_named(words, name), prefix),
                value=getattr(form, f"{prefix}{name}"),
                min_width=140,
            )


def _plan(parts: Parts, words: PageText, form: Form) -> None:
    """The language model's plan, to be changed before the song is made; `style.css` shows it once there is one."""
    with gr.Column(elem_id="plan-panel") as parts["plan_panel"]:
        parts["planned"] = gr.Checkbox(form.planned, label="planned", elem_id="planned", elem_classes="unseen")
        _html(f'<h2>{words("section_plan")}</h2><p class="hint">{words("plan_info")}</p>', elem_id="plan-heading")
        parts["plan_caption"] = gr.Textbox(**_named(words, "plan_caption"), value=form.plan_caption, lines=3)
        _language_and_bpm(parts, words, form, "plan_")
        _key_and_time(parts, words, form, "plan_")
        with gr.Row():
            parts["plan_duration"] = gr.Number(
                form.plan_duration, label=words("duration"), elem_id="plan-duration", minimum=0, min_width=140
            )
            parts["unplan"] = gr.Button(words("unplan"), elem_id="unplan", size="sm", min_width=140)


def _audio(parts: Parts, words: PageText, form: Form) -> None:
    parts["task"] = gr.Dropdown(options(words, tuple(Task)), **_named(words, "task"), value=form.task.value)
    for name in ("source_audio", "reference_audio"):
        parts[name] = gr.Audio(
            **_named(words, name), sources=["upload"], type="filepath", editable=False, elem_classes="drop", buttons=[]
        )
    _html(f'<p class="hint">{words("reference_audio_hint")}</p>', elem_id="reference-audio-hint")
    with gr.Row():
        for name in ("repaint_start", "repaint_end"):
            parts[name] = gr.Number(
                getattr(form, name), **_named(words, name), minimum=-1, maximum=600, min_width=140, visible=False
            )
    for name in ("repaint_strength", "cover_strength", "cover_noise"):
        parts[name] = gr.Slider(
            0, 1, **_named(words, name), value=getattr(form, name), step=0.05, visible=False, min_width=140
        )
    for name in ("track", "tracks"):
        parts[name] = gr.Textbox(getattr(form, name), **_named(words, name), visible=False)


def _sampling(parts: Parts, words: PageText, form: Form) -> None:
    with gr.Row():
        parts["seed"] = gr.Number(form.seed, **_named(words, "seed"), precision=0, minimum=-1, min_width=140)
        parts["random_seed"] = gr.Checkbox(form.random_seed, **_named(words, "random_seed"), min_width=140)
    with gr.Row():
        parts["steps"] = gr.Slider(0, 200, **_named(words, "steps"), value=form.steps, step=1, min_width=140)
        parts["guidance"] = gr.Slider(0, 30, **_named(words, "guidance"), value=form.guidance, step=0.5, min_width=140)
    with gr.Row():
        parts["shift"] = gr.Slider(0.1, 10, **_named(words, "shift"), value=form.shift, step=0.1, min_width=140)
        parts["audio_format"] = gr.Dropdown(
            AUDIO_FORMATS, **_named(words, "audio_format"), value=form.audio_format, min_width=140
        )


def _results(parts: Parts, words: PageText, form: Form, warnings: str, *, can_think: bool) -> None:
    with gr.Column(elem_id="run"):
        with gr.Row():
            parts["generate"] = gr.Button(
                words("generate"), variant="primary", elem_id="generate", scale=3, min_width=160
            )
            parts["plan"] = gr.Button(words("plan"), elem_id="plan", scale=1, min_width=90, visible=can_think)
            parts["cancel"] = gr.Button(
                words("cancel"), variant="stop", elem_id="cancel", scale=1, min_width=90, interactive=False
            )
        parts["progress"] = _html(elem_id="progress")
        _html(notify_html(words), elem_id="notify")
    parts["failure"] = _html(elem_id="failure")
    parts["warnings"] = _html(warnings, elem_id="warnings")
    _plan(parts, words, form)
    parts["history"] = _html(songs_html((), words), elem_id="history")
    # For programs that use the page's API: the files of a run.
    parts["files"] = gr.File(file_count="multiple", interactive=False, visible=False)
    # The script of the page writes to the first two, and follows the link of the last.
    for name in ("visitor", "act"):
        parts[name] = gr.Textbox(label=name, elem_id=name, elem_classes="unseen", interactive=True)
    parts["zip"] = gr.HTML(elem_id="zip", elem_classes="unseen", apply_default_css=False)


def _settings(parts: Parts, words: PageText, settings: dict[str, Setting]) -> None:
    def add(*names: str) -> None:
        for name in names:
            setting = settings[name]
            named = _named(words, name, interactive=setting.interactive)
            if isinstance(setting.value, bool):
                parts[name] = gr.Checkbox(setting.value, **named, min_width=160)
            else:
                value = setting.value or None
                parts[name] = gr.Dropdown(options(words, setting.choices, of=name), **named, value=value, min_width=160)

    add("tier", "init_lm")
    for row in CONTROL_ROWS:
        with gr.Row():
            add(*row)


def setting_update(words: PageText, name: str, setting: Setting) -> dict[str, Any]:
    """Return the update that brings the control `name` to a setting."""
    if isinstance(setting.value, bool):
        changed: dict[str, Any] = gr.update(value=setting.value, interactive=setting.interactive)
    else:
        choices = options(words, setting.choices, of=name)
        changed = gr.update(value=setting.value or None, choices=choices, interactive=setting.interactive)
    return changed
