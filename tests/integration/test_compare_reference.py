"""What we compute on the original's small weights is what the original computes, and the tool says where it is not."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from acestep.errors import Exit, InvalidInputError, UsageError
from acestep.knobs import Variant
from acestep.request import Task
from tests.references import NOT_HERE, REFERENCE
from tools.compare_reference import COMPARED, CaseDifferences, difference, main, request_of, seeds_of

UPSTREAM = REFERENCE / "upstream"
here = pytest.mark.skipif(not UPSTREAM.exists(), reason=NOT_HERE)


@here
def test_every_case_is_the_original_s(capsys: pytest.CaptureFixture[str]) -> None:
    code = main([str(UPSTREAM)])
    told = capsys.readouterr().out
    cases = [line.split()[:2] for line in told.splitlines()[:-1]]
    listed = {variant: json.loads((UPSTREAM / f"{variant}.json").read_text()) for variant in ("turbo", "xl-base")}
    assert cases == [[variant, case] for variant, requests in listed.items() for case in requests]
    assert "ABOVE" not in told
    assert code == Exit.OK


@here
@pytest.mark.parametrize("name", COMPARED)
def test_a_difference_is_found(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One case whose reference is off by a ten-thousandth of its largest number."""
    case = "t2m_dcw"
    for shared in UPSTREAM.iterdir():
        if shared.is_dir() and shared.name != "acestep-v15-xl-base":
            (tmp_path / shared.name).symlink_to(shared)
    (tmp_path / "turbo.json").write_text(json.dumps({case: json.loads((UPSTREAM / "turbo.json").read_text())[case]}))
    tensors = {key: tensor for key, tensor in load_file(UPSTREAM / "turbo.safetensors").items() if key.startswith(case)}
    tensors[f"{case}.{name}"][0, 5, 7] += 1e-4 * tensors[f"{case}.{name}"].abs().max()
    save_file(tensors, tmp_path / "turbo.safetensors")
    assert main([str(tmp_path)]) == Exit.REGRESSED
    assert "ABOVE" in capsys.readouterr().out
    assert main([str(tmp_path), "--tolerance", "1e-2"]) == Exit.OK


def test_a_folder_of_another_form_is_invalid_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == Exit.INVALID
    assert "has no VARIANT.json" in capsys.readouterr().err


def test_shapes_and_numbers_that_are_none_differ_infinitely() -> None:
    ones = torch.ones(1, 3, 2)
    assert difference(ones, ones) == 0
    assert difference(ones, torch.ones(1, 4, 2)) == float("inf")
    assert difference(ones * float("nan"), ones) == float("inf")
    assert difference(ones * 1.5, ones * 2) == 0.25
    assert difference(ones * 0, ones * 0) == 0
    assert difference(ones, ones * 0) == 1


def test_only_the_context_of_encoded_audio_may_differ_more() -> None:
    shares = {"condition": 1e-6, "context": 1e-4, "latents": 1e-7}
    for encoded in (True, False):
        case = CaseDifferences(variant="turbo", case="cover", differences=shares, encoded=encoded)
        assert case.within(2e-5) is encoded
        assert not case.within(1e-8)


def test_what_was_not_compared_is_not_within() -> None:
    for missing in COMPARED:
        shares = {name: 0.0 for name in COMPARED if name != missing}
        assert not CaseDifferences(variant="turbo", case="x", differences=shares, encoded=False).within(1.0)


def test_requests_and_tensors_that_do_not_belong_together_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(requests: str | None, *tensors: str) -> str:
        for file in tmp_path.iterdir():
            file.unlink()
        if requests is not None:
            (tmp_path / "turbo.json").write_text(requests)
        if tensors:
            save_file({name: torch.ones(1) for name in tensors}, tmp_path / "turbo.safetensors")
        assert main([str(tmp_path)]) == Exit.INVALID
        return capsys.readouterr().err

    all_three = [f"a.{name}" for name in COMPARED]
    assert "cannot be read" in told('{"a": {}}')
    assert "cannot be read" in told(None, *all_three)
    assert "cannot be read" in told("[]", *all_three)
    assert "has no a.latents" in told('{"a": {}}', *all_three[:2])
    assert "lacks the request of b.latents" in told('{"a": {}}', *all_three, "b.latents")


def test_songs_of_a_batch_have_the_seeds_that_are_listed_or_those_after_the_first() -> None:
    assert seeds_of({"seed": 7}) == [7]
    assert seeds_of({"seed": 7, "batch_size": 3}) == [7, 8, 9]
    assert seeds_of({"seeds": [5, 2], "batch_size": 2}) == seeds_of({"seed": "5,2"}) == [5, 2]
    with pytest.raises(UsageError, match="a batch of 3 has 2 seeds"):
        seeds_of({"seeds": [5, 2], "batch_size": 3})


def test_a_request_of_the_original_becomes_ours(tmp_path: Path) -> None:
    asked = {
        "task_type": "text2music",
        "captions": "x",
        "dcw": True,
        "cfg_interval_start": 0.2,
        "cfg_interval_end": 0.7,
    }
    ours = request_of(asked, tmp_path, Variant.XL_TURBO)
    assert (ours.task, ours.dcw) == (Task.TEXT2MUSIC, True)
    assert ours.guidance_interval == pytest.approx((0.3, 0.8))
    assert request_of(asked, tmp_path, Variant.SFT).dcw is False
    assert request_of(asked | {"audio_codes": [1] * 30}, tmp_path, Variant.TURBO).task is Task.COVER
    with pytest.raises(InvalidInputError, match="unknown fields: swing"):
        request_of(asked | {"swing": 1}, tmp_path, Variant.TURBO)
