"""`python -m ci.gate`: the verdict on a change. Fails closed: what cannot be read or compared never passes."""

import datetime
import secrets
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from acestep.cli import console
from acestep.cli.options import json_option
from acestep.errors import UsageError
from acestep.knobs import Variant
from calibrate.extras import require_extra

if TYPE_CHECKING:
    from ci.head_channel import HeadPlaces
    from ci.judge import Judgement


class _File(click.Path):
    """A file name: an empty text, as an unset variable of a script gives, would mean the current folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("it needs the name of a file, got an empty text.", param, ctx)
        return super().convert(value, param, ctx)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--base", required=True, metavar="REF", help="The git commit that says what was promised before.")
@click.option(
    "--tree",
    type=_File(path_type=Path, exists=True, file_okay=False),
    metavar="FOLDER",
    help="Judge this checkout, as data, with the code of the checkout that the command runs in.",
)
@click.option("--head", type=_File(path_type=Path), metavar="FILE", help="The table to judge; that of the tree.")
@click.option("--table-only", is_flag=True, help="Judge the table and the policy; run no code, read no new record.")
@click.option(
    "--variant",
    "variants",
    multiple=True,
    type=click.Choice([variant.value for variant in Variant]),
    help="Simulate the code of this variant only; may be given several times. All of them if it is not given.",
)
@click.option("--virtual", is_flag=True, help="Run the cells that the change touches on a virtual card too.")
@click.option(
    "--executor",
    type=click.Choice(("local", "ray")),
    default="local",
    show_default=True,
    help="Where the code is simulated: on this machine, or on the cores of a Ray cluster, each cell on its own.",
)
@click.option("--address", metavar="ADDRESS", help="The address of the Ray cluster; that of this machine if not given.")
@click.option("--junit", type=_File(path_type=Path, dir_okay=False), metavar="FILE", help="Write JUnit XML here.")
@click.option("--seed", type=click.IntRange(min=0), metavar="N", help="Draw the sample of an earlier run again.")
@click.option("--all", "single", is_flag=True, help="List every finding, besides one line for each cause.")
@json_option
def gate(
    base: str,
    tree: Path | None,
    head: Path | None,
    table_only: bool,
    variants: tuple[str, ...],
    virtual: bool,
    executor: str,
    address: str | None,
    junit: Path | None,
    seed: int | None,
    single: bool,
    as_json: bool,
) -> int:
    """Check whether a change lowers a limit of any card, or needs more memory anywhere.

    The table is compared cell by cell, and the code of the tree is simulated at the limits certified at the base.

    The gate of the base judges. Without --tree it is taken from there, and judges this checkout. If the change
    brings another gate, that one is asked too, and a maintainer has to review the change. The same holds where --tree
    names the checkout of this gate, because that checkout then judges itself.

    With --virtual, the cells that changed files touch also run with PyTorch's CUDA build on a virtual card, which sees
    code that takes memory only on CUDA; `make virtual-card` installs it.

    With --executor ray the change's code runs on the machines of a cluster: use it for people you trust.

    With --variant, the code of other variants is not simulated, and the verdict names them. Tables and records are
    compared as a whole.

    A layer that looks like an earlier one is not computed again, except for a random sample of them; --seed repeats it.

    Exit code 0 ok, 1 regressed, 3 a file of the change is not valid, 4 nothing could be compared, or the judge changes.
    """
    from acestep.output_file import output_file
    from ci.checkout import CHECKOUT
    from ci.judge import judge
    from ci.on_virtual_card import nothing_besides, on_a_virtual_card
    from ci.output import junit_xml
    from ci.two_judges import NO_JUDGE, GateOptions, beside_the_head, judged_by_base, judged_by_itself

    if not base:
        raise UsageError("--base needs a git commit, for example --base origin/main")
    if table_only and variants:
        raise UsageError("--table-only runs no code, so it does not go with --variant; leave one of them out")
    spreading = _spreading(executor, address)
    judged = (tree or CHECKOUT).resolve()
    if junit is not None:
        _refuse_what_is_read(junit, judged, head)
    if seed is None:
        seed = secrets.randbits(32)
    options = GateOptions(
        judging=_options(head, table_only=table_only, virtual=virtual, seed=seed),
        spreading=spreading,
        choosing=[part for name in variants for part in ("--variant", name)],
    )
    if tree is None:
        for_people = [
            *(["--junit", str(junit.resolve())] if junit else []),
            *(["--all"] if single else []),
            *(["--json"] if as_json else []),
        ]
        code = judged_by_base(judged, base, options, for_people)
        if code is not None:
            return code
    if not table_only:
        console.notify(f"The sample of layers that are computed again is drawn with --seed {seed}.")
    today = datetime.datetime.now(tz=datetime.UTC).date()
    besides = on_a_virtual_card(judged, base, console.notify) if virtual else nothing_besides
    with output_file(junit) as write, _places(executor, address) as places:
        judgement = judge(
            judged,
            base,
            head,
            today,
            table_only=table_only,
            variants=[Variant(name) for name in variants],
            progress=console.notify,
            seed=seed,
            besides=besides,
            places=places,
        )
        if judged == CHECKOUT:
            judgement = judged_by_itself(judgement, "--tree names the gate's own checkout" if tree else NO_JUDGE)
        else:
            judgement = beside_the_head(judgement, judged, base, options)
        if junit is not None:
            write(junit_xml(judgement))
    tell(judgement, single=single, as_json=as_json)
    return judgement.verdict.exit


def _spreading(executor: str, address: str | None) -> list[str]:
    """The options that another gate needs to use the same machines. Raises `MissingExtraError` without Ray."""
    if executor == "ray":
        require_extra("ray")
        return ["--executor", executor, "--address", address or "auto"]
    if address is not None:
        raise UsageError("--address goes only with --executor ray; leave it out")
    return []


@contextmanager
def _places(executor: str, address: str | None) -> "Iterator[HeadPlaces]":
    """Where the code of the change is simulated."""
    from ci.side_by_side import LOCAL_PLACES

    if executor == "local":
        yield LOCAL_PLACES
        return
    from calibrate.executors.ray_cluster import RayCluster
    from ci.head_on_ray import RayPlaces

    # Ray tells people on stdout what happens to its nodes.
    with redirect_stdout(sys.stderr), closing(RayCluster(address or "auto")) as cluster:
        yield RayPlaces(cluster)


def _options(head: Path | None, *, table_only: bool, virtual: bool, seed: int) -> list[str]:
    """The options that decide what is judged, for another gate."""
    named = ["--head", str(head.resolve())] if head else []
    flags = [name for name, on in (("--table-only", table_only), ("--virtual", virtual)) if on]
    return [*named, *flags, "--seed", str(seed)]


def _refuse_what_is_read(junit: Path, tree: Path, head: Path | None) -> None:
    """Raise `UsageError` if the report would replace an input of the gate."""
    from ci.promises import TABLE_FILE, is_read

    judged = tree / "tiers" / TABLE_FILE
    if any(is_read(junit, table, table.parent) for table in (judged, head or judged)):
        raise UsageError(f"--junit {junit} is a file that the gate reads; choose another path for the report")


def tell(judgement: "Judgement", *, single: bool = False, as_json: bool) -> None:
    """Print the verdict for a person or a script, and write GitHub's outputs if it runs there."""
    import os
    from functools import partial

    from ci import output

    console.answer(judgement, partial(output.print_findings, single=single), as_json=as_json)
    if os.environ.get("GITHUB_ACTIONS") == "true":
        for line in output.annotations(judgement.findings):
            console.notify(line)
        for variable, text in (
            ("GITHUB_STEP_SUMMARY", output.summary(judgement)),
            ("GITHUB_OUTPUT", output.outputs(judgement)),
        ):
            output.append(os.environ.get(variable, ""), text)


if __name__ == "__main__":
    console.run_and_exit(gate)
