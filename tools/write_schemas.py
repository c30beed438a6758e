"""Write the JSON Schemas of `tiers/schema/` from the values they describe."""

from pathlib import Path

from calibrate.files import pretty_json
from calibrate.record_schema import measurement_schema

FOLDER = Path(__file__).parent.parent / "tiers" / "schema"

if __name__ == "__main__":
    (FOLDER / "measurement-1.json").write_text(pretty_json(measurement_schema()), encoding="utf-8")
