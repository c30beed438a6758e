"""Changes that make a table, policy or record worse, each with the rule that must find it."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from ci.findings import GATE_RULES, GateVerdict
from tests.gate_house import STATES, Change, Document, House, set_reach


class Fault(NamedTuple):
    """A change for the worse, the id of the rule it breaks, and the field that is to be named."""

    name: str
    rule: str
    field: str
    change: Change

    @property
    def verdict(self) -> GateVerdict:
        return GATE_RULES[self.rule].verdict


def tier_with_lm(house: House) -> Document:
    """A tier that offers several language models and gives up nothing for them, so that every field can be lost."""
    return next(tier for tier in house.tiers if tier["id"] == "tier5")


def _in_tier(change: Callable[[Document], object]) -> Change:
    return lambda house: change(tier_with_lm(house))


def _put(name: str, value: Any) -> Change:
    return _in_tier(lambda tier: tier.__setitem__(name, value))


def _lower(state: str, size: int) -> Change:
    """A batch, and every larger one, reaches a minute less far."""

    def change(tier: Document) -> None:
        reach = tier["frontier"][state]
        set_reach(tier, state, {n: min(s, reach[str(size)] - 60) for n, s in reach.items() if int(n) >= size})

    return _in_tier(change)


def without_lm(tier: Document) -> None:
    tier.update(lm_models=[], recommended_lm=None, lm_quantization=None, init_lm=False)
    tier.update(lm_songs_per_pass={}, lm_needs={})
    set_reach(tier, "with_lm", dict.fromkeys(("1", "2", "4", "8"), 0))


def _one_lm_less(tier: Document) -> None:
    lost = tier["lm_models"].pop(0)
    del tier["lm_songs_per_pass"][lost]


def _smaller_recommended(tier: Document) -> None:
    tier["recommended_lm"] = tier["lm_models"][0]


def _one_song_less(tier: Document) -> None:
    model = next(name for name, songs in tier["lm_songs_per_pass"].items() if songs > 1)
    tier["lm_songs_per_pass"][model] -= 1


def _without_tier(house: House) -> None:
    """The first tier goes, and the second takes its cards."""
    house.tiers.pop(0)
    house.tiers[0]["vram_gib"] |= {"lower": 0, "lower_inclusive": True}
    boundaries = _boundaries(house)
    for boundary in (boundaries["without_int8"], boundaries["without_offload"], *boundaries["lm"].values()):
        if boundary["tier"] == "tier1":
            boundary["tier"] = ""


def _moved_range(house: House) -> None:
    """The cards between two tiers fall to the lower one."""
    below, above = house.tiers[3:5]
    below["vram_gib"]["upper"] = above["vram_gib"]["lower"] = 12.5
    above["certified_gib"] = 13


def _boundaries(house: House) -> Document:
    return house.table["variants"]["turbo"]["boundaries"]  # type: ignore[no-any-return]


def _larger_smallest_card(name: str, value: int) -> Change:
    return lambda house: _boundaries(house)[name].update(fits_gib=value)


def _no_evidence(house: House) -> None:
    del tier_with_lm(house)["evidence"]["max_batch"]


def _weaker_evidence(house: House) -> None:
    tier_with_lm(house)["evidence"]["frontier"]["kind"] = "estimated"


def _other_table_digest(house: House) -> None:
    made_from = house.table["generated_from"]
    made_from["records"] = ["sha256:" + "7" * 64]


def _other_evidence_digest(house: House) -> None:
    tier_with_lm(house)["evidence"]["max_batch"]["record"] = "sha256:" + "7" * 64


def _other_policy_digest(house: House) -> None:
    house.table["generated_from"]["policy"] = "sha256:" + "7" * 64


def _raw(name: str, text: str | None) -> Change:
    return lambda house: house.texts.__setitem__(name, text)


def _nan(house: House) -> None:
    text = json.dumps(house.table).replace('"certified_gib": 4,', '"certified_gib": NaN,', 1)
    house.texts["generated_tiers.json"] = text


def _infinite(house: House) -> None:
    house.table["variants"]["turbo"]["memory_model"]["weights"] = 0
    house.texts["generated_tiers.json"] = json.dumps(house.table).replace('"weights": 0', '"weights": 1e999')


def _cut(house: House) -> None:
    house.texts["generated_tiers.json"] = json.dumps(house.table)[:-200]


def _unlike_its_headline(house: House) -> None:
    tier_with_lm(house)["max_batch"]["without_lm"] += 8


def _budget(term: str) -> Change:
    return lambda house: house.policy["budget"].update({term: {"why": "It takes nothing."}})


def _policy_tier(**values: Any) -> Change:
    return lambda house: house.policy["tiers"][-1].update(values)


def _other_variant_only(house: House) -> None:
    house.table["variants"] = {"base": house.table["variants"]["turbo"]}


FIELDS = [
    *(
        Fault(
            f"the frontier's batch of {size} reaches less, {state}", rule, f"{field}.{state}{part}", _lower(state, size)
        )
        for state in STATES
        for size, rule, field, part in (
            (1, "G503", "max_duration_s", ""),
            (2, "G502", "max_batch", ""),
            (4, "G504", "frontier", ".4"),
            (8, "G504", "frontier", ".8"),
        )
    ),
    Fault("every language model is lost", "G505", "lm_models", _in_tier(without_lm)),
    Fault("one language model is lost", "G505", "lm_models", _in_tier(_one_lm_less)),
    Fault("a smaller model is recommended", "G505", "recommended_lm", _in_tier(_smaller_recommended)),
    Fault("a model thinks of fewer songs at once", "G510", "lm_songs_per_pass", _in_tier(_one_song_less)),
    Fault("more is offloaded", "G506", "offload", _put("offload", "stream+encoders")),
    Fault("the transformer is quantized", "G507", "quantization", _put("quantization", "int8")),
    Fault("the language model is quantized", "G507", "lm_quantization", _put("lm_quantization", "int8")),
    Fault("a backend is lost", "G511", "backends_allowed", _put("backends_allowed", ["vllm"])),
    Fault("compiling is off", "G511", "compile", _put("compile", False)),
    Fault("the model is not loaded by default", "G511", "init_lm", _put("init_lm", False)),
    Fault("a tier disappears", "G501", "id", _without_tier),
    Fault("cards fall to the tier below", "G402", "vram_gib.lower", _moved_range),
    Fault(
        "INT8 is needed on larger cards", "G508", "boundaries.without_int8", _larger_smallest_card("without_int8", 24)
    ),
    Fault(
        "offload is needed everywhere",
        "G508",
        "boundaries.without_offload",
        _larger_smallest_card("without_offload", 0),
    ),
    Fault(
        "a model's boundary is gone", "G508", "boundaries.lm.0.6B", lambda house: _boundaries(house)["lm"].pop("0.6B")
    ),
    Fault("evidence is lost", "G509", "evidence.max_batch", _no_evidence),
    Fault("evidence is weaker", "G509", "evidence.frontier", _weaker_evidence),
]
"""Every field of the table made worse, in a table that still follows its schema."""

FILES = [
    Fault("NaN", "G101", "generated_tiers.json", _nan),
    Fault("a number beyond all numbers", "G101", "generated_tiers.json", _infinite),
    Fault("a table cut short", "G101", "generated_tiers.json", _cut),
    Fault("an empty document", "G101", "generated_tiers.json", _raw("generated_tiers.json", "{}")),
    Fault("an empty file", "G101", "generated_tiers.json", _raw("generated_tiers.json", "")),
    Fault("no table", "G101", "generated_tiers.json", _raw("generated_tiers.json", None)),
    Fault("a table without tiers", "G101", "generated_tiers.json", lambda house: house.tiers.clear()),
    Fault("a table of another variant", "G101", "generated_tiers.json", _other_variant_only),
    Fault("a headline unlike its frontier", "G101", "generated_tiers.json", _unlike_its_headline),
    Fault("an unknown field", "G101", "generated_tiers.json", lambda house: house.table.update(more=1)),
    Fault("a policy that is no JSON", "G101", "policy.json", _raw("policy.json", "no")),
    Fault("waivers that are no list", "G101", "waivers.json", _raw("waivers.json", "{}")),
    Fault("a tolerance that is no number", "G101", "tolerance.json", lambda h: h.tolerance.update(peak_share="all")),
    Fault("the digest of a record edited in the table", "G103", "generated_from.records", _other_table_digest),
    Fault("the digest of a record edited in the evidence", "G103", "evidence.max_batch", _other_evidence_digest),
    Fault("the digest of the policy edited", "G103", "generated_from.policy", _other_policy_digest),
]
"""Files that must be refused."""

POLICIES = [
    Fault("no headroom", "G401", "budget_bytes", _budget("headroom")),
    Fault("no margin", "G401", "budget_bytes", lambda house: house.policy.pop("margin")),
    Fault("nothing for Windows", "G401", "budget_bytes.windows", lambda house: house.policy["budget"].pop("windows")),
    Fault("no context", "G401", "budget_bytes", _budget("context")),
    Fault("no shortfall", "G401", "budget_bytes", _budget("shortfall")),
    Fault("a tier certified on a larger card", "G402", "policy.certified_gib", _policy_tier(certified_gib=32)),
    Fault("a smaller model is enough", "G404", "policy.least_lm", _policy_tier(least_lm="0.6B")),
    Fault("models may be quantized", "G404", "policy.lm_quantizations", _policy_tier(lm_quantizations=["int8"])),
    Fault("the frugal rungs first", "G404", "preference", lambda house: house.policy["preference"].reverse()),
    Fault("no model begins with a tier", "G404", "policy.init_lm", _policy_tier(init_lm=False)),
    Fault("one backend less", "G404", "policy.backends_allowed", _policy_tier(backends_allowed=["vllm"])),
    Fault("fewer lengths are tried", "G404", "durations_s", lambda house: house.policy["durations_s"]["values"].pop(3)),
    Fault("shorter songs are enough", "G404", "durations_s", lambda house: house.policy["durations_s"]["values"].pop()),
    Fault("a raised tolerance", "G403", "peak_share", lambda house: house.tolerance.update(peak_share=0.03)),
]
"""Rules of the table made looser."""


def _edited_peak(house: House) -> None:
    house.record["probes"][0]["stages"][0]["peak_allocated_bytes"] += 1


def _edited_record_digest(house: House) -> None:
    house.record["digest"] = "sha256:" + "7" * 64


def _unknown_code(house: House) -> None:
    house.record["code_version"] = "0.1.0+tree." + "7" * 16
    house.seal()


def _hole_in_a_bracket(house: House) -> None:
    """The failing song of a certificate becomes a longer one than the next."""
    certificates, probes = house.record["certificates"], house.record["probes"]
    wide = next(
        c
        for c in certificates
        if None not in (c["fits"], c["fails"]) and probes[c["fails"]]["workload"]["duration_s"] < 540
    )
    probes[wide["fails"]]["workload"]["duration_s"] += 30
    house.seal()


def _no_failure(house: House) -> None:
    """A certificate no longer says what fails."""
    certificates, probes = house.record["certificates"], house.record["probes"]
    reached = {
        (c["cap_bytes"], probes[c["fits"]]["workload"]["duration_s"]): 0 for c in certificates if c["fits"] is not None
    }
    for c in certificates:
        if c["fits"] is not None:
            reached[c["cap_bytes"], probes[c["fits"]]["workload"]["duration_s"]] += 1
    single = next(
        c
        for c in certificates
        if None not in (c["fits"], c["fails"])
        and reached[c["cap_bytes"], probes[c["fits"]]["workload"]["duration_s"]] == 1
    )
    single["fails"] = None
    house.seal()


def _less_than_the_code_takes(house: House) -> None:
    for stage in (stage for probe in house.record["probes"] for stage in probe["stages"]):
        for name in ("peak_allocated_bytes", "resident_bytes"):
            stage[name] = int(stage[name] * 0.9)
    house.seal()


RECORDS = [
    Fault("a record of less than the code takes", "G108", "peak_allocated_bytes", _less_than_the_code_takes),
    Fault("a peak edited", "G104", "$.digest", _edited_peak),
    Fault("the digest of a record edited", "G104", "$.digest", _edited_record_digest),
    Fault("a record cut short", "G104", "$", _raw("measurements/fake.json", '{"schema_version": 1')),
    Fault("a record that calls for code", "G104", "$", _raw("measurements/more.json", "__import__('os')")),
    Fault("no record", "G102", "generated_tiers.json", _raw("measurements/fake.json", None)),
    Fault("a table edited for the better", "G102", "generated_tiers.json", _put("label", "any size")),
    Fault("a record of unknown code", "G105", "code_version", _unknown_code),
    Fault("a bracket with a hole", "G106", "certificates", _hole_in_a_bracket),
    Fault("a bracket with one side", "G106", "certificates", _no_failure),
]
"""Records that must be refused, and tables that do not follow from theirs."""
