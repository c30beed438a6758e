from enum import Enum, auto
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from torch import Tensor

from acestep.devices.cpu import CpuDevice
from acestep.lm.backends.vllm_rows import ActiveDrafts, BatchRow, PairedRows, rows_of
from acestep.lm.sampling import Draft, Sampler, guide
from acestep.thinking import Sampling
from tests.tiny_planner import CODES, END, GREEDY, VOCABULARY, song

GUIDED = replace(GREEDY, guidance=2.0)


class Direction(Enum):
    UNIDIRECTIONAL = auto()
    SWAP = auto()


def processor(*drafts: Draft) -> PairedRows:
    active = ActiveDrafts(Sampler(CpuDevice()))
    active.drafts = dict(enumerate(drafts))
    made: type[PairedRows] = type("Made", (PairedRows,), {"active": active})
    return made(None, torch.device("cpu"), False)


def draft(sampling: Sampling = GREEDY, codes: int = 5) -> Draft:
    return Draft(song(length=3, codes=codes, sampling=sampling))


def update(*, added: Any = (), removed: Any = (), moved: Any = ()) -> Any:
    coming = [
        (index, SimpleNamespace(extra_args={} if row is None else {"row": list(row)}), [1], []) for index, row in added
    ]
    return SimpleNamespace(added=coming, removed=removed, moved=moved)


def noise(rows: int) -> Tensor:
    return torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(rows))


def chosen(logits: Tensor) -> list[int]:
    """The one token each row may write, -1 for a row that may write any."""
    return [int(row.argmax()) if row.isinf().sum() == VOCABULARY - 1 else -1 for row in logits]


def test_both_rows_of_a_pair_write_the_token_of_their_blended_logits() -> None:
    rows, logits = processor(draft(GUIDED)), noise(3)
    rows.update_state(update(added=[(2, BatchRow(0, wishes=True)), (0, BatchRow(0, wishes=False))]))
    expected = CODES.start + int(guide(logits[2], logits[0], 2.0)[CODES.start : CODES.stop].argmax())
    assert chosen(rows.apply(logits.clone())) == [expected, -1, expected]


def test_a_row_without_its_partner_is_not_changed() -> None:
    rows, logits = processor(draft(GUIDED), draft()), noise(2)
    rows.update_state(update(added=[(0, BatchRow(0, wishes=True)), (1, BatchRow(1, wishes=True))]))
    first, second = chosen(rows.apply(logits.clone()))
    assert first == -1
    assert second in CODES


def test_rows_of_no_draft_are_not_changed() -> None:
    rows, logits = processor(draft()), noise(3)
    rows.update_state(update(added=[(0, None), (1, BatchRow(7, wishes=True)), (2, BatchRow(0, wishes=True))]))
    assert [token >= 0 for token in chosen(rows.apply(logits.clone()))] == [False, False, True]


def test_a_forced_token_needs_no_logits() -> None:
    rows = processor(draft(codes=0))
    rows.update_state(update(added=[(0, BatchRow(0, wishes=True))]))
    assert chosen(rows.apply(torch.full((1, VOCABULARY), torch.nan))) == [END]


def test_choosing_again_gives_the_same_token() -> None:
    rows, logits = processor(draft(Sampling()), draft(Sampling(guidance=1))), noise(3)
    rows.update_state(
        update(added=[(i, row) for i, row in enumerate([*rows_of(0, draft(Sampling()).job), BatchRow(1, True)])])
    )
    assert chosen(rows.apply(logits.clone())) == chosen(rows.apply(logits.clone()))


def test_no_update_changes_nothing() -> None:
    rows = processor(draft())
    rows.update_state(update(added=[(1, BatchRow(0, wishes=True))]))
    rows.update_state(None)
    assert [token >= 0 for token in chosen(rows.apply(noise(2)))] == [False, True]


@given(data=st.data())
def test_rows_are_followed_through_every_way_a_batch_can_change(data: st.DataObject) -> None:
    """Against a batch kept as a plain list of places, changed as vLLM changes its own."""
    rows, places, coming = processor(), dict[int, BatchRow | None](), 0
    for _ in range(data.draw(st.integers(1, 8))):
        removed = data.draw(st.lists(st.sampled_from(sorted(places)), unique=True) if places else st.just([]))
        for index in removed:
            del places[index]
        added = []
        for index in data.draw(st.lists(st.integers(0, 7), unique=True, max_size=3)):
            row = data.draw(st.sampled_from([BatchRow(coming, wishes=True), None]))
            coming += 1
            places[index] = row
            added.append((index, row))
        moved = []
        for _ in range(data.draw(st.integers(0, 3))):
            if not places:
                break
            source, direction = data.draw(st.sampled_from(sorted(places))), data.draw(st.sampled_from(Direction))
            target = data.draw(st.integers(0, 7).filter(lambda index, source=source: index != source))
            if direction is Direction.SWAP and target not in places:
                continue
            moved.append((source, target, direction))
            left = places.pop(target, None)
            places[target] = places.pop(source)
            if direction is Direction.SWAP:
                places[source] = left
        rows.update_state(update(removed=removed, added=added, moved=moved))
        assert rows._rows == {index: row for index, row in places.items() if row is not None}


@pytest.mark.parametrize(("sampling", "wishes"), [(GREEDY, [True]), (GUIDED, [True, False])])
def test_guided_drafts_have_two_rows_and_others_one(sampling: Sampling, wishes: list[bool]) -> None:
    assert [row.wishes for row in rows_of(4, draft(sampling).job)] == wishes
