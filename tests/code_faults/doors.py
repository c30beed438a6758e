"""Changes that cost memory only where audio is given, or a cover is weak: no cell of the table has that."""

from tests.code_faults.fault import CodeFault

DOOR_FAULTS = (
    CodeFault(
        "a source is kept many times",
        "acestep/engine/encode_audio.py",
        "    return encode_clip(encoder, clip.audio[:, : round(seconds * SAMPLE_RATE)], place.device, check)\n",
        "    latents = encode_clip(encoder, clip.audio[:, : round(seconds * SAMPLE_RATE)], place.device, check)\n"
        "    return latents.repeat(500, 1, 1)[:1].clone()\n",
        "encode_audio",
        "activations",
    ),
    CodeFault(
        "a reference is kept many times",
        "acestep/engine/encode_audio.py",
        "                reference = encode_clip(encoder, excerpts(request.reference_audio), place.device, check)\n",
        "                reference = encode_clip(encoder, excerpts(request.reference_audio), place.device, check)\n"
        "                reference = reference.repeat(4000, 1, 1)[:1].clone()\n",
        "encode_audio",
        "activations",
    ),
    CodeFault(
        "a weak cover blends in many copies",
        "acestep/engine/denoise.py",
        "            velocity.mul_(request.cover_strength).add_(plain, alpha=1.0 - request.cover_strength)\n",
        "            spare = plain.repeat(300, 1, 1)\n"
        "            velocity.mul_(request.cover_strength).add_(plain, alpha=1.0 - request.cover_strength)\n",
        "denoise",
        "activations",
    ),
    CodeFault(
        "what lies outside a window is noised in many copies",
        "acestep/engine/outside.py",
        '                noised = self._device.upload(fresh[part], "noise").mul_(level)\n',
        '                noised = self._device.upload(fresh[part], "noise").repeat(2000, 1, 1)[0].mul_(level)\n',
        "denoise",
        "activations",
    ),
)
