"""The options of commands that ask a card many questions."""

import click

from acestep.cli.options import SIZE_GIB, parsed
from acestep.errors import UsageError
from acestep.knobs import LM_MODELS
from acestep.limits.names import parser_of
from calibrate.options import Several

tiers_option = click.option(
    "--tiers", cls=Several, type=SIZE_GIB, metavar="GIB...", help="Card sizes; the policy's if not given."
)

lm_option = click.option(
    "--lm",
    cls=Several,
    type=parsed(parser_of("lm")),
    metavar="NAME...",
    help="Certify only these language models, or none; all of them if not given.",
)

cap_method_option = click.option(
    "--cap-method",
    type=click.Choice(("fraction", "ballast")),
    default="fraction",
    show_default=True,
    help="How the memory of a real card is limited.",
)

resume_option = click.option("--resume", is_flag=True, help="Continue an interrupted run.")


def models_asked(asked: tuple[str | None, ...]) -> tuple[str, ...]:
    """The language models of `--lm`, smallest first; all of them if it was not given."""
    if not asked:
        return LM_MODELS
    if None in asked and len(set(asked)) > 1:
        raise UsageError("--lm none goes with no other name")
    return tuple(model for model in LM_MODELS if model in asked)
