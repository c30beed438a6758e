"""The OpenAPI document says what the server does with the tiny model, whatever it is asked, at length."""

from collections.abc import Iterator

import pytest
from schemathesis import GenerationMode

from acestep.limits.plan import Overrides
from acestep.serving.song_maker import SongMaker
from tests.api_document import OPERATIONS, TOKEN, Described
from tests.api_server import api_server

EXAMPLES = 60


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Described]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAX_CUDA_VRAM", "4")
        maker = SongMaker("tiny", Overrides())
        with api_server(maker, tmp_path_factory.mktemp("api"), tokens=(TOKEN,)) as served:
            yield Described(served)
        maker.close()


@pytest.mark.soak
@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize("operation", OPERATIONS)
def test_no_answer_is_a_failure_of_the_server_or_missing_in_the_document(
    described: Described, operation: str, mode: GenerationMode
) -> None:
    codes = described.check(operation, mode, EXAMPLES)
    assert codes
    assert max(codes) < 500
    # The requests of one client are bounded: room for the next test.
    described.forget_requests()
