"""The OpenAPI document tells what the server does: schemathesis finds no answer that it does not describe."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings

from acestep.cli.serve import SHORTEST_TOKEN
from tests.api_server import FakeMaker, Served, api_server

TOKEN = "t" * SHORTEST_TOKEN
