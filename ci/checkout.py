"""The checkout that this gate is part of."""

from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
"""The folder of the `ci` and `calibrate` that judge."""
