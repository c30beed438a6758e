"""schemathesis asks every operation that the OpenAPI document names, and compares each answer with the document."""

from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.config import (
    ChecksConfig,
    GenerationConfig,
    PositiveDataAcceptanceConfig,
    ProjectConfig,
    ProjectsConfig,
    SchemathesisConfig,
)

from tests.api_server import Served

TOKEN = "t" * 16

OPERATIONS = (
    "POST /v1/requests",
    "GET /v1/requests/{request_id}",
    "DELETE /v1/requests/{request_id}",
    "GET /v1/requests/{request_id}/events",
    "POST /v1/requests/{request_id}/cancel",
    "GET /v1/requests/{request_id}/songs/{number}",
    "POST /v1/uploads",
    "DELETE /v1/uploads/{upload_id}",
    "GET /v1/plan",
)

_CONFIG = SchemathesisConfig(
    projects=ProjectsConfig(
        default=ProjectConfig(
            # Rules about several fields at once are not in a JSON schema.
            checks=ChecksConfig(positive_data_acceptance=PositiveDataAcceptanceConfig(enabled=False)),
            generation=GenerationConfig(deterministic=True),
        )
    )
)


class Described:
    """A running server with `TOKEN`, and its document."""

    def __init__(self, served: Served) -> None:
        self.client = served.client(TOKEN)
        self._queue = served.queue
        self.headers = {"Authorization": f"Bearer {TOKEN}"}
        address = f"{served.address}/openapi.json"
        self.schema = schemathesis.openapi.from_url(address, config=_CONFIG, headers=self.headers)

    def check(self, operation: str, mode: schemathesis.GenerationMode, examples: int) -> set[int]:
        """Return the status codes of the answers, each of which is as the document says.

        Half of the positive examples are about what exists.
        """
        found = self.schema.find_operation_by_label(operation)
        codes = self._ask(found.as_strategy(generation_mode=mode), examples)
        if mode is schemathesis.GenerationMode.POSITIVE and "{" in operation:
            codes |= self._ask(found.as_strategy(path_parameters=self._existing(operation)), examples)
        return codes

    def forget_requests(self) -> None:
        """Stop and delete all requests."""
        for queued in list(self._queue._known.values()):
            self._queue.remove(queued)

    def _ask(self, cases: Any, examples: int) -> set[int]:
        codes: set[int] = set()

        @settings(
            max_examples=examples,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=cases)
        def every(case: schemathesis.Case) -> None:
            codes.add(case.call_and_validate(headers=self.headers).status_code)

        every()
        return codes

    def _existing(self, operation: str) -> dict[str, Any]:
        if "upload_id" in operation:
            return {"upload_id": self.client.upload("x.wav", b"x")["id"]}
        song = {"number": 1} if "number" in operation else {}
        return {"request_id": self.client.until(self.client.ask(steps=1, think=False)["id"])["id"], **song}
