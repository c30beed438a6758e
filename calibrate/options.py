"""Options that take several values after one flag, shared by the profiler and `calibrate`."""

from collections.abc import Collection, Sequence
from typing import Any, Final

import click

from acestep.budgets import System
from acestep.errors import UsageError

SYSTEM_OPTION: Final[dict[str, Any]] = {
    "type": click.Choice([system.value for system in System]),
    "default": System.LINUX.value,
    "show_default": True,
    "callback": lambda _, __, value: System(value),
    "help": "What the simulated card runs under.",
}
"""The attributes of `--os`, which gives the parameter `system`."""

system_option = click.option("--os", "system", **SYSTEM_OPTION)


def require_simulated(system: System, device: str) -> None:
    """Raise `UsageError` for a system chosen for a real card, which runs under its own."""
    if system is System.WINDOWS and device != "simulated":
        raise UsageError(f"--os chooses what a simulated card runs under; with --device {device} leave it out")


class Several(click.Option):
    """An option that takes every value up to the next option: ``--tiers 6 8 16``."""

    def __init__(self, param_decls: Sequence[str] | None = None, **attributes: Any) -> None:
        super().__init__(param_decls, **{**attributes, "multiple": True})


class SpreadingCommand(click.Command):
    """A command whose `Several` options may be followed by more than one value."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat an option's name before each of its values, which is the form click reads."""
        names = {name for param in self.params if isinstance(param, Several) for name in param.opts}
        return super().parse_args(ctx, spread(args, names))


def spread(args: Sequence[str], names: Collection[str]) -> list[str]:
    """`args` with each of `names` repeated before every value that follows it, up to the next option."""
    out: list[str] = []
    current = ""
    for arg in args:
        if arg.startswith("-"):
            current = arg if arg in names else ""
        elif current and out[-1] != current:
            out.append(current)
        out.append(arg)
    return out
