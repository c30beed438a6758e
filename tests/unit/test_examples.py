"""Every example in the repository is a request that this code accepts."""

import pytest

from acestep.request import INSTRUMENTAL
from calibrate.profiling.example import EXAMPLES_FOLDER, load_example, prompt_of

NAMES = sorted(path.stem for path in EXAMPLES_FOLDER.glob("*.json"))


def test_there_are_eight_in_several_languages() -> None:
    requests = [load_example(name) for name in NAMES]
    assert len(requests) == 8
    assert {"ko", "en", "ja", "zh", "es"} <= {request.language for request in requests}
    assert any(request.lyrics == INSTRUMENTAL for request in requests)
    assert min(r.duration_s for r in requests) <= 60 < 600 <= max(r.duration_s for r in requests)


@pytest.mark.parametrize("name", NAMES)
def test_an_example_s_prompt_has_a_length(name: str) -> None:
    prompt = prompt_of(load_example(name))
    assert 0 < prompt.text_tokens <= 256
    assert 0 < prompt.lyric_tokens <= 2_048
