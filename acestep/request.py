"""The request to the pipeline: a data class that is validated when created."""

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from acestep.automatic import drawn_seed, leave_open
from acestep.clip import LATENT_HOP as LATENT_HOP
from acestep.clip import MAX_ASKED_S as MAX_ASKED_S
from acestep.clip import MIN_DURATION_S as MIN_DURATION_S
from acestep.clip import SAMPLE_RATE as SAMPLE_RATE
from acestep.clip import Clip
from acestep.fields import TRACKS, UNKNOWN_LANGUAGE, keyscale_of, language_of, timesignature_of, track_of
from acestep.plain_text import plain_text
from acestep.song import DecodePath as DecodePath
from acestep.song import Song as Song
from acestep.song import SongCodes as SongCodes
from acestep.task import BASE_TASKS as BASE_TASKS
from acestep.task import OF_ONE_TRACK, REPAINT_FADE_S, REPAINT_STRENGTH, SOURCED, WINDOWED
from acestep.task import Task as Task
from acestep.thinking import Thinking
from acestep.typed import from_user, take_types
from acestep.units import ceil_div

CODE_FRAMES = 5
"""Latent frames per audio code: codes run at 5 Hz."""

MAX_AUDIO_CODE = 63_999
"""The largest audio code: the tokenizer's levels 8*8*8*5*5*5 make 64,000."""

MAX_LYRIC_TOKENS = 2_048
MAX_TEXT_TOKENS = 256
"""Longest lyrics and longest DiT text prompt the weights were trained with, in tokens; longer input is cut."""

MAX_DURATION_S = 600.0
"""The longest song the weights were trained for; no plan promises more."""

DEFAULT_DURATION_S = 60.0

LEAST_FRAMES = 128
"""The fewest latent frames that the weights were trained with: 5.12 s. A shorter song is cut from so many."""

INSTRUMENTAL = "[Instrumental]"
"""The lyrics of a song without words, as in training."""

DCW_SCALER = 0.05
DCW_HIGH_SCALER = 0.02
"""The published strengths of the wavelet correction of turbo: of slow changes, and of changes from frame to frame."""

MAX_BATCH = 64
MAX_SEED = 2**32 - 1


READ_BY_TASKS: dict[str, tuple[object, frozenset[Task]]] = {
    "source_audio": (None, SOURCED),
    "audio_codes": ((), frozenset({Task.COVER})),
    "repaint_start_s": (0.0, WINDOWED),
    "repaint_end_s": (0.0, WINDOWED),
    "repaint_strength": (REPAINT_STRENGTH, WINDOWED),
    "repaint_fade_s": (REPAINT_FADE_S, WINDOWED),
    "cover_strength": (1.0, frozenset({Task.COVER})),
    "cover_noise": (0.0, frozenset({Task.COVER})),
    "track": ("", OF_ONE_TRACK),
    "tracks": ((), frozenset({Task.COMPLETE})),
}
"""Fields that only some tasks read: their default, and the tasks. For other tasks they are an error."""


