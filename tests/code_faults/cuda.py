"""Changes of code that take memory on CUDA only: the simulation, whose tensors are on no card, does not see them."""

from tests.code_faults.fault import CodeFault

DENOISE = "acestep/engine/denoise.py"
CARD = "acestep/devices/accelerator.py"
BEFORE_THE_STEPS = "    place.device.make_room("
KEPT = "torch.empty(24 << 20, dtype=torch.uint8, device=latents.device)"
ROOM = '        self.reserve(n_bytes, "activations")\n'


def _asks(how: str, question: str, *rules: str) -> CodeFault:
    line = f"    transformer.kept = {KEPT} if {question} else None\n"
    return CodeFault(
        f"the sampler keeps a buffer on CUDA, which it knows {how}",
        DENOISE,
        BEFORE_THE_STEPS,
        line + BEFORE_THE_STEPS,
        "denoise",
        "",
        rules=("G302", *rules),
        song_s=60,
    )


CUDA_FAULTS = (
    _asks("from the tensor", "latents.is_cuda", "G206"),
    _asks("from the number of the card", "latents.get_device() >= 0"),
    _asks("from the index of its device", "latents.device.index is not None"),
    CodeFault(
        "the card itself keeps a buffer beside the room of the steps",
        CARD,
        ROOM,
        ROOM + "        self.kept = torch.empty(24 << 20, dtype=torch.uint8, device=self.torch_device)\n",
        "denoise",
        "",
        rules=("G302",),
        song_s=60,
    ),
)
"""Each with the rules that find it on a virtual card."""
