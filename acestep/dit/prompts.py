"""The DiT's text prompt, exactly as in its training.

Source: the prompt template and metadata block of ACE-Step 1.5's text conditioning, as in diffusers 0.42.1.
"""

import re
from collections.abc import Iterable

from acestep.checkpoints.tokenizer import Tokenizer
from acestep.request import MAX_AUDIO_CODE, MAX_LYRIC_TOKENS, MAX_TEXT_TOKENS, Request, Task

TEXT_INSTRUCTION = "Fill the audio semantic mask based on the given conditions:"


def instruction(request: Request) -> str:
    """Return the instruction of a task, in the words used in training."""
    track, tracks = request.track.upper(), " | ".join(request.tracks).upper()
    return {
        Task.TEXT2MUSIC: TEXT_INSTRUCTION,
        Task.REPAINT: "Repaint the mask area based on the given conditions:",
        Task.COVER: "Generate audio semantic tokens based on the given conditions:",
        Task.EXTRACT: f"Extract the {f'{track} ' if track else ''}track from the audio:",
        Task.LEGO: f"Generate the {f'{track} ' if track else ''}track based on the audio context:",
        Task.COMPLETE: f"Complete the input track with {tracks}:" if tracks else "Complete the input track:",
    }[request.task]


def text_prompt(request: Request, told: str | None = None) -> str:
    """Return instruction, caption and metadata in the form used in training; `told` replaces the task's instruction."""
    metas = (
        f"- bpm: {request.bpm or 'N/A'}\n"
        f"- timesignature: {harmless(str(request.timesignature)).strip() or 'N/A'}\n"
        f"- keyscale: {harmless(request.keyscale).strip() or 'N/A'}\n"
        f"- duration: {int(request.duration_s)} seconds\n"
    )
    told = instruction(request) if told is None else told
    return f"# Instruction\n{told}\n\n# Caption\n{harmless(request.caption)}\n\n# Metas\n{metas}<|endoftext|>\n"


def lyric_prompt(request: Request) -> str:
    """Return language header and lyrics in the form used in training."""
    language, lyrics = harmless(request.language), harmless(request.lyrics)
    return f"# Languages\n{language}\n\n# Lyric\n{lyrics}<|endoftext|>"


def harmless(text: str) -> str:
    """Return the text with a space inside every special token's name, so that it is encoded as plain text."""
    return text.replace("<|", "< |")


def cut_warnings(request: Request, tokenizer: Tokenizer) -> tuple[str, ...]:
    """Return a warning for each prompt that is longer than the model's limit."""
    texts = (
        ("caption, with its metadata,", text_prompt(request), MAX_TEXT_TOKENS),
        ("lyrics", lyric_prompt(request), MAX_LYRIC_TOKENS),
    )
    lengths = [(name, len(tokenizer.encode(text)), longest) for name, text, longest in texts]
    return tuple(
        f"The {name} came to {tokens:,} tokens and the model reads {longest:,}: the end was left out."
        for name, tokens, longest in lengths
        if tokens > longest
    )


def codes_text(codes: Iterable[int]) -> str:
    """Return the tokens ``<|audio_code_N|>`` of codes, as one text."""
    return "".join(f"<|audio_code_{code}|>" for code in codes)


def codes_in(text: str) -> tuple[int, ...]:
    """Return the codes in a text of ``<|audio_code_N|>`` tokens.

    A number above the codebook's last counts as the last.
    """
    return tuple(min(int(digits[:9]), MAX_AUDIO_CODE) for digits in re.findall(r"<\|audio_code_([0-9]+)\|>", text))
