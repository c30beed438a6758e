"""A step of our PyTorch backend against one of vLLM's CPU build, over the same weights, in one process on one thread.

vLLM is taken as it is, not as our own backend runs it, which would charge it for our guidance and our sampling. So it
has less to do: a guided song is two sequences that it neither guides nor keeps together, and it draws from all tokens
at our temperature. With our top-p it sorts 217,204 logits a row, and takes up to 2.8 times as long. Code that it
compiles at the start takes 0.95 to 1.05 of the time, and a minute and a C++ compiler to make, so it runs without.
"""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import save_file

from acestep.checkpoints.lm import LanguageModel
from acestep.lm.backends.pt import PtBackend
from acestep.lm.backends.vllm_engine import _settings, stop
from acestep.lm.job import Job
from acestep.units import GIB
from tests.benchmarks.language_model import (
    CASES,
    CODES,
    PROMPT_TOKENS,
    a_step,
    likeliest,
    our_backend,
    our_step,
    record,
    songs_of_codes,
    what,
    with_own_weights,
)
from tests.benchmarks.results import VLLM

ROUNDS = 3

pytestmark = [
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed here; `make bench` runs this with it"),
    # vLLM and what it imports warn of each other; none of it is about this code.
    pytest.mark.filterwarnings("default"),
]


class Sides(NamedTuple):
    """Our backend and vLLM's engine, over the same weights of `model`."""

    model: LanguageModel
    ours: PtBackend
    theirs: Any


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def sides(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sides]:
    model = with_own_weights(request.param)
    folder = _written(model, tmp_path_factory.mktemp("model"))
    with _settings():
        from vllm import EngineArgs, LLMEngine
        from vllm.platforms import current_platform

        if model.dtype not in current_platform.supported_dtypes:
            pytest.skip(f"vLLM does not compute in {model.dtype} on this processor")
        engine = LLMEngine.from_engine_args(
            EngineArgs(
                model=str(folder),
                skip_tokenizer_init=True,
                generation_config="vllm",
                dtype=str(model.dtype).removeprefix("torch."),
                max_model_len=PROMPT_TOKENS + CODES,
                max_num_seqs=2 * max(songs for songs, _ in CASES),
                kv_cache_memory_bytes=GIB,
                # vLLM requires this share of the memory to be free at its start, whatever cache is given.
                gpu_memory_utilization=0.01,
                enforce_eager=True,
                disable_log_stats=True,
                use_tqdm_on_load=False,
            )
        )
    yield Sides(model, our_backend(model), engine)
    stop(engine)


def _written(model: LanguageModel, folder: Path) -> Path:
    weights = {f"model.{name}": weight for name, weight in model.module.model.state_dict().items()}
    save_file(weights, folder / "model.safetensors")
    config = model.module.config.to_dict() | {"architectures": ["Qwen3ForCausalLM"]}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def _vllm(engine: Any, jobs: Sequence[Job], temperature: float, times: list[float], timer: Any) -> list[list[int]]:
    """The tokens that vLLM writes for every prompt of the jobs; the time of each step is appended to `times`."""
    from vllm import SamplingParams

    prompts = [prompt for job in jobs for prompt in job.prompts]
    for name, prompt in enumerate(prompts):
        params = SamplingParams(
            temperature=temperature, max_tokens=jobs[0].max_tokens, ignore_eos=True, detokenize=False
        )
        engine.add_request(str(name), {"prompt_token_ids": list(prompt)}, params)
    tokens: dict[str, list[int]] = {}
    while engine.has_unfinished_requests():
        tokens |= {output.request_id: list(output.outputs[0].token_ids) for output in engine.step()}
        times.append(timer())
    return [tokens[str(name)] for name in range(len(prompts))]


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("songs", "guided"), CASES)
@torch.no_grad()
def test_a_step_against_vllm_s(benchmark: Any, sides: Sides, songs: int, guided: bool) -> None:
    model, backend, engine = sides
    timer = benchmark._timer
    if model.dtype is torch.float32 and not guided:
        greedy = likeliest(model, songs, guided=False)
        assert backend.write(greedy, lambda *_: None) == [tuple(row) for row in _vllm(engine, greedy, 0, [], timer)]
    jobs = songs_of_codes(songs, guided=guided)
    ours, theirs = list[float](), list[float]()

    def turn() -> None:
        ours.append(our_step(backend, jobs, timer))
        times = list[float]()
        all_threads, this_thread = time.process_time(), time.thread_time()
        _vllm(engine, jobs, jobs[0].sampling.temperature, times, timer)
        all_threads, this_thread = time.process_time() - all_threads, time.thread_time() - this_thread
        theirs.append(a_step(times))
        assert this_thread > 0.9 * all_threads, "seconds of threads that wait would be counted"

    benchmark.pedantic(turn, rounds=ROUNDS)
    against = f"{what(model.dtype, songs, guided=guided)}, {VLLM} {sys.modules['vllm'].__version__}"
    ratio = record(benchmark, against, ours, theirs)
    assert songs > 1 or ratio >= 0.95
