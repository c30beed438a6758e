"""The changes that were green once, or that stand for the oldest promises."""

from ci.findings import GateVerdict
from tests.code_faults.fault import CodeFault

FIRST_FAULTS = (
    CodeFault(
        "the decode tile is doubled",
        "acestep/dit/vae_decode.py",
        "    return chosen\n",
        "    return 2 * chosen\n",
        "decode",
        "activations",
        song_s=600,
        card_gib=24,
    ),
    CodeFault(
        "banded attention has a dense mask",
        "acestep/limits/workspace.py",
        "BLOCK_ROWS: Final = 192\n",
        "BLOCK_ROWS: Final = 1_000_000\n",
        "denoise",
        "activations",
        song_s=600,
    ),
    CodeFault(
        "the text encoder is no longer offloaded",
        "acestep/memory/placement.py",
        "frozenset({TRANSFORMER} if offload is Offload.CPU else ())",
        'frozenset({TRANSFORMER, "text_encoder"} if offload is Offload.CPU else {"text_encoder"})',
        "denoise",
        "text_encoder",
        song_s=600,
    ),
    CodeFault(
        "INT8 is silently skipped",
        "acestep/checkpoints/quantize.py",
        "    linears = [module for module in transformer.modules() if isinstance(module, nn.Linear)]\n",
        "    return sum(isinstance(module, nn.Linear) for module in transformer.modules())\n    linears = []\n",
        "denoise",
        "transformer",
        needs_int8=True,
    ),
    CodeFault(
        "the language model stays on the card",
        "acestep/memory/placement.py",
        "frozenset({TRANSFORMER} if offload is Offload.CPU else ())",
        'frozenset({TRANSFORMER, "lm"} if offload is Offload.CPU else {"lm"})',
        "denoise",
        "lm",
        song_s=600,
        lm="0.6B",
    ),
    CodeFault(
        "the language model makes logits of every token of a prompt",
        "acestep/lm/forward.py",
        "        normed: Tensor = self._body.norm(hidden[-1:])\n        return normed\n",
        "        normed: Tensor = self._body.norm(hidden)\n"
        "        every = F.linear(normed, self._head).float()\n"
        "        return normed[-1:] + 0 * every[-1:, : normed.shape[1]].to(normed.dtype)\n",
        "think",
        "activations",
        song_s=600,
        lm="0.6B",
    ),
    CodeFault(
        "every block from the fifth on keeps a copy of its input",
        "acestep/dit/denoiser.py",
        "                    block(rows, condition, modulation, rotary, self.kernels)\n",
        "                    block.kept = rows.clone() if block in self.blocks[4:] else None\n"
        "                    block(rows, condition, modulation, rotary, self.kernels)\n",
        "denoise",
        "activations",
        song_s=600,
    ),
    CodeFault(
        "a buffer grows in place before the blocks",
        "acestep/dit/denoiser.py",
        "        for block in self.blocks:\n",
        "        grown = latents.new_empty(1)\n        grown.resize_(len(latents), 20 * latents.shape[1], latents.shape[2])\n"
        "        for block in self.blocks:\n",
        "denoise",
        "activations",
        song_s=600,
    ),
    CodeFault(
        "the decoder makes room for a whole song on the card",
        "acestep/engine/decode.py",
        "                tile_decoder = TileDecoder(decoder, fused=device.has_triton)\n",
        "                tile_decoder = TileDecoder(decoder, fused=device.has_triton)\n"
        "                whole = torch.empty(1920 * self._request.latent_frames, 8, device=device.torch_device)\n",
        "decode",
        "activations",
        song_s=600,
    ),
    CodeFault(
        "every step after the second keeps the latents",
        "acestep/engine/denoise.py",
        "    for step, now in enumerate(times):\n",
        "    spared = []\n    for step, now in enumerate(times):\n"
        "        spared.append(latents.clone() if step > 1 else None)\n",
        "denoise",
        "",
        rules=("G306",),
        song_s=600,
    ),
    CodeFault(
        "a product of every layer is computed twice",
        "acestep/dit/blocks.py",
        "            query = do.cross_query(layer, part)\n",
        "            do.cross_query(layer, part)\n            query = do.cross_query(layer, part)\n",
        "denoise",
        "flops",
        rules=("G307",),
        song_s=60,
    ),
    *(
        CodeFault(
            f"the sampler {does}",
            "acestep/engine/denoise.py",
            "    for step, now in enumerate(times):\n",
            f"{line}\n    for step, now in enumerate(times):\n",
            "",
            "",
            rules=("G206",),
            verdict=GateVerdict.INCONCLUSIVE,
            song_s=60,
        )
        for does, line in (
            ("spares memory where tensors are meta", "    spared = None if latents.is_meta else latents.clone()"),
            ("asks for the kind of device", "    spared = latents.clone() if latents.device.type == 'cuda' else None"),
            ("looks whether it is simulated", "    import sys\n    spared = 'calibrate' in sys.modules"),
            ("patches what simulates it", "    from calibrate.probes.simulated import ledger\n    spared = ledger"),
            ("does so by a name in a text", "    spared = __import__('calib' + 'rate')"),
        )
    ),
)
