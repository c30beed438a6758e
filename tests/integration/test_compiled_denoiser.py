"""What is compiled is what is called: three graphs for a whole song, however long it is, and the same velocities."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext

import pytest
import torch
from torch._dynamo import register_backend
from torch._dynamo.utils import counters

from acestep.checkpoints.build import build
from acestep.checkpoints.libraries import AceStepTransformer1DModel
from acestep.checkpoints.quantize import quantize
from acestep.devices.cpu import CpuDevice
from acestep.dit.attention import Kernels
from acestep.dit.blocks import EAGER
from acestep.dit.compiled import compiled, uncompiled
from acestep.dit.denoiser import Denoiser
from acestep.dit.place import StageContext
from acestep.engine.pipeline import Pipeline
from acestep.errors import RunFailedError
from acestep.knobs import Knobs, Offload, Quantization, Variant
from acestep.memory.placement import TRANSFORMER, Placement
from acestep.request import Request
from tests.copying_cards import EagerCard
from tests.some import first_of

# The compiler's own imports use what PyTorch has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")

GRAPHS = 3
"""Heads, cross-attention's queries, and the rest: one each, for every block, length and batch."""


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    compiled.cache_clear()
    yield
    torch._dynamo.reset()
    compiled.cache_clear()


def velocity_inputs(model: AceStepTransformer1DModel, batch: int, frames: int) -> tuple[torch.Tensor, ...]:
    channels = model.config.audio_acoustic_hidden_dim
    condition = torch.randn(1, 77, model.condition_embedder.out_features)
    return torch.randn(batch, frames, channels), torch.randn(1, frames, 2 * channels), condition


@torch.no_grad()
def test_where_no_compiler_is_found_the_model_runs_as_it_is() -> None:
    tried: list[torch.fx.GraphModule] = []

    @register_backend(name="missing")
    def missing(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., object]:
        tried.append(graph)
        raise FileNotFoundError("no C compiler was found")

    model = build("tiny", Variant.TURBO, dtype=torch.float32).transformer
    inputs = velocity_inputs(model, 2, 300)
    eager = Denoiser(model, Kernels(grouped=True), lambda _: nullcontext()).velocity(*inputs, 0.7)
    traced = Denoiser(model, Kernels(grouped=True), lambda _: nullcontext(), compiled("missing"))
    assert uncompiled("missing") is None
    assert torch.equal(traced.velocity(*inputs, 0.7), eager)
    assert uncompiled("missing") == "no C compiler was found"
    assert torch.equal(traced.velocity(*inputs, 0.7), eager)
    assert len(tried) == 1, "it is not looked for again"


@pytest.mark.parametrize(
    "refusal", first_of([torch.OutOfMemoryError(), RuntimeError("Triton Error [CUDA]: out of memory")], 1)
)
@torch.no_grad()
def test_a_card_that_is_full_while_it_compiles_is_out_of_memory_and_compiles_later(refusal: RuntimeError) -> None:
    full, name = [True], f"full of {type(refusal).__name__}"

    @register_backend(name=name)
    def crowded(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., object]:
        if full:
            raise refusal
        return graph.forward

    model = build("tiny", Variant.TURBO, dtype=torch.float32).transformer
    traced = Denoiser(model, Kernels(grouped=True), lambda _: nullcontext(), compiled(name))
    with pytest.raises(torch.OutOfMemoryError):
        traced.velocity(*velocity_inputs(model, 2, 300), 0.7)
    full.clear()
    traced.velocity(*velocity_inputs(model, 2, 300), 0.7)
    assert uncompiled(name) is None


@pytest.mark.parametrize("strict", [False, True])
def test_an_uncompiled_song_gives_a_warning_and_an_uncompiled_probe_fails(
    strict: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("acestep.dit.place.compiled", lambda: EAGER)
    monkeypatch.setattr("acestep.engine.pipeline.uncompiled", lambda: "no C compiler was found")
    components = build("tiny", Variant.TURBO, dtype=torch.float32)
    pipeline = Pipeline(components, Knobs(compile=True), CpuDevice())
    request = Request(caption="x", duration_s=1, steps=1)
    if strict:
        with pytest.raises(RunFailedError, match="could not be compiled: no C compiler"):
            pipeline.generate(request, strict=True)
    else:
        assert any("cannot be compiled here (no C" in said for said in pipeline.generate(request).warnings)


@pytest.mark.parametrize("quantization", first_of([None, Quantization.INT8], 1))
@torch.no_grad()
def test_three_graphs_serve_every_block_length_and_batch(quantization: Quantization | None) -> None:
    model = build("tiny", Variant.TURBO, dtype=torch.float32).transformer
    if quantization is not None:
        quantize(model, quantization)
    eager = Denoiser(model, Kernels(grouped=True), lambda _: nullcontext())
    traced = Denoiser(model, Kernels(grouped=True), lambda _: nullcontext(), compiled("eager"))
    for batch, frames in ((1, 300), (1, 501), (3, 300), (1, 4_700)):
        inputs = velocity_inputs(model, batch, frames)
        assert torch.allclose(traced.velocity(*inputs, 0.7), eager.velocity(*inputs, 0.7), atol=1e-5)
        assert counters["stats"]["unique_graphs"] == GRAPHS, (batch, frames)
    assert not counters["graph_break"]


@torch.no_grad()
def test_streamed_blocks_run_through_the_same_graphs() -> None:
    model = build("tiny", Variant.TURBO, dtype=torch.float32).transformer
    inputs = velocity_inputs(model, 1, 300)
    expected = Denoiser(model, Kernels(grouped=True), lambda _: nullcontext()).velocity(*inputs, 0.7)
    placement = Placement({TRANSFORMER: model}, list(model.layers), Offload.STREAM, EagerCard())
    with placement.use(TRANSFORMER):
        traced = Denoiser(model, Kernels(grouped=True), placement.use_block, compiled("eager"))
        for _ in range(2):
            assert torch.allclose(traced.velocity(*inputs, 0.7), expected, atol=1e-5)
    assert counters["stats"]["unique_graphs"] == GRAPHS


def test_compiling_is_what_the_knob_says_and_never_simulated() -> None:
    class Simulated(CpuDevice):
        computes = False

    def functions(knobs: Knobs, device: CpuDevice) -> object:
        return StageContext(components=None, knobs=knobs, device=device, placement=None).row_functions()

    assert functions(Knobs(compile=True), CpuDevice()) is compiled()
    assert functions(Knobs(), CpuDevice()) is EAGER
    assert functions(Knobs(compile=True), Simulated()) is EAGER
