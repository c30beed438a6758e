"""The DiT's text prompt: a trained interface, kept to the letter.

Source: the prompt template and metadata block of ACE-Step 1.5's text conditioning, as in diffusers 0.42.1.
"""

from acestep.request import Request, Task

INSTRUCTIONS = {Task.TEXT2MUSIC: "Fill the audio semantic mask based on the given conditions:"}


def text_prompt(request: Request) -> str:
    """Instruction, caption and metadata as the text encoder saw them in training."""
    metas = (
        f"- bpm: {request.bpm or 'N/A'}\n"
        f"- timesignature: {request.timesignature.strip() or 'N/A'}\n"
        f"- keyscale: {request.keyscale.strip() or 'N/A'}\n"
        f"- duration: {int(request.duration_s)} seconds\n"
    )
    instruction = INSTRUCTIONS[request.task]
    return f"# Instruction\n{instruction}\n\n# Caption\n{request.caption}\n\n# Metas\n{metas}<|endoftext|>\n"


def lyric_prompt(request: Request) -> str:
    """Language header and lyrics as the lyric encoder saw them in training."""
    return f"# Languages\n{request.language}\n\n# Lyric\n{request.lyrics}<|endoftext|>"
