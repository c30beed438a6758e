"""A knob is declared once: what is added there is an option, a control of the page, a part of records and a rung."""

from typing import Annotated, Any

import msgspec
import pytest

from acestep.checkpoints.catalog import LM_ARCHITECTURES, lm_checkpoint
from acestep.cli.main import cli
from acestep.hardware.card import simulated_card
from acestep.knobs import KNOBS, LM_MODELS, WEIGHT_FORMATS, Knob, Knobs, Quantization, declared_knobs
from acestep.limits.names import parse_knob
from acestep.limits.plan import Overrides, Plan, exact, resolve
from acestep.locale_text import LANGUAGES
from acestep.tiers import load_tiers
from acestep.ui.settings import CONTROL_ROWS, Controls
from acestep.ui.words import PageText
from calibrate.report.words import words_of
from calibrate.table.policy import POLICY_SCHEMA_VERSION, Policy, load_policy
from tests.edited import answer_of

LOOK = """
import msgspec
from acestep.cli.main import cli
from acestep.hardware.card import simulated_card
from acestep.knobs import KNOBS, Knobs
from acestep.limits.plan import overrides_from, resolve
from acestep.tiers import load_tiers
from acestep.ui.settings import CONTROL_ROWS, controls_of, settings_of
from calibrate.explain.repeat import repeat_arguments
from calibrate.record.schema import measurement_schema
from calibrate.table.knobs import describe_knobs, ladder
from calibrate.table.policy import Rung, load_policy
from calibrate.workload import Workload

asked = {asked!r}
option = next(p for p in cli.commands["generate"].params if p.name == {name!r})
plan = resolve(simulated_card(24), load_tiers(), overrides_from(asked))
settings = settings_of(controls_of(plan, tier="", init_lm=True), plan, ())
policy = load_policy()
rung = msgspec.convert({{"offload": "none", "quantization": None, "why": "A rung to try.", **{rung!r}}}, Rung)
answer |= {{
    "help": option.help,
    "parsed": option.type(asked[{name!r}]),
    "plan": getattr(plan.knobs, {name!r}),
    "warnings": plan.warnings,
    "choices": settings[{name!r}].choices,
    "shown": settings[{name!r}].value,
    "on_page": any({name!r} in row for row in CONTROL_ROWS),
    "described": describe_knobs(plan.knobs),
    "rungs": [describe_knobs(k) for k in ladder(msgspec.structs.replace(policy, preference=(rung,)), "turbo")],
    "repeat": repeat_arguments(plan.knobs, Workload(batch=1, duration_s=60.0, with_lm=False), 24),
    "ranks": [KNOBS[{name!r}].rank(value) for value in KNOBS[{name!r}].values],
    "schema": measurement_schema()["$defs"],
}}
"""


def look(name: str, asked: dict[str, Any], rung: dict[str, Any], knobs_py: dict[str, str]) -> dict[str, Any]:
    return answer_of(LOOK.format(name=name, asked=asked, rung=rung), {"acestep.knobs": knobs_py})


@pytest.mark.parametrize("name", ["quantization", "lm_quantization"])
def test_a_weight_format_is_added_in_one_file(name: str) -> None:
    declared = {
        '    W8A8 = "w8a8"\n': '    W8A8 = "w8a8"\n    INT4 = "int4"\n',
        "    # FP8 arithmetic": "    Quantization.INT4: WeightFormat("
        'torchao="Int4WeightOnlyConfig", published="int4_weight_only", bits=4, loss=3),\n    # FP8 arithmetic',
    }
    found = look(name, {name: "int4_weight_only", "lm": "0.6B"}, {"quantization": "int4"}, declared)
    assert "int4" in found["help"]
    assert (found["parsed"], found["plan"], found["shown"]) == ("int4", "int4", "int4")
    assert "int4" in found["choices"]
    assert "int4" in found["described"]
    assert found["rungs"] == ["turbo, offload none, int4"]
    assert found["repeat"][found["repeat"].index(f"--{name.replace('_', '-')}") + 1] == "int4"
    assert found["ranks"][-1] > max(found["ranks"][:-1])
    assert "int4" in found["schema"]["Quantization"]["enum"]


@pytest.mark.parametrize("value", ["sdpa"])
def test_a_knob_is_added_in_one_file(value: str) -> None:
    before = "    compile: Annotated["
    new = '    pace: Annotated[Attention, Knob(noun="pace", about="How fast", added=True)] = Attention.AUTO\n'
    found = look("pace", {"pace": value}, {}, {before: new + before})
    assert found["help"] == "How fast: auto, flash or sdpa."
    assert (found["parsed"], found["plan"], found["shown"]) == (value, value, value)
    assert found["choices"] == ["auto", "flash", "sdpa"]
    assert found["on_page"]
    assert f"pace {value}" in found["described"]
    assert "pace" not in found["rungs"][0]
    assert found["repeat"][found["repeat"].index("--pace") + 1] == value
    assert "pace" in found["schema"]["Knobs"]["properties"]
    assert not found["warnings"]


def test_a_knob_that_is_added_leaves_every_record_valid() -> None:
    program = """
import msgspec
from acestep.tiers import data_file
from calibrate.record.measurement import content_digest, load_measurement
record = load_measurement(data_file("measurements/simulated-turbo.json"))
probe = record.probes[-1]
turned = msgspec.structs.replace(probe, knobs=msgspec.structs.replace(probe.knobs, quiet=True))
digests = {content_digest(msgspec.structs.replace(record, probes=(p,), certificates=())) for p in (probe, turned)}
answer |= {
    "quiet": probe.knobs.quiet,
    "told_apart": len(digests) == 2,
}
"""
    added = '    quiet: Annotated[bool, Knob(noun="quiet", about="Quiet", added=True)] = False\n'
    before = "    compile: Annotated["
    assert answer_of(program, {"acestep.knobs": {before: added + before}}) == {"quiet": False, "told_apart": True}


