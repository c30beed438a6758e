"""The jobs that planning a song needs, and what their results mean. Pure: other modules run the jobs."""

from collections.abc import Sequence

import msgspec

from acestep.fields import UNKNOWN_LANGUAGE, RequestField
from acestep.lm import prompts
from acestep.lm.grammar import FreeGrammars, Grammars, SequenceGrammar
from acestep.lm.job import Job
from acestep.lm.metadata import Metadata, wishes
from acestep.lm.parse import codes_in_tokens, read_tokens
from acestep.lm.prompts import Prompt, SongText
from acestep.lm.tokenizer import PlannerTokenizer
from acestep.request import CODE_FRAMES, DEFAULT_DURATION_S, Request, frames_of
from acestep.thinking import Sampling
from acestep.typed import values_of_user
from acestep.units import ceil_div

METAS = frozenset({RequestField.BPM, RequestField.DURATION, RequestField.KEYSCALE, RequestField.TIMESIGNATURE})
"""The fields that the language model fills in if `Thinking.metas` is on."""


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """A song in words, as the language model wrote it; `warnings` name the parts of the question that were left out."""

    metadata: Metadata
    lyrics: str
    warnings: tuple[str, ...] = ()


class Planner:
    """Builds jobs and reads their results, for one tokenizer.

    Without `constrained`, words are written freely: they can be anything and need not parse.
    """

    def __init__(self, tokenizer: PlannerTokenizer, *, constrained: bool = True) -> None:
        self._tokenizer = tokenizer
        self._grammars = Grammars(tokenizer) if constrained else FreeGrammars(tokenizer)

    def unconstrained(self) -> "Planner":
        """Return the same planner without grammar rules for words."""
        return Planner(self._tokenizer, constrained=False)

    def spelled(self, tokens: Sequence[int]) -> str:
        """Return tokens as readable text, special tokens by name."""
        return self._tokenizer.text(tokens)

    def cut_warnings(self, request: Request) -> tuple[str, ...]:
        """Return a warning for each text of a request that is longer than the language model's limit."""
        return self._words(request)[1]

    def plan_jobs(self, request: Request) -> tuple[Job, ...]:
        """Return the thinking job of a request's songs, or no job if there is nothing to decide."""
        known, skipped = wishes(request), _skipped(request)
        if request.thinking.planned_caption or not set(RequestField) - known.known - skipped:
            return ()
        words, _ = self._words(request)
        grammar = self._grammars.plan(known, skipped, max(request.thinking.longest_s, known.duration_s))
        # Without guidance, which distorts metadata: it ends lines early and truncates captions.
        return (self._job(prompts.plan_prompt(words), None, grammar, request.thinking.sampling, request.thinking.seed),)

    def thought(self, request: Request, written: Sequence[Sequence[int]]) -> Metadata:
        """Return the metadata known after the jobs of `plan_jobs` were written."""
        if written:
            return read_tokens(written[0], self._tokenizer).metadata
        return msgspec.structs.replace(wishes(request), caption=request.thinking.planned_caption)

    def completed(self, request: Request, thought: Metadata) -> Request:
        """Return the request with the thought metadata filled in; values that the user gave stay."""
        longest_s = min(DEFAULT_DURATION_S, float(request.thinking.longest_s))
        return msgspec.structs.replace(
            request,
            think=False,
            caption=thought.caption or request.caption,
            duration_s=request.duration_s or float(thought.duration_s or longest_s),
            bpm=request.bpm or thought.bpm,
            keyscale=request.keyscale or thought.keyscale,
            timesignature=request.timesignature or thought.timesignature,
            language=request.language if wishes(request).language else thought.language or UNKNOWN_LANGUAGE,
        )

    def compose_jobs(self, request: Request, thought: Metadata, duration_s: float) -> tuple[Job, ...]:
        """Return the jobs that write the audio codes of every song, five for each second that is computed of it."""
        words, _ = self._words(request)
        thought = prompts.fitted_thought(thought, self._tokenizer)
        prompt, unguided = prompts.compose(words, thought), prompts.compose_unguided(words)
        grammar = self._grammars.codes(ceil_div(frames_of(duration_s), CODE_FRAMES))
        return tuple(
            self._job(prompt, unguided, grammar, request.thinking.sampling, request.seed + song)
            for song in range(request.batch)
        )

    def codes(self, written: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
        """Return the audio codes that the jobs of `compose_jobs` wrote."""
        return tuple(codes_in_tokens(tokens, self._tokenizer) for tokens in written)

    def understand_job(self, codes: tuple[int, ...], seed: int) -> Job:
        """Return the job that describes audio codes in words."""
        return self._text_job(prompts.understand_prompt(codes), Metadata(), frozenset(), seed)

    def create_job(self, query: str, *, instrumental: bool, language: str, seed: int) -> tuple[Job, tuple[str, ...]]:
        """Return the job that makes a song in words from a wish, and a warning if the wish was shortened."""
        query, warnings = prompts.fitted_query(query, self._tokenizer)
        known = _language(language)
        return self._text_job(prompts.create(query, instrumental=instrumental), known, frozenset(), seed), warnings

    def format_job(self, words: SongText, known: Metadata, seed: int) -> tuple[Job, tuple[str, ...]]:
        """Return the job that rewrites a caption and lyrics, and a warning for each text that was shortened."""
        words, warnings = prompts.fitted(words, self._tokenizer)
        return self._text_job(prompts.rewrite(words), _asked(known), frozenset(), seed), warnings

    def description(self, written: Sequence[int], warnings: tuple[str, ...] = ()) -> Description:
        """Return the song that one of the jobs above wrote in words."""
        writing = read_tokens(written, self._tokenizer)
        return Description(metadata=writing.metadata, lyrics=writing.lyrics, warnings=warnings)

    def _words(self, request: Request) -> tuple[SongText, tuple[str, ...]]:
        words = SongText(caption=request.caption, lyrics=request.lyrics, negative=request.thinking.negative)
        return prompts.fitted(words, self._tokenizer)

    def _text_job(self, prompt: Prompt, known: Metadata, skipped: frozenset[RequestField], seed: int) -> Job:
        return self._job(prompt, None, self._grammars.write(known, skipped), Sampling(), seed)

    def _job(
        self, prompt: Prompt, unguided: Prompt | None, grammar: SequenceGrammar, sampling: Sampling, seed: int
    ) -> Job:
        """Return a job that is guided if it has an unguided prompt."""
        if unguided is None:
            sampling = msgspec.structs.replace(sampling, guidance=1.0)
        return Job(
            prompt=prompt.tokens(self._tokenizer),
            unguided=unguided.tokens(self._tokenizer) if unguided is not None and sampling.guidance > 1 else (),
            grammar=grammar,
            sampling=sampling,
            seed=seed,
            max_tokens=grammar.most_tokens,
        )


def _language(language: str) -> Metadata:
    with values_of_user():
        return _asked(Metadata(language=language))


def _asked(known: Metadata) -> Metadata:
    """Return the metadata that a user gives: an unknown language is left to the model."""
    return msgspec.structs.replace(known, language="") if known.language == UNKNOWN_LANGUAGE else known


def _skipped(request: Request) -> frozenset[RequestField]:
    """Return the fields that are neither thought of nor written."""
    thinking, known = request.thinking, wishes(request).known
    unwanted = set() if thinking.metas else set(METAS)
    if not thinking.caption:
        unwanted.add(RequestField.CAPTION)
    if not thinking.language:
        unwanted.add(RequestField.LANGUAGE)
    return frozenset(unwanted - known)
