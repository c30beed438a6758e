"""How much visitors may ask for, and how long what they brought and got is kept."""

from typing import Final

from acestep.units import MIB

MOST_OF_A_VISITOR: Final = 8
"""Runs of one visitor that may wait, the active one included."""

MOST_WAITING: Final = 64
"""Runs of all visitors that may wait."""

LARGEST_UPLOAD_BYTES: Final = 256 * MIB
"""Upload limit: ten minutes of stereo at 48 kHz in 32 bits take 220 MiB."""

HOUR_S: Final = 3_600
DAY_S: Final = 86_400
"""Seconds between clean-ups of uploads and of songs that are served, and the age at which they are deleted."""
