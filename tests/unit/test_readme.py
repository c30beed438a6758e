"""The pages say what the code says: the README's table is the table in force."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

from acestep.cli.show import tiers_markdown
from acestep.knobs import Variant
from acestep.tiers import load_tiers

ROOT = Path(__file__).parents[2]


def test_the_readme_s_table_is_the_table_in_force() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = re.search(r"<!-- tiers -->\n(.*?)\n<!-- /tiers -->", text, re.DOTALL)
    assert shown is not None
    assert shown[1] == tiers_markdown(load_tiers().variants[Variant.TURBO])


def test_links_between_pages_lead_somewhere() -> None:
    for page in ROOT.glob("*.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (ROOT / target).exists(), f"{page.name} links to {target}"


def test_the_readme_names_every_extra_and_the_torch_that_vllm_brings() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for extra in project["optional-dependencies"]:
        assert f"| `{extra}` |" in text
    (vllm,) = [Requirement(text) for text in project["optional-dependencies"]["vllm"]]
    (release,) = re.findall(r"vLLM (\d+\.\d+) \(Linux\)", text)
    assert vllm.specifier.contains(f"{release}.0")
    assert f"{release} brings torch 2." in text
