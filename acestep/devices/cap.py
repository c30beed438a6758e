"""Converts a cap in bytes to the fraction of a card that PyTorch takes."""

from acestep.units import gib


def fraction_for(cap_bytes: int, total_bytes: int) -> float:
    """Return the fraction of `total_bytes` that PyTorch converts back to exactly `cap_bytes`.

    PyTorch multiplies the fraction by the total; torch 2.11 rounds the product down, 2.13 and 2.14 round it to the
    nearest byte. A quarter of a byte more gives the cap under both rules: above it when rounded down, and nearer to it
    than to the next byte. Raises `ValueError` for a cap that is not above 0 and within the total.
    """
    if not 0 < cap_bytes <= total_bytes:
        raise ValueError(f"a cap must be above 0 and within the card's {gib(total_bytes)}, got {gib(cap_bytes)}")
    return min(1.0, (cap_bytes + 0.25) / total_bytes)
