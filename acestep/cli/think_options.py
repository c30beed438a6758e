"""The options of `acestep generate` for what a language model may decide and how it samples."""

from typing import Any

import click

from acestep.cli.options import with_options
from acestep.thinking import NO_NEGATIVE, Sampling, Thinking
from acestep.typed import values_of_user

_SAMPLING = {"lm_temperature": "temperature", "lm_cfg_scale": "guidance", "lm_top_p": "top_p", "lm_top_k": "top_k"}
_DECIDES = {
    "cot_metas": "metas",
    "cot_caption": "caption",
    "cot_language": "language",
    "lm_codes": "codes",
}
_DEFAULTS = Sampling()

think_options = with_options(
    click.option(
        "--think/--no-think", default=None, help="Let a language model plan the song; the tier decides if not given."
    ),
    click.option("--plan-seed", default=0, show_default=True, metavar="N", help="Random seed for song metadata."),
    click.option("--cot-metas/--no-cot-metas", default=True, help="Let it choose tempo, key, time and length."),
    click.option("--cot-caption/--no-cot-caption", default=True, help="Let it reword the caption."),
    click.option("--cot-language/--no-cot-language", default=True, help="Let it set the language of the lyrics."),
    click.option("--lm-codes/--no-lm-codes", default=True, help="Let it write the audio codes that the song follows."),
    click.option(
        "--lm-negative-prompt", default=NO_NEGATIVE, metavar="TEXT", help="Negative prompt for the audio codes."
    ),
    click.option(
        "--planned-caption",
        default="",
        metavar="TEXT",
        help="Caption of a plan that was made before: nothing is decided again, and only the codes are written.",
    ),
    click.option(
        "--lm-temperature",
        default=_DEFAULTS.temperature,
        show_default=True,
        metavar="X",
        help="0 always takes the most likely token.",
    ),
    click.option(
        "--lm-cfg-scale",
        default=_DEFAULTS.guidance,
        show_default=True,
        metavar="X",
        help="Guidance of the audio codes; 1 disables it.",
    ),
    click.option("--lm-top-p", default=_DEFAULTS.top_p, show_default=True, metavar="X", help="1 disables top-p."),
    click.option("--lm-top-k", default=_DEFAULTS.top_k, show_default=True, metavar="N", help="0 disables top-k."),
)


def options_of_thinking(thinking: Thinking) -> dict[str, Any]:
    """Return the values of these options that make `thinking`."""
    decides = {option: getattr(thinking, field) for option, field in _DECIDES.items()}
    sampling = {option: getattr(thinking.sampling, field) for option, field in _SAMPLING.items()}
    texts = {"lm_negative_prompt": thinking.negative, "planned_caption": thinking.planned_caption}
    return {**decides, **sampling, **texts, "plan_seed": thinking.seed}


def take_thinking(parameters: dict[str, Any]) -> Thinking:
    """Remove all these options but `--think` from a command's parameters and return them."""
    sampling = {field: parameters.pop(name) for name, field in _SAMPLING.items()}
    decides = {field: parameters.pop(name) for name, field in _DECIDES.items()}
    negative, seed = parameters.pop("lm_negative_prompt"), parameters.pop("plan_seed")
    planned = parameters.pop("planned_caption")
    with values_of_user():
        return Thinking(**decides, negative=negative, seed=seed, planned_caption=planned, sampling=Sampling(**sampling))
