"""The pages say what the code says: the README's table is the table in force."""

import re
from pathlib import Path

from acestep.knobs import Variant
from acestep.show import tiers_markdown
from acestep.tiers import load_tiers

ROOT = Path(__file__).parents[2]


def test_the_readme_s_table_is_the_table_in_force() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = re.search(r"<!-- tiers -->\n(.*?)\n<!-- /tiers -->", text, re.DOTALL)
    assert shown is not None
    assert shown[1] == tiers_markdown(load_tiers().variants[Variant.TURBO].tiers)


def test_links_between_pages_lead_somewhere() -> None:
    for page in ROOT.glob("*.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (ROOT / target).exists(), f"{page.name} links to {target}"
