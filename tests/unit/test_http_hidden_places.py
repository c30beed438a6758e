"""What clients are told about a failure has the names of files, and not where this machine has them."""

from pathlib import Path

import pytest

from acestep.errors import InvalidInputError, MissingWeightsError
from acestep.http_api.documents import problem_from
from acestep.http_api.hidden_places import places_of, without_places
from acestep.serving.failures import failure_of
from tests.api_server import FakeMaker, api_server


@pytest.mark.parametrize(
    ("sentence", "said"),
    [
        ("/srv/ann/folk.safetensors: is damaged", "folk.safetensors: is damaged"),
        ("not found in /srv/a/turbo, /srv/b/turbo, nor elsewhere", "not found in turbo, turbo, nor elsewhere"),
        (r"C:\Users\ann\folk.safetensors: is damaged", "folk.safetensors: is damaged"),
        ("cannot be read ('/srv/ann/x')", "cannot be read ('x')"),
        ("see https://example.org/a/b and ./a/b and and/or 4/4 / 3/4", None),
        ("\udcff.safetensors: is damaged", "?.safetensors: is damaged"),
    ],
)
def test_absolute_paths_become_names(sentence: str, said: str | None) -> None:
    assert without_places(sentence, {}) == (said or sentence)


def test_known_places_are_not_told_even_with_spaces_in_their_names(tmp_path: Path) -> None:
    own = tmp_path / "my own"
    places = places_of(own / "out", str(own / "model"), [own / "folk songs"])
    for path in (own / "out" / "x", own / "model" / "transformer", own / "folk songs" / "a.safetensors"):
        for error in (InvalidInputError(path, "is damaged"), MissingWeightsError("turbo", f"not found in {path}")):
            message = problem_from(failure_of(error), places).message
            assert str(tmp_path) not in message
            assert "my own" not in message
            assert path.name in message


@pytest.mark.parametrize("name", ["folk.safetensors", "\udcff.safetensors"])
def test_a_request_that_fails_for_a_file_of_the_server_names_it_alone(tmp_path: Path, name: str) -> None:
    maker = FakeMaker({"drums": InvalidInputError(tmp_path / name, "is damaged")})
    with api_server(maker, tmp_path) as served:
        client = served.client()
        said = client.until(client.ask()["id"])
    assert said["error"]["message"] == f"{name.encode(errors='replace').decode()}: is damaged"
