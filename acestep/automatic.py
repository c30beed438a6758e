"""-1 for a number that a person leaves open, as other programs have it."""

import secrets

import msgspec

AUTOMATIC = -1
"""Of a seed it means a random one; of other numbers it is 0, which leaves them open."""

RANDOM_SEEDS = 2**31
"""Random seeds are below: few enough digits to write down."""


def drawn_seed(seed: int) -> int:
    """A seed as it is, or a random one for `AUTOMATIC`."""
    return secrets.randbelow(RANDOM_SEEDS) if seed == AUTOMATIC else seed


def leave_open(value: msgspec.Struct, *fields: str) -> None:
    """Set those of the number `fields` of a value that is being created to 0 that are `AUTOMATIC`."""
    for field in fields:
        number = getattr(value, field)
        if number == AUTOMATIC:
            msgspec.structs.force_setattr(value, field, type(number)(0))
