"""Results of other programs, in a folder beside the checkout that is not part of the repository."""

from pathlib import Path

REFERENCE = Path(__file__).parents[2] / "shared" / "reference"

NOT_HERE = "the folder shared/reference is not beside this checkout"
"""Why a test that reads from the folder is skipped."""
