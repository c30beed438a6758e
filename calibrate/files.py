"""Results as text: digests, and the JSON that is committed."""

import hashlib
from typing import Any

import msgspec


def digest(value: Any) -> str:
    """Return the SHA-256 of a value's JSON with sorted keys and no spaces: equal values have equal digests."""
    return "sha256:" + hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()


def pretty_json(value: Any) -> str:
    """Return a value as the JSON that is committed: two spaces, fields in declared order, a newline at the end."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n"
