"""The JSON Schema of a measurement file, made from its data classes."""

from typing import Any

import msgspec

from calibrate.probes.base import SAFE_TEXT
from calibrate.record.measurement import Measurement


def measurement_schema() -> dict[str, Any]:
    """JSON Schema of a measurement file, every free string restricted."""
    # Encoded and read back: a default that is a tuple here is a list in JSON.
    schema = msgspec.json.decode(msgspec.json.encode(msgspec.json.schema(Measurement)))
    _restrict_strings(schema)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _restrict_strings(node: Any) -> None:
    if isinstance(node, dict):
        if node.get("type") == "string" and not node.keys() & {"enum", "pattern"}:
            node["pattern"] = SAFE_TEXT
        for value in node.values():
            _restrict_strings(value)
    elif isinstance(node, list):
        for value in node:
            _restrict_strings(value)
