"""The UI's HTTP API as any program reaches it, without a browser."""

import json
from typing import Any, Self

import httpx
import msgspec

API = "/gradio_api"
ANSWER_S = 120.0


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """How an event ended: "complete" with its values, or "error" with its message."""

    event: str
    data: Any

    @property
    def message(self) -> str:
        """What an error says; empty where it says nothing."""
        said = self.data.get("error") if isinstance(self.data, dict) else self.data
        return said if isinstance(said, str) else ""


class Wire:
    """A client with a connection of its own, closed at the end of a `with`."""

    def __init__(self, url: str) -> None:
        self.http = httpx.Client(base_url=url, timeout=httpx.Timeout(ANSWER_S))
        named = self.http.get(f"{API}/info").raise_for_status().json()["named_endpoints"]
        self.defaults: dict[str, dict[str, Any]] = {
            name.removeprefix("/"): {
                field["parameter_name"]: field.get("parameter_default") for field in endpoint["parameters"]
            }
            for name, endpoint in named.items()
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def data(self, name: str, **fields: Any) -> list[Any]:
        """The inputs of an endpoint in order, its own defaults except for `fields`."""
        known = self.defaults[name]
        assert set(fields) <= set(known), f"{name} takes {sorted(known)}"
        return list((known | fields).values())

    def call(self, name: str, **fields: Any) -> Answer:
        """Ask an endpoint and wait for what it says."""
        return self.result(name, self.join(name, **fields))

    def join(self, name: str, **fields: Any) -> str:
        """Stand in the queue; the event's id."""
        response = self.http.post(f"{API}/call/{name}", json={"data": self.data(name, **fields)}).raise_for_status()
        return str(response.json()["event_id"])

    def result(self, name: str, event_id: str) -> Answer:
        """Wait until an event has ended."""
        return self.listen(f"{API}/call/{name}/{event_id}")

    def listen(self, path: str) -> Answer:
        """The end of a stream of events."""
        event, data = "none", None
        with self.http.stream("GET", path) as stream:
            for line in stream.iter_lines():
                key, _, value = line.partition(": ")
                if key == "event":
                    event = value
                elif key == "data" and event in ("complete", "error"):
                    data = json.loads(value)
        return Answer(event=event, data=data)


def files(value: Any) -> list[dict[str, Any]]:
    """Every file in an answer's values, however deep."""
    if isinstance(value, dict):
        if value.get("path") and "meta" in value:
            return [value]
        value = list(value.values())
    return [found for item in value for found in files(item)] if isinstance(value, list) else []
