"""Changes between a request, as a person makes it, and its songs: no cell of the table sees them."""

from tests.code_faults.fault import CodeFault

SERVICE = "acestep/engine/service.py"
KEPT_MODEL = "acestep/engine/kept_model.py"
PIPELINE = "acestep/engine/pipeline.py"
MAKER = "acestep/serving/song_maker.py"
CLAMPED = "        clamped, cuts = clamp(request, plan, lm=request.thinks)\n"
DOWNLOADED = "                del latents\n"
BEFORE_THE_STEPS = "    condition = denoiser.embed(conditions.condition)\n"
BEFORE_A_DECODE = (
    "    def __init__(self, request: Request, latents: Tensor, place: StageContext, progress: Progress) -> None:\n"
)
PAGE = "an afternoon on the page"
LIMITS = "more than the table allows"
SHARED = "a card that others use"
LARGE = "a large card"
WORDS = "a recording in words"


def _kept(name: str, file: str, before: str, after: str, scenario: str, component: str = "activations") -> CodeFault:
    return CodeFault(name, file, before, after, "scenario", component, rules=("G309",), scenario=scenario)


def _less(
    name: str, file: str, before: str, after: str, scenario: str, component: str, rule: str = "G513"
) -> CodeFault:
    return CodeFault(name, file, before, after, "scenario", component, rules=(rule,), scenario=scenario)


def _more(
    name: str, file: str, before: str, after: str, scenario: str, stage: str, component: str = "activations"
) -> CodeFault:
    return CodeFault(name, file, before, after, stage, component, rules=("G308",), scenario=scenario)


def _before_the_steps(name: str, when: str, scenario: str) -> CodeFault:
    line = f"    spare = conditions.condition.repeat(400, 1, 1) if {when} else None\n"
    place = "acestep/engine/denoise.py"
    return _more(name, place, BEFORE_THE_STEPS, line + BEFORE_THE_STEPS, scenario, "denoise")


