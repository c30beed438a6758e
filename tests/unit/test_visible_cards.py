"""The environment shows cards as CUDA, ROCm and Level Zero read it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acestep.hardware.detection.visible import cuda_visible, mig_visible, rocm_visible, xpu_visible

UUIDS = ("GPU-aaaa-1", "GPU-bbbb-2", "GPU-aabb-3")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (None, (0, 1, 2)),
        ("0", (0,)),
        ("2,0", (2, 0)),
        (" 1 , 2 ", (1, 2)),
        ("+1", (1,)),
        ("1gpu2,2ampere", (1, 2)),
        ("", ()),
        (" ", ()),
        ("-1", ()),
        ("0,-1,1", (0,)),
        ("0,7,1", (0,)),
        ("7,0", ()),
        ("1,1", ()),
        ("0,1,0", ()),
        ("99999999999999999999", ()),
        ("9" * 5000, ()),
        ("0," + "9" * 5000, (0,)),
        ("0" * 5000 + "1", (1,)),
        ("01,1", ()),
        ("-0", (0,)),
        ("GPU-bbbb-2", (1,)),
        ("GPU-b", (1,)),
        ("GPU-aaaa", (0,)),
        ("GPU-aa", ()),
        ("GPU-bbbb-2,GPU-aaaa-1", (1, 0)),
        ("GPU-bbbb-2,GPU-none,GPU-aaaa-1", (1,)),
        ("GPU-bbbb-2,GPU-bb", ()),
        ("GPU-bbbb-2,0", (1,)),
        ("0,GPU-bbbb-2", (0,)),
        ("NoDevFiles", ()),
        ("none", ()),
        ("all", ()),
        ("0;1", (0,)),
        (",0", ()),
    ],
)
def test_cuda_reads_its_list_up_to_the_first_entry_that_names_no_card(text: str | None, shown: tuple[int, ...]) -> None:
    assert cuda_visible(text, UUIDS) == shown


SLICES = (
    ("MIG-11aa-1", "MIG-GPU-aaaa-1/1/0"),
    ("MIG-22bb-2", "MIG-GPU-aaaa-1/2/0"),
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("MIG-22bb-2", 1),
        ("MIG-22bb-2,MIG-11aa-1", 1),
        ("MIG-22", 1),
        ("MIG-GPU-aaaa-1/1/0", 0),
        ("MIG-GPU-aaaa-1/2/0", 1),
        ("MIG-GPU-aaaa-1/3/0", None),
        ("MIG-", None),
        ("MIG-none", None),
    ],
)
def test_of_slices_the_first_that_is_named_is_shown(text: str, shown: int | None) -> None:
    assert mig_visible(text, SLICES) == shown


AMD = ("GPU-4b2c1a9f8d3e6f7a", "GPU-1111222233334444", "GPU-4b2c000000000000")


@pytest.mark.parametrize(
    ("environ", "shown"),
    [
        ({}, (0, 1, 2)),
        ({"HIP_VISIBLE_DEVICES": "1"}, (1,)),
        ({"CUDA_VISIBLE_DEVICES": "1"}, (1,)),
        ({"HIP_VISIBLE_DEVICES": "2", "CUDA_VISIBLE_DEVICES": "1"}, (2,)),
        ({"HIP_VISIBLE_DEVICES": "GPU-1111222233334444"}, (1,)),
        ({"HIP_VISIBLE_DEVICES": ""}, ()),
        ({"HIP_VISIBLE_DEVICES": "-1"}, ()),
        ({"HIP_VISIBLE_DEVICES": "9"}, ()),
        ({"HIP_VISIBLE_DEVICES": "1,1"}, (1,)),
        ({"HIP_VISIBLE_DEVICES": "0,1"}, (0, 1)),
        ({"HIP_VISIBLE_DEVICES": "0, 1"}, (0,)),
        ({"CUDA_VISIBLE_DEVICES": "2,01"}, (2,)),
        ({"HIP_VISIBLE_DEVICES": "1," + "9" * 5000}, (1,)),
        ({"HIP_VISIBLE_DEVICES": "0" * 5000}, ()),
        ({"ROCR_VISIBLE_DEVICES": "1," + "9" * 5000}, (1,)),
        ({"HIP_VISIBLE_DEVICES": "1,7,0"}, (1,)),
        ({"HIP_VISIBLE_DEVICES": "NoDevFiles"}, ()),
        ({"ROCR_VISIBLE_DEVICES": " 0, 1 "}, (0, 1)),
        ({"ROCR_VISIBLE_DEVICES": "gpu-1111222233334444"}, (1,)),
        ({"ROCR_VISIBLE_DEVICES": ""}, ()),
        ({"ROCR_VISIBLE_DEVICES": "-1"}, ()),
        ({"ROCR_VISIBLE_DEVICES": "GPU-XX"}, ()),
        ({"ROCR_VISIBLE_DEVICES": "2,GPU-1111222233334444,4"}, (2, 1)),
        ({"ROCR_VISIBLE_DEVICES": "GPU-1111222233334444"}, (1,)),
        ({"ROCR_VISIBLE_DEVICES": "GPU-1111"}, (1,)),
        ({"ROCR_VISIBLE_DEVICES": "GPU-4b2c"}, ()),
        ({"ROCR_VISIBLE_DEVICES": "2,2,1"}, (2,)),
        ({"ROCR_VISIBLE_DEVICES": "2,0", "HIP_VISIBLE_DEVICES": "1"}, (0,)),
        ({"ROCR_VISIBLE_DEVICES": "2,0", "HIP_VISIBLE_DEVICES": "2"}, ()),
    ],
)
def test_rocm_reads_one_list_within_the_other(environ: dict[str, str], shown: tuple[int, ...]) -> None:
    assert rocm_visible(environ, AMD) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (None, (0, 1)),
        ("", (0, 1)),
        ("1", (1,)),
        ("1,0", (0, 1)),
        ("0.1", (0,)),
        ("5", ()),
        ("5,1", (1,)),
        ("x", ()),
        ("9" * 5000, ()),
    ],
)
def test_an_affinity_mask_hides_what_it_does_not_name(text: str | None, shown: tuple[int, ...]) -> None:
    assert xpu_visible(text, 2) == shown


@given(st.text(alphabet="0123456789,-+ GPUMIGab./x", max_size=20), st.integers(0, 4))
def test_no_text_shows_a_card_twice_or_one_that_is_not_there(text: str, count: int) -> None:
    uuids = [f"GPU-{'ab'[index % 2]}{index}" for index in range(count)]
    for shown in (
        cuda_visible(text, uuids),
        rocm_visible({"HIP_VISIBLE_DEVICES": text, "ROCR_VISIBLE_DEVICES": text}, uuids),
        xpu_visible(text, count),
    ):
        assert len(set(shown)) == len(shown)
        assert set(shown) <= set(range(count))
    mig_visible(text, [(uuid,) for uuid in uuids])
