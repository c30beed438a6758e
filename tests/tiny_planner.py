"""A language model of toy size on disk, and small grammars, for tests of backends."""

import json
from pathlib import Path

import msgspec
import torch
from safetensors.torch import save_file
from transformers import Qwen3Config, Qwen3ForCausalLM

from acestep.lm.job import Allowed, Job
from acestep.thinking import Sampling

VOCABULARY = 600
CODES = range(200, 560)
END = 150
GREEDY = Sampling(temperature=0, top_p=1, guidance=1)


def write_planner(folder: Path, *, prefixed: bool = True, vocabulary: int = VOCABULARY) -> Path:
    """A Qwen3 that says something else at every turn, in float32, with the keys of a whole model or of its body."""
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
    )
    torch.manual_seed(7)
    model = Qwen3ForCausalLM(config)
    for parameter in model.model.layers.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.3)
    weights = {key: tensor for key, tensor in model.state_dict().items() if key != "lm_head.weight"}
    if not prefixed:
        weights = {key.removeprefix("model."): tensor for key, tensor in weights.items()}
    folder.mkdir(parents=True)
    save_file({key: tensor.contiguous() for key, tensor in weights.items()}, folder / "model.safetensors")
    fields = config.to_dict() | {"architectures": ["Qwen3ForCausalLM" if prefixed else "Qwen3Model"]}
    (folder / "config.json").write_text(json.dumps(fields))
    return folder


class Codes(msgspec.Struct, frozen=True):
    """So many codes, then the end."""

    count: int

    @property
    def start(self) -> int:
        return 0

    def allowed(self, state: int) -> Allowed:
        return Allowed(spans=(CODES,) if state < self.count else (range(END, END + 1),))

    def after(self, state: int, token: int) -> int:
        if token not in self.allowed(state):
            raise ValueError(f"{token} is not allowed at {state}")
        return state + 1

    def done(self, state: int) -> bool:
        return state > self.count


class Fields(msgspec.Struct, frozen=True):
    """Text with a set of ids for each turn, as metadata has: forced names, narrow values, free words."""

    turns: tuple[tuple[range, ...], ...] = (
        (range(3, 4),),
        (range(4, 5),),
        (range(10, 12), range(40, 90)),
        (range(5, 6),),
        (range(100),),
        (range(100),),
        (range(END, END + 1),),
    )
    greedy_turn: int = 4

    @property
    def start(self) -> int:
        return 0

    def allowed(self, state: int) -> Allowed:
        return Allowed(spans=self.turns[state], greedy=state == self.greedy_turn)

    def after(self, state: int, token: int) -> int:
        if token not in self.allowed(state):
            raise ValueError(f"{token} is not allowed at {state}")
        return state + 1

    def done(self, state: int) -> bool:
        return state == len(self.turns)


def prompt(length: int, salt: int = 0) -> tuple[int, ...]:
    """Random tokens, different for every salt."""
    return tuple((17 * i * i + 31 * i + 101 * salt + 7) % VOCABULARY for i in range(length))


def song(
    *, length: int, codes: int, sampling: Sampling = GREEDY, seed: int = 0, unguided: int = 20, max_tokens: int = 1_000
) -> Job:
    """A job of `codes` codes behind a prompt of `length` tokens; beside it, where guided, one of `unguided`."""
    return Job(
        prompt=prompt(length),
        unguided=prompt(unguided, salt=1) if sampling.guidance > 1 else (),
        grammar=Codes(codes),
        sampling=sampling,
        seed=seed,
        max_tokens=min(max_tokens, codes + 1),
    )


def unheard(step: int, most: int) -> None:
    """Take the progress of writing, and do nothing with it."""