_RANGES = {
    "guidance_scale": (0, 30),
    "shift": (0.1, 10),
    "repaint_strength": (0, 1),
    "repaint_fade_s": (0, 10),
    "cover_strength": (0, 1),
    "cover_noise": (0, 1),
    "dcw_scaler": (0, 1),
    "dcw_high_scaler": (0, 1),
}
"""The least and the greatest value of numbers without a value that means something else."""


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One call of the pipeline: `batch` songs of the same caption, song k with seed ``seed + k``.

    `duration_s` is in seconds; 0 becomes the length of the source audio or codes, else 60, and stays 0 if a language
    model is to choose. A song shorter than its source uses only the beginning of the source. `steps` and
    `guidance_scale` of 0 mean the variant's default. Without `lyrics` they are `INSTRUMENTAL`.

    With `think` a language model plans the songs as `thinking` says, if the pipeline has one and the task is
    text2music: it fills in what the request leaves open, and writes each song's audio codes.

    `source_audio` is the song that every task but text2music works on; a cover can be given `audio_codes` (5 per
    second) instead. `reference_audio` gives its timbre to any task. Repaint generates the window from `repaint_start_s`
    to `repaint_end_s` again (0: to the end), lego adds its track there. Extract and lego name a `track`, complete the
    `tracks` to add.

    `cover_strength` below 1 blends each step's velocity with that of a prompt that asks for no cover. Both use the
    source, as in diffusers, which costs one more pass for each step; the original instead drops the source after that
    share of the steps. `cover_noise` above 0 starts from the source audio with less noise, and so keeps more of its
    sound: the first steps are left out, 1 leaves out all but the last.

    `dcw` corrects the latents after each step by the difference between them and the song that the step predicts, in
    slow changes by `dcw_scaler` and in fast ones by `dcw_high_scaler` (Haar wavelets; Yu et al., arXiv 2604.16044).
    None means on for turbo and off for the others.

    `guidance_interval` is the part of the way from noise (0) to song (1) in which the guided variants are guided, as in
    diffusers; the original counts in the other direction, so its (a, b) is (1 - b, 1 - a) here.

    A `duration_s`, `bpm` or `repaint_end_s` of -1 is 0: automatic; a `seed` of -1 is random. `acestep.fields` converts
    `keyscale`, `timesignature` (text or a number), `language` and tracks to the form used in training: "Am" becomes
    "A minor". A track that is named twice counts once. `acestep.plain_text` cleans caption and lyrics.

    Raises `ValueError` naming the field when a value is out of range, missing, or not for the task.
    """

    caption: str
    lyrics: str = ""
    duration_s: float = 0.0
    batch: int = 1
    seed: int = 0
    steps: int = 0
    guidance_scale: float = 0.0
    shift: float = 3.0
    bpm: int = 0
    keyscale: str = ""
    timesignature: str | int = ""
    language: str = "unknown"
    task: Task = Task.TEXT2MUSIC
    source_audio: Clip | None = None
    reference_audio: Clip | None = None
    audio_codes: tuple[int, ...] = ()
    repaint_start_s: float = 0.0
    repaint_end_s: float = 0.0
    repaint_strength: float = REPAINT_STRENGTH
    repaint_fade_s: float = REPAINT_FADE_S
    cover_strength: float = 1.0
    cover_noise: float = 0.0
    track: str = ""
    tracks: tuple[str, ...] = ()
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    dcw: bool | None = None
    dcw_scaler: float = DCW_SCALER
    dcw_high_scaler: float = DCW_HIGH_SCALER
    think: bool = False
    thinking: Thinking = Thinking()

    def __post_init__(self) -> None:
        self._bring_into_form()
        if self.duration_s == 0 and not self.thinks:
            msgspec.structs.force_setattr(self, "duration_s", self._source_s or DEFAULT_DURATION_S)
        self._check_task()
        self._check_source()
        self._check_interval()
        left_open = self.duration_s == 0
        if not math.isfinite(self.duration_s) or not (left_open or MIN_DURATION_S <= self.duration_s <= MAX_ASKED_S):
            raise ValueError(
                f"duration_s must be {MIN_DURATION_S:.0f} to {MAX_ASKED_S:.0f} seconds, got {self.duration_s}"
            )
        if not 1 <= self.batch <= MAX_BATCH:
            raise ValueError(f"batch must be 1 to {MAX_BATCH} songs, got {self.batch}")
        if not 0 <= self.seed <= MAX_SEED - self.batch:
            raise ValueError(f"seed must be 0 to {MAX_SEED - self.batch}, got {self.seed}")
        if not 0 <= self.steps <= 200:
            raise ValueError(f"steps must be 1 to 200, or 0 for the variant's default, got {self.steps}")
        if not (self.bpm == 0 or 30 <= self.bpm <= 300):
            raise ValueError(f"bpm must be 30 to 300, or 0 for any, got {self.bpm}")
        for field, (least, most) in _RANGES.items():
            if not least <= getattr(self, field) <= most:
                raise ValueError(f"{field} must be {least} to {most}, got {getattr(self, field)}")

    def _bring_into_form(self) -> None:
        """Normalize names, and numbers that are left to the model."""
        # A task may be its name.
        if self.task not in tuple(Task):
            raise ValueError(f"task must be one of {' '.join(Task)}, got {self.task!r}")
        take_types(self)
        leave_open(self, "duration_s", "bpm", "repaint_end_s")
        lyrics = plain_text("lyrics", self.lyrics)
        given = {
            "caption": plain_text("caption", self.caption),
            "lyrics": lyrics if lyrics.strip() else INSTRUMENTAL,
            "seed": drawn_seed(self.seed),
            "keyscale": keyscale_of(self.keyscale),
            "timesignature": timesignature_of(self.timesignature),
            "language": language_of(self.language) or UNKNOWN_LANGUAGE,
            "track": track_of(self.track),
            "tracks": tuple(dict.fromkeys(map(track_of, self.tracks))),
        }
        for field, value in given.items():
            msgspec.structs.force_setattr(self, field, value)

    @property
    def thinks(self) -> bool:
        """Whether a language model will plan the songs: only a new song is planned."""
        return self.think and self.task is Task.TEXT2MUSIC

    @property
    def has_audio(self) -> bool:
        """Whether the request has audio or codes."""
        return self.source_audio is not None or self.reference_audio is not None or bool(self.audio_codes)

    @property
    def song_frames(self) -> int:
        """Latent frames of one song, the last perhaps incomplete; from source audio, only complete frames."""
        return self.samples // LATENT_HOP if self.source_audio is not None else ceil_div(self.samples, LATENT_HOP)

    @property
    def latent_frames(self) -> int:
        """Latent frames that are computed for one song: at least `LEAST_FRAMES`; the song is their beginning."""
        return max(LEAST_FRAMES, self.song_frames) if self.source_audio is not None else frames_of(self.duration_s)

    @property
    def samples(self) -> int:
        """Audio samples of one song per channel."""
        return round(self.duration_s * SAMPLE_RATE)

    @property
    def window(self) -> range:
        """The latent frames to generate; the others stay as in the source."""
        if self.task not in WINDOWED:
            return range(self.latent_frames)
        frames = self.song_frames
        first = min(_frame(self.repaint_start_s), frames - 1)
        last = _frame(self.repaint_end_s) if self.repaint_end_s else frames
        return range(first, max(first + 1, min(last, frames)))

    @property
    def sample_window(self) -> range:
        """The audio samples to generate, as exactly as the request names them."""
        if self.task not in WINDOWED:
            return range(self.samples)
        first, last = (round(second * SAMPLE_RATE) for second in (self.repaint_start_s, self.repaint_end_s))
        within = first if first < self.samples else self.window.start * LATENT_HOP
        return range(within, min(last or self.samples, self.samples))

    @property
    def keeps_outside(self) -> bool:
        """Whether what lies outside the window stays the source's: there is something, and it is to stay."""
        everything = range(self.song_frames)
        return self.task in WINDOWED and self.repaint_strength < 1 and self.window != everything

    @property
    def starts_from_source(self) -> bool:
        """Whether the steps use the sound of the source itself, besides what the condition says of it."""
        return self.keeps_outside or self.cover_noise > 0

    @property
    def _source_s(self) -> float:
        """Length of the source audio or codes in seconds, 0 without a source."""
        if self.source_audio is not None:
            return self.source_audio.duration_s
        return len(self.audio_codes) * CODE_FRAMES * LATENT_HOP / SAMPLE_RATE

    def _check_task(self) -> None:
        for field, (absent, tasks) in READ_BY_TASKS.items():
            if getattr(self, field) != absent and self.task not in tasks:
                raise ValueError(f"{field} is for {' and '.join(sorted(tasks))}; the task is {self.task}")
        if self.source_audio is not None and self.audio_codes:
            raise ValueError("a cover follows source_audio or audio_codes, got both; leave one out")
        if self.task in SOURCED and not self._source_s:
            codes = " or audio_codes" if self.task is Task.COVER else ""
            raise ValueError(f"{self.task} works on a song that exists: it needs source_audio{codes}")
        if self.task in OF_ONE_TRACK and not self.track:
            raise ValueError(f"{self.task} needs a track: one of {' '.join(TRACKS)}")
        if "" in self.tracks:
            raise ValueError(f"tracks must be names, each one of {' '.join(TRACKS)}, and one of them is empty")

    def _check_source(self) -> None:
        if any(not 0 <= code <= MAX_AUDIO_CODE for code in self.audio_codes):
            raise ValueError(
                f"audio_codes must be 0 to {MAX_AUDIO_CODE}, got {min(self.audio_codes)} to {max(self.audio_codes)}"
            )
        self._check_source_length()
        if self.cover_noise and self.source_audio is None:
            raise ValueError("cover_noise starts from the sound of source_audio, and audio_codes have none")

    def _check_source_length(self) -> None:
        if not (source_s := self._source_s):
            return
        source = "audio_codes" if self.audio_codes else "source_audio"
        if source_s < MIN_DURATION_S:
            raise ValueError(
                f"{source} must last at least {MIN_DURATION_S:.0f} second, got {source_s:g}; bring a longer one"
            )
        if self.duration_s == source_s > MAX_ASKED_S:
            raise ValueError(
                f"{source} must last at most {MAX_ASKED_S:.0f} seconds, got {source_s:g};"
                " give a shorter duration_s to follow only its beginning"
            )
        # A tolerance of half a sample: durations are passed as seconds.
        if self.duration_s > source_s + 0.5 / SAMPLE_RATE:
            raise ValueError(
                f"duration_s is {self.duration_s:g}, longer than the {source_s:g} seconds of the source;"
                " leave it out to follow the source"
            )

    def _check_interval(self) -> None:
        first, last = self.guidance_interval
        if not 0 <= first <= last <= 1:
            raise ValueError(f"guidance_interval must be two numbers from 0 to 1 in order, got {first} and {last}")
        start, end = self.repaint_start_s, self.repaint_end_s
        if not (math.isfinite(start) and math.isfinite(end) and start >= 0 and (end == 0 or start < end)):
            raise ValueError(
                f"repaint_start_s and repaint_end_s must be seconds in order, 0 for the end, got {start} and {end}"
            )
        if self._source_s and start >= self._source_s:
            raise ValueError(f"repaint_start_s is {start:g}, but the source ends at {self._source_s:g} seconds")


def asked_request(fields: Mapping[str, Any], base: Request | None = None) -> Request:
    """Return the request with the `fields` of a user; those that are None are taken from `base`.

    Raises `UsageError` naming the field of an invalid value.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    if base is not None:
        given = msgspec.structs.asdict(base) | given
    return from_user(given, Request)


def frames_of(duration_s: float) -> int:
    """Return the latent frames in which a new song is computed: 25 per second, at least `LEAST_FRAMES`.

    As in the original, the length is first rounded to 0.1 s, but never to less than the song.
    """
    longest_s = max(duration_s, round(duration_s, 1))
    return max(LEAST_FRAMES, ceil_div(round(longest_s * SAMPLE_RATE), LATENT_HOP))


def _frame(seconds: float) -> int:
    """The latent frame at a time."""
    return int(seconds * (SAMPLE_RATE / LATENT_HOP))
