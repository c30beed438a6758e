"""The value -1 for a number that the user leaves open, as in other programs."""

import msgspec

AUTOMATIC = -1
"""For a seed it means a random one; other numbers become 0, which means automatic."""

RANDOM_SEEDS = 2**31
"""Upper bound of random seeds: short enough to write down."""


def drawn_seed(seed: int) -> int:
    """Return a seed unchanged, or a random one for `AUTOMATIC`."""
    if seed != AUTOMATIC:
        return seed
    # Every command imports this module, and few of them draw a number.
    import secrets

    return secrets.randbelow(RANDOM_SEEDS)


def leave_open(value: msgspec.Struct, *fields: str) -> None:
    """Set the number `fields` that are `AUTOMATIC` to 0, in a value that is being created."""
    for field in fields:
        number = getattr(value, field)
        if number == AUTOMATIC:
            msgspec.structs.force_setattr(value, field, type(number)(0))