def test_a_switch_is_added_in_one_file() -> None:
    before = "    compile: Annotated["
    new = '    quiet: Annotated[bool, Knob(noun="quiet", about="Make no noise")] = False\n'
    program = """
from acestep.cli.main import cli
from acestep.limits.plan import overrides_from
from acestep.ui.settings import Controls, overrides_of
option = next(p for p in cli.commands["generate"].params if p.name == "quiet")
answer |= {
    "flags": option.opts + option.secondary_opts,
    "help": option.help,
    "page": overrides_of(Controls(quiet=True), "turbo").quiet,
    "unasked": Controls().quiet,
}
"""
    assert answer_of(program, {"acestep.knobs": {before: new + before}}) == {
        "flags": ["--quiet", "--no-quiet"],
        "help": "Make no noise.",
        "page": True,
        "unasked": False,
    }


def test_a_language_model_is_added_in_two_places() -> None:
    program = """
import msgspec
from acestep.checkpoints.catalog import LM_ARCHITECTURES, lm_checkpoint
from acestep.cli.main import cli
from acestep.limits.names import parse_knob
from acestep.tiers import lm_rank
from calibrate.campaign.run import CampaignScope
from calibrate.table.policy import load_policy
option = next(p for p in cli.commands["generate"].params if p.name == "lm")
policy = load_policy()
last = msgspec.structs.replace(policy.tiers[-1], least_lm="9B")
answer |= {
    "help": option.help,
    "parsed": parse_knob("lm", "acestep-5Hz-lm-9B"),
    "rank": lm_rank("9B"),
    "least": msgspec.convert(msgspec.to_builtins(last), type(last)).least_lm,
    "shape": LM_ARCHITECTURES["acestep-5Hz-lm-9B"].hidden_size,
    "parameters": lm_checkpoint("9B").params,
    "certified": CampaignScope(variant="turbo", sizes_gib=()).models,
}
"""
    found = answer_of(
        program,
        {
            "acestep.knobs": {'("0.6B", "1.7B", "4B")': '("0.6B", "1.7B", "4B", "9B")'},
            "acestep.checkpoints.catalog": {
                '    _lm("0.6B"': '    _lm("9B", 9_000_000_000, _planner(hidden_size=4096)),\n    _lm("0.6B"'
            },
        },
    )
    assert found == {
        "help": "Language model: 0.6B, 1.7B, 4B, 9B or none.",
        "parsed": "9B",
        "rank": 3,
        "least": "9B",
        "shape": 4096,
        "parameters": 9_000_000_000,
        "certified": ["0.6B", "1.7B", "4B", "9B"],
    }


def test_the_two_places_of_a_language_model_agree() -> None:
    assert tuple(LM_ARCHITECTURES) == tuple(lm_checkpoint(name).id for name in LM_MODELS)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_tier_of_any_name_is_added_by_the_policy_alone(language: str) -> None:
    policy: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(load_policy()))
    last = policy["tiers"][-1]
    studio = {
        **last,
        "id": "studio",
        "label": "≥48GB",
        "certified_gib": 48,
        "vram_gib": {**last["vram_gib"], "lower": 48},
    }
    last["vram_gib"] |= {"upper": 48, "upper_inclusive": False}
    policy["tiers"].append(studio)
    added = msgspec.convert(policy, Policy)
    assert (added.schema_version, added.tier_of(48).id) == (POLICY_SCHEMA_VERSION, "studio")
    words, tiers = words_of(language), load_tiers().variants[exact(simulated_card(8), Knobs()).variant].tiers
    named = [words.tier(tier) for tier in (*tiers, msgspec.structs.replace(tiers[-1], id="studio"))]
    assert named[-1] == "studio"
    assert len(set(named)) == len(named)


def test_every_knob_has_one_declaration_from_which_everything_follows() -> None:
    assert tuple(KNOBS) == Knobs.__struct_fields__ == Overrides.__struct_fields__
    assert set(KNOBS) < set(Plan.__struct_fields__)
    flags = {p.name for p in cli.commands["generate"].params} | {"variant"}  # `--model` says which variant
    assert set(KNOBS) <= flags
    shown = [name for row in CONTROL_ROWS for name in row]
    assert set(KNOBS) - {"variant", "offload"} <= set(shown)
    assert Controls.__struct_fields__ == ("tier", "init_lm", *shown)
    for language in LANGUAGES:
        assert set(shown) <= set(PageText(language).texts)
    assert set(WEIGHT_FORMATS) == set(Quantization)
    for name, knob in KNOBS.items():
        assert knob.default in knob.values
        if not knob.is_switch:
            assert [parse_knob(name, text) for text in knob.choices] == sorted(knob.values, key=lambda v: v is None)


@pytest.mark.parametrize("said", [(), (Knob(noun="a", about="A"), Knob(noun="b", about="B"))], ids=["none", "two"])
def test_a_field_without_exactly_one_declaration_is_refused(said: tuple[Knob, ...]) -> None:
    kind: Any = Annotated[str, "a remark", *said]
    with pytest.raises(ValueError, match="unpack"):
        list(declared_knobs(msgspec.defstruct("Wrong", [("field", kind, "")])))


def test_a_wish_that_no_card_can_refuse_is_granted() -> None:
    wishes = {"attention": "sdpa", "offload": "stream+encoders", "lm": "none"}
    plan = resolve(
        simulated_card(8), load_tiers(), Overrides(**{name: parse_knob(name, text) for name, text in wishes.items()})
    )
    assert {name: KNOBS[name].arguments(getattr(plan, name))[1] for name in wishes} == wishes
