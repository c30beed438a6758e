"""How a number of the table was found."""

from enum import StrEnum

import msgspec

DIGEST_START = len("sha256:") + 12
"""Characters of a shortened digest, with the name of its algorithm, for display."""


class EvidenceKind(StrEnum):
    """How a number was found, the strongest evidence first."""

    MEASURED = "measured"
    VIRTUAL = "virtual"
    SIMULATED = "simulated"
    ESTIMATED = "estimated"
    POLICY = "policy"


class Evidence(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The source of a number: its kind, and the digest of the record that holds the probes."""

    kind: EvidenceKind
    record: str


def short_digest(digest: str) -> str:
    """Return the start of a digest with the name of its algorithm, for display."""
    return digest[:DIGEST_START]