SCENARIO_FAULTS = (
    _less(
        "requests are not clamped", SERVICE, CLAMPED, "        clamped, cuts = request, ()\n", LIMITS, "batch", "G514"
    ),
    _less(
        "requests are clamped to one song",
        SERVICE,
        CLAMPED,
        CLAMPED + "        clamped = msgspec.structs.replace(clamped, batch=1)\n",
        LIMITS,
        "batch",
    ),
    _less(
        "songs are clamped to half their length",
        SERVICE,
        CLAMPED,
        CLAMPED + "        clamped = msgspec.structs.replace(clamped, duration_s=clamped.duration_s / 2)\n",
        LIMITS,
        "duration_s",
    ),
    _less(
        "the VRAM guard is skipped",
        PIPELINE,
        "        if run.guarded:\n            self._guard(run)\n",
        "        run.guarded = False\n",
        SHARED,
        "refusals",
        "G514",
    ),
    _less(
        "the VRAM guard makes one song at a time",
        PIPELINE,
        "        if fitting < request.batch:\n            run.songs_per_pass = fitting\n",
        "        if fitting < request.batch:\n            run.songs_per_pass = 1\n",
        SHARED,
        "songs_per_pass",
    ),
    _less(
        "every request on a shared card is streamed",
        SERVICE,
        "        for sentence in found.warnings[len(plan.warnings) :]:\n",
        '        found = msgspec.structs.replace(found, offload="stream+encoders")\n'
        "        for sentence in found.warnings[len(plan.warnings) :]:\n",
        SHARED,
        "offload",
    ),
    _kept(
        "the latents of a song stay on the card",
        PIPELINE,
        DOWNLOADED,
        '                self.kept = [*getattr(self, "kept", ()), latents]\n' + DOWNLOADED,
        PAGE,
    ),
    _kept(
        "a table of noise is cached for each shape",
        "acestep/engine/denoise.py",
        BEFORE_THE_STEPS,
        "    _steps.cached = {**getattr(_steps, 'cached', {}), tuple(latents.shape): torch.empty_like(latents)}\n"
        + BEFORE_THE_STEPS,
        PAGE,
    ),
    _kept(
        "a thread keeps a buffer for each request",
        PIPELINE,
        "        run.stage = None\n        place.placement.settle()\n        if request.thinks:\n",
        "        run.stage = None\n        place.placement.settle()\n"
        "        import threading\n"
        "        kept = self.__dict__.setdefault('kept', [])\n"
        "        card = place.device.torch_device\n"
        "        helper = threading.Thread(target=lambda: kept.append(torch.empty(1 << 20, device=card)))\n"
        "        helper.start()\n"
        "        helper.join()\n"
        "        if request.thinks:\n",
        PAGE,
    ),
    _kept(
        "the result of each request is kept in main memory",
        SERVICE,
        "        for sentence in result.warnings:\n            warn(sentence)\n",
        '        self.kept = [*getattr(self, "kept", ()), result]\n'
        "        for sentence in result.warnings:\n            warn(sentence)\n",
        PAGE,
    ),
    _kept(
        "what is kept in main memory is hidden from the collector",
        SERVICE,
        "        for sentence in result.warnings:\n            warn(sentence)\n",
        '        self.kept = [*getattr(self, "kept", ()), result]\n        gc.freeze()\n'
        "        for sentence in result.warnings:\n            warn(sentence)\n",
        PAGE,
    ),
    _kept(
        "arrays are kept in a list that was made before the first request",
        "acestep/engine/decode.py",
        BEFORE_A_DECODE,
        "    shared: list[object] = []\n\n"
        + BEFORE_A_DECODE
        + "        self.shared.append(np.ones(1 << 20, np.float32))\n",
        PAGE,
    ),
    _kept(
        "a song that is stopped stays on the card",
        PIPELINE,
        "                problem = first_line(error)\n",
        "                problem = first_line(error)\n"
        "            except Exception as error:\n"
        "                self.kept = error\n"
        "                raise\n",
        LARGE,
    ),
    _kept(
        "a service that is closed keeps its model on the card",
        SERVICE,
        "        self._drop_language()\n        self._kept_model.close()\n        self.rest()\n",
        "        self.rest()\n",
        LARGE,
    ),
    _less(
        "a model is loaded twice",
        KEPT_MODEL,
        "        components = load(self._model, plan.variant, dtype=dtype, quantization=plan.quantization)\n",
        "        components = load(self._model, plan.variant, dtype=dtype, quantization=plan.quantization)\n"
        "        self._second_model = load(self._model, plan.variant, dtype=dtype, quantization=plan.quantization)\n",
        PAGE,
        "models",
        "G308",
    ),
    _less(
        "every request loads the language model again",
        SERVICE,
        "        if not self._kept_language.is_of(plan):\n            self._drop_language()\n",
        "        if True:\n            self._drop_language()\n",
        LARGE,
        "language_models",
        "G308",
    ),
    _more(
        "the language model stays for songs that are not planned",
        SERVICE,
        "        key = plan.knobs, thinks\n",
        "        key = plan.knobs, True\n",
        LARGE,
        "denoise",
        "lm",
    ),
    _before_the_steps("songs with an odd seed take more", "request.seed % 2", PAGE),
    _before_the_steps("batches of three take more", "request.batch == 3", PAGE),
    _before_the_steps("songs that were planned take more", "request.audio_codes", PAGE),
    _before_the_steps("songs that are not corrected take more", "correction is None", LARGE),
    _before_the_steps("another shift takes more", "request.shift == 1.0", LARGE),
    _before_the_steps("a known tempo takes more", "request.bpm", LARGE),
    _before_the_steps("a cover that starts from its source takes more", "request.cover_noise > 0", LARGE),
    _before_the_steps("a part made again gently takes more", "0 < request.repaint_strength < 0.5", LARGE),
    _kept(
        "the rotary tables of each length are kept",
        "acestep/dit/denoiser.py",
        "        rotary = rotary_table(hidden[0].shape[1], model.head_dim, model.rope_theta, hidden[0])\n",
        "        rotary = rotary_table(hidden[0].shape[1], model.head_dim, model.rope_theta, hidden[0])\n"
        "        type(self).known = {**getattr(type(self), 'known', {}), hidden[0].shape[1]: rotary}\n",
        PAGE,
    ),
    _kept(
        "the server keeps what it has made",
        MAKER,
        "            model, folder = self._model, visit.folder\n",
        "            self.kept = [*getattr(self, 'kept', ()), result]\n"
        "            model, folder = self._model, visit.folder\n",
        SHARED,
    ),
    _kept(
        "the server keeps the recordings that it got",
        "acestep/http_api/body.py",
        '    return asked_request(fields | {"think"',
        "    globals().setdefault('kept', []).append(dict(clips))\n    return asked_request(fields | {\"think\"",
        SHARED,
    ),
    _before_the_steps("songs of a few seconds take more", "request.duration_s < 4", LIMITS),
    _kept(
        "songs as FLAC are kept",
        MAKER,
        "            model, folder = self._model, visit.folder\n",
        "            self.kept = [result] if audio_format == 'flac' else []\n"
        "            model, folder = self._model, visit.folder\n",
        PAGE,
    ),
    _more(
        "the third song of a decode takes more",
        "acestep/engine/decode.py",
        "                self.songs.append(_song(",
        "                spare = torch.empty(4 << 30, dtype=torch.uint8, device=device.torch_device) if index > 1 else None\n"
        "                self.songs.append(_song(",
        LARGE,
        "decode",
    ),
    _more(
        "Korean words take more",
        "acestep/engine/encode.py",
        "    context = torch.cat([beside, torch.zeros_like(beside)], dim=-1)\n",
        "    context = torch.cat([beside, torch.zeros_like(beside)], dim=-1)\n"
        '    spare = context.repeat(4000, 1, 1) if request.language == "ko" else None\n',
        PAGE,
        "encode",
    ),
    _more(
        "the page gives every song a reference",
        "acestep/ui/form.py",
        "    return asked_request(fields | audio)\n",
        "    import numpy as np\n\n"
        '    audio.setdefault("reference_audio", Clip(audio=np.zeros((2, 480_000), dtype=np.float32)))\n'
        "    return asked_request(fields | audio)\n",
        PAGE,
        "encode_audio",
        "transformer",
    ),
    _less(
        "the page offers half of each batch",
        "acestep/ui/settings.py",
        "        max_batch=most,\n",
        "        max_batch=most // 2,\n",
        PAGE,
        "batch",
    ),
    _less(
        "the page asks for less memory than the plan",
        "acestep/ui/settings.py",
        "    return Offload.CPU_DIT if controls.offload_dit else Offload.CPU\n",
        "    return Offload.CPU_DIT\n",
        PAGE,
        "offload",
    ),
    _less(
        "the server makes one song of each request",
        "acestep/http_api/body.py",
        '    return asked_request(fields | {"think": asked.think is not False} | dict(clips))\n',
        '    return asked_request(fields | {"think": asked.think is not False, "batch": 1} | dict(clips))\n',
        SHARED,
        "batch",
    ),
    _more(
        "a recording is encoded in one piece",
        "acestep/engine/encode_audio.py",
        "        codes = tokenizer.codes(source, _silence(place, source, CODE_FRAMES - 1))\n",
        "        spare = source.repeat(4000, 1, 1)\n"
        "        codes = tokenizer.codes(source, _silence(place, source, CODE_FRAMES - 1))\n",
        WORDS,
        "encode_audio",
    ),
    _more(
        "what describes a recording keeps its weights twice",
        "acestep/lm/language.py",
        "        placement = Placement({LANGUAGE_MODEL: self._model().module}, (), Offload.CPU_DIT, self._device)\n",
        "        placement = Placement({LANGUAGE_MODEL: self._model().module}, (), Offload.CPU_DIT, self._device)\n"
        "        self.spare = self._device.reserve(1 << 30, LANGUAGE_MODEL)\n",
        WORDS,
        "between",
        "lm",
    ),
)
"""Each with the scenario that shows it."""
