"""vLLM's engine in this process: started for one pool of rows, and stopped completely."""

import gc
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import torch

from acestep.checkpoints.configs import qwen_architecture_in
from acestep.devices.base import Device
from acestep.lm.backends.vllm_memory import BLOCK_TOKENS, Pool, block_bytes
from acestep.lm.backends.vllm_rows import ActiveDrafts, PairedRows
from acestep.units import GIB

ARCHITECTURE: Final = "AceStepPlannerLanguageModel"

GRAPHS_FROM_BYTES: Final = 16 * GIB
"""Bytes of free memory from which compiled code and CUDA graphs are used; below it, all memory is for songs."""

_SETTINGS: Final = {
    # In this process, so that the memory cap applies to it and no process remains afterwards.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    # vLLM's second model runner uses another kind of logits processor, which does not see a whole batch.
    "VLLM_USE_V2_MODEL_RUNNER": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}


def start(
    folder: Path, device: Device, pool: Pool, active: ActiveDrafts, more: Mapping[str, Any] = MappingProxyType({})
) -> Any:
    """Return an `LLMEngine` for the checkpoint in `folder`. Its prompts are token ids, and `active` chooses its tokens.

    `more` are arguments of vLLM besides ours, or instead of them.
    Raises any error of vLLM, `ImportError` if vLLM is not installed, and `torch.OutOfMemoryError` if it does not fit.
    """
    with _settings():
        from vllm import EngineArgs, LLMEngine, ModelRegistry
        from vllm.distributed.parallel_state import cleanup_dist_env_and_memory
        from vllm.platforms import current_platform
        from vllm.v1.sample.logits_processor import LogitsProcessor

        from acestep.lm.backends.vllm_model import PlannerLanguageModel

        if current_platform.device_type != device.torch_device.type:
            raise RuntimeError(
                f"this vLLM is built for {current_platform.device_type}, and the language model is to run on "
                f"{device.torch_device.type}"
            )
        if torch.distributed.is_initialized():
            raise RuntimeError("another vLLM engine, or another user of torch.distributed, runs in this process")
        if device.torch_device.index:
            raise RuntimeError(f"vLLM is only started on the first card, not on {device.torch_device}")
        ModelRegistry.register_model(ARCHITECTURE, PlannerLanguageModel)
        LogitsProcessor.register(PairedRows)
        rows = type("RowsOfThisEngine", (PairedRows,), {"active": active})
        try:
            options = {**_options(folder, device, pool), **more}
            return LLMEngine.from_engine_args(EngineArgs(**options, logits_processors=[rows]))
        except BaseException:
            # A half-started engine leaves its process group behind, and the next start would fail because of it.
            cleanup_dist_env_and_memory()
            raise


def stop(engine: Any) -> None:
    """Stop `engine`: workers, caches, process group. Its memory is free once the caller drops its reference too."""
    engine.engine_core.shutdown()
    # vLLM excludes its start-up objects from garbage collection, and they refer to each other.
    gc.unfreeze()


def _options(folder: Path, device: Device, pool: Pool) -> dict[str, Any]:
    on_card = device.torch_device.type == "cuda"
    return {
        "model": str(folder),
        "runner": "generate",
        "hf_overrides": {"architectures": [ARCHITECTURE], "tie_word_embeddings": True},
        "generation_config": "vllm",
        "skip_tokenizer_init": True,
        "dtype": str(device.dtype).removeprefix("torch."),
        "max_model_len": pool.longest,
        "max_num_seqs": pool.rows,
        "max_num_batched_tokens": pool.batched_tokens,
        "block_size": BLOCK_TOKENS,
        "kv_cache_memory_bytes": pool.blocks * block_bytes(qwen_architecture_in(folder), device.dtype.itemsize),
        # vLLM requires this share of the card to be free at its start, whatever pool is given. The plan has already
        # made sure that enough is free.
        "gpu_memory_utilization": 0.01,
        "enable_prefix_caching": True,
        "enable_chunked_prefill": True,
        # With asynchronous scheduling, a row would be processed before its previous token is known.
        "async_scheduling": False,
        "enforce_eager": not on_card or device.free_bytes() < GRAPHS_FROM_BYTES,
        "enable_sleep_mode": on_card,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
    }


@contextmanager
def _settings() -> Iterator[None]:
    """Set vLLM's environment variables only while vLLM reads them."""
    settings = {"VLLM_LOGGING_LEVEL": "ERROR"} | dict(os.environ) | _SETTINGS
    before = {name: os.environ.get(name) for name in ("VLLM_LOGGING_LEVEL", *_SETTINGS)}
    os.environ.update({name: settings[name] for name in before})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
