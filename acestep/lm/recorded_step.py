"""The steps of a decoder, which a device repeats from a recording where it can make one.

Without a recording the host launches more than a thousand operations for each step, which takes longer than a fast
card needs to compute them.
"""

import logging
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from acestep.devices.base import Device, Recording
from acestep.lm.forward import Cache, Decoder
from acestep.units import ceil_div

_LOG = logging.getLogger(__name__)

REACH: Final = 1_024
"""A recording reads a multiple of this many keys, so that attention reads hardly more than there are."""

WORTH_STEPS: Final = 32
"""A recording is made if at least so many steps can follow; making one takes as long as a few steps."""


class Stepper:
    """Takes a decoder's steps over a cache; `release` frees the recording.

    What a step computes does not depend on whether it is recorded, except for rounding.
    """

    def __init__(self, decoder: Decoder, device: Device) -> None:
        self._decoder = decoder
        self._device = device
        self._recorded: tuple[_FixedStep, Recording] | None = None
        self._refused: object = None

    def step(self, cache: Cache, tokens: Sequence[int], left: int) -> Tensor:
        """Process one more token for every row of the cache, as `Decoder.step` does; `left` steps follow at most."""
        if self._recorded is None or self._recorded[0].case != _case(cache):
            self.release()
            self._recorded = self._record(cache, left)
        if self._recorded is None:
            return self._decoder.step(cache, tokens)
        fixed, recording = self._recorded
        fixed.set(tokens)
        recording.repeat()
        for lane in cache.lanes:
            lane.length += 1
        return fixed.states

    def release(self) -> None:
        """Free the recording, if there is one."""
        if self._recorded is not None:
            self._recorded[1].release()
            self._recorded = None

    def _record(self, cache: Cache, left: int) -> "tuple[_FixedStep, Recording] | None":
        case = _case(cache)
        # A recording would keep the memory for unpacked weights.
        if left < WORTH_STEPS or case == self._refused or self._decoder.unpacks(len(cache.rows)):
            return None
        if self._device.can_record():
            fixed = _FixedStep(self._decoder, self._device, cache)
            if not self._unpacks(fixed) and (recording := self._device.record(fixed.compute)) is not None:
                _LOG.info("recorded a step of %d rows that reads %d tokens", len(cache.rows), _reach(cache))
                return fixed, recording
        # It is tried again when there are other rows, or more keys to read.
        self._refused = case
        return None

    def _unpacks(self, fixed: "_FixedStep") -> bool:
        """Return whether the step unpacks weights, after taking it once where only that can tell."""
        if not self._decoder.is_plain:
            fixed.compute()
        return self._decoder.unpacks(fixed.rows)


def _reach(cache: Cache) -> int:
    """The keys that a recording of the next step reads."""
    longest = max(lane.length for lane in cache.lanes) + 1
    return ceil_div(longest, REACH) * REACH


def _case(cache: Cache) -> object:
    """What a recording depends on."""
    return _reach(cache), tuple((id(lane), len(lane.rows)) for lane in cache.lanes)


class _FixedStep:
    """A step over the rows that a cache has now, whose tokens and lengths are read from fixed addresses.

    `states` [rows, width] are its hidden states.
    """

    def __init__(self, decoder: Decoder, device: Device, cache: Cache) -> None:
        self.case = _case(cache)
        self.states: Tensor
        self._decoder = decoder
        self._device = device
        self._lanes = list(cache.lanes)
        self._reach = _reach(cache)
        rows, lanes = len(cache.rows), len(self._lanes)
        self.rows = rows
        self._inputs = torch.empty(rows + lanes, dtype=torch.int64, device=device.torch_device)
        self._tokens = self._inputs[:rows]
        self._lengths = [self._inputs[at : at + 1] for at in range(rows, rows + lanes)]
        self.set([0] * rows)
        for lane in self._lanes:
            # A key that does not count has the weight zero, and memory that was never written can hold NaN: zero times
            # NaN is NaN.
            lane.store[..., lane.length :, :].zero_()

    def set(self, tokens: Sequence[int]) -> None:
        """Copy the tokens of the rows and the lengths of the lanes to where the step reads them."""
        values = torch.tensor([*tokens, *(lane.length for lane in self._lanes)])
        self._inputs.copy_(self._device.upload(values, "prompt"))

    def compute(self) -> None:
        """Compute `states`."""
        self.states = self._decoder.step_at(self._lanes, self._tokens, self._lengths, self._reach)
