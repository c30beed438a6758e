"""The OpenAPI document says what the server does, whatever it is asked."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from schemathesis import GenerationMode

from acestep.adapters.choice import Adapter
from acestep.adapters.memory import memory_apart
from acestep.cli.console import run_click
from acestep.cli.main import cli
from acestep.errors import Exit
from acestep.hardware.card import simulated_card
from acestep.limits.machine import plan_now
from acestep.limits.plan import Overrides
from acestep.limits.plan_document import plan_document
from tests.api_document import OPERATIONS, TOKEN, Described
from tests.api_server import FakeMaker, api_server

DONE = {
    "POST /v1/requests": 202,
    "POST /v1/uploads": 201,
    "DELETE /v1/requests/{request_id}": 204,
    "DELETE /v1/uploads/{upload_id}": 204,
}
"""The status of an operation that did what was asked, where it is not 200."""


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Described]:
    with api_server(FakeMaker(), tmp_path_factory.mktemp("api"), tokens=(TOKEN,)) as served:
        yield Described(served)


def test_these_are_all_operations(described: Described) -> None:
    assert {operation.ok().label for operation in described.schema.get_all_operations()} == set(OPERATIONS)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_answer_to_what_the_document_allows_is_described(described: Described, operation: str) -> None:
    assert DONE.get(operation, 200) in described.check(operation, GenerationMode.POSITIVE, 5)


@pytest.mark.parametrize("operation", [operation for operation in OPERATIONS if operation != "GET /v1/plan"])
def test_every_answer_to_what_the_document_does_not_allow_is_described(described: Described, operation: str) -> None:
    assert any(400 <= code < 500 for code in described.check(operation, GenerationMode.NEGATIVE, 5))


def test_the_plan_is_the_document_of_the_command(
    described: Described, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ACESTEP_CHECKPOINTS_DIR", str(tmp_path))
    assert run_click(cli, ["plan", "--json", "--vram", "8"]) == Exit.OK
    answer = described.client.http.get("/v1/plan").json()
    assert answer["times"]["songs"]
    assert answer == json.loads(capsys.readouterr().out)


def test_the_plan_says_what_unfused_adapters_take(capsys: pytest.CaptureFixture[str]) -> None:
    folk = Path(__file__).parent.parent / "fixtures" / "adapters" / "peft-lora"
    arguments = ("plan", "--json", "--vram", "8", "--lora", str(folk), "--lora-unfused")
    assert run_click(cli, arguments) == Exit.OK
    said = json.loads(capsys.readouterr().out)["adapter_bytes"]
    memory = memory_apart([Adapter(path=folk, fused=False)])
    plan = plan_now(Overrides(), simulated_card(8), None, memory)
    assert plan_document(plan, memory).adapter_bytes == said > 0


def test_a_server_without_tokens_does_not_describe_them(tmp_path: Path, described: Described) -> None:
    with api_server(FakeMaker(), tmp_path) as served:
        open_to_all = served.client().http.get("/openapi.json").json()
    guarded = described.client.http.get("/openapi.json").json()
    assert "securitySchemes" in guarded["components"]
    assert "securitySchemes" not in open_to_all["components"]
    for path, operations in guarded["paths"].items():
        for method, operation in operations.items():
            without = open_to_all["paths"][path][method]
            assert operation["security"]
            assert set(operation["responses"]) - set(without["responses"]) == {"401"}
            assert "security" not in without
    assert httpx.get(f"{described.client.address}/openapi.json").status_code == 401
