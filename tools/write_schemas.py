"""Write the JSON Schemas of `tiers/schema/` from the data classes they describe."""

from pathlib import Path

from calibrate.files import pretty_json
from calibrate.record.schema import measurement_schema

SCHEMAS_FOLDER = Path(__file__).parent.parent / "tiers" / "schema"

if __name__ == "__main__":
    (SCHEMAS_FOLDER / "measurement-1.json").write_text(pretty_json(measurement_schema()), encoding="utf-8")
