"""The rooms of the code and what each may import; a test compares this table with the real imports."""

import msgspec


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """A package, or modules at the root of one: `parts` are dotted names, `imports` the rooms that it may import."""

    name: str
    holds: str
    parts: tuple[str, ...]
    imports: tuple[str, ...] = ()


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _at_root(package: str, modules: str) -> tuple[str, ...]:
    return tuple(f"{package}.{module}" for module in _names(modules))


ROOMS = (
    Room(
        name="values",
        holds="what every room works with: requests, knobs, tiers, errors and units",
        parts=_at_root(
            "acestep",
            "errors units knobs automatic plain_text fields language_names thinking clip stage locale_text task song "
            "request result fused_adapter adapter_memory song_settings regular_file strict_json budgets tiers "
            "vram_range evidence proxies logs version output_file typed importing bitrates song_times "
            "torch_environment",
        ),
    ),
    Room(
        name="hardware",
        holds="the cards and the main memory of this machine, and how they are found",
        parts=("acestep.hardware",),
        imports=_names("values"),
    ),
    Room(
        name="checkpoints",
        holds="weights on disk, and how they become modules",
        parts=("acestep.checkpoints",),
        imports=_names("values hardware"),
    ),
    Room(
        name="limits",
        holds="what a card may do: its capabilities, what a request needs of it (the VRAM guard), and its plan",
        parts=("acestep.limits",),
        imports=_names("values hardware checkpoints"),
    ),
    Room(
        name="devices",
        holds="what computes: one class for each kind of device",
        parts=("acestep.devices",),
        imports=_names("values hardware limits"),
    ),
    Room(
        name="memory",
        holds="what is on the device when: placement and offload",
        parts=("acestep.memory",),
        imports=_names("values checkpoints limits devices"),
    ),
    Room(
        name="adapters",
        holds="adapters of the transformer, LoRA and LoKr: their files, and how they become part of its weights",
        parts=("acestep.adapters",),
        imports=_names("values checkpoints memory"),
    ),
    Room(
        name="dit",
        holds="the diffusion transformer and the VAE",
        parts=("acestep.dit",),
        imports=_names("values checkpoints limits devices memory"),
    ),
    Room(
        name="lm",
        holds="the language model that plans a song",
        parts=("acestep.lm",),
        imports=_names("values checkpoints limits devices memory dit"),
    ),
    Room(
        name="audio",
        holds="audio files, read and written",
        parts=("acestep.audio",),
        imports=_names("values"),
    ),
    Room(
        name="engine",
        holds="the stages in order, and the service that keeps a model loaded",
        parts=("acestep.engine",),
        imports=_names("values hardware checkpoints adapters limits devices memory dit lm"),
    ),
    Room(
        name="api",
        holds="the calls for Python programs",
        parts=("acestep.__init__", "acestep.api"),
        imports=_names("values hardware checkpoints adapters limits devices lm audio engine"),
    ),
    Room(
        name="serving",
        holds="what the web page and the HTTP API share: one model for all, visits, uploads, and who may ask",
        parts=("acestep.serving",),
        imports=_names("values hardware adapters limits devices audio engine api"),
    ),
    Room(
        name="ui",
        holds="the web page",
        parts=("acestep.ui",),
        imports=_names("values hardware checkpoints adapters limits dit audio serving"),
    ),
    Room(
        name="http_api",
        holds="songs over HTTP, for programs",
        parts=("acestep.http_api",),
        imports=_names("values adapters limits audio api serving"),
    ),
    Room(
        name="cli",
        holds="the `acestep` command",
        parts=("acestep.cli", "acestep.__main__"),
        imports=_names("values hardware checkpoints adapters limits devices dit lm audio api serving ui http_api"),
    ),
    Room(
        name="harness",
        holds="what every part of the harness works with: workloads, verdicts, files, the search",
        parts=_at_root(
            "calibrate",
            "__init__ verdict workload files fingerprint git options screen extras search",
        ),
        imports=_names("values cli"),
    ),
    Room(
        name="probes",
        holds="one run under a cap, on a card or on the simulated card",
        parts=("calibrate.probes",),
        imports=_names("values hardware checkpoints adapters limits devices memory dit lm engine harness"),
    ),
    Room(
        name="record",
        holds="the measurement file",
        parts=("calibrate.record",),
        imports=_names("values hardware limits harness probes"),
    ),
    Room(
        name="table",
        holds="from records to the tier table",
        parts=("calibrate.table",),
        imports=_names("values harness record"),
    ),
    Room(
        name="executors",
        holds="the processes that run probes, on this machine or on others",
        parts=("calibrate.executors",),
        imports=_names("values hardware limits dit harness probes record"),
    ),
    Room(
        name="campaign",
        holds="all probes of one record",
        parts=("calibrate.campaign",),
        imports=_names("values hardware checkpoints adapters limits harness probes record table executors"),
    ),
    Room(
        name="fleet",
        holds="campaigns of several kinds of card at once, here or on other machines",
        parts=("calibrate.fleet",),
        imports=_names("values cli executors campaign"),
    ),
    Room(
        name="timing",
        holds="how long a song takes on a card that is not here",
        parts=("calibrate.timing",),
        imports=_names("values hardware limits dit harness probes"),
    ),
    Room(
        name="explain",
        holds="from a cell of the table to the probes that prove it",
        parts=("calibrate.explain",),
        imports=_names("values limits cli harness probes record table"),
    ),
    Room(
        name="profiling",
        holds="`profile_inference.py`: where time and memory of one song go",
        parts=("calibrate.profiling",),
        imports=_names(
            "values hardware checkpoints limits devices dit lm audio engine cli harness probes record table campaign"
        ),
    ),
    Room(
        name="report",
        holds="the guide, its plots, the explorer, and pages about records and changes",
        parts=("calibrate.report",),
        imports=_names("values hardware checkpoints limits cli harness probes record table timing"),
    ),
    Room(
        name="commands",
        holds="the commands of `python -m calibrate`",
        parts=("calibrate.commands", "calibrate.cli", "calibrate.__main__"),
        imports=_names(
            "values hardware adapters limits cli harness probes record table executors campaign fleet timing explain "
            "report"
        ),
    ),
    Room(
        name="gate",
        holds="the judge of a pull request",
        parts=("ci",),
        imports=_names(
            "values hardware limits devices engine cli harness probes record table executors campaign timing"
        ),
    ),
    Room(
        name="tools",
        holds="what maintainers run: installation, releases, measurements on a card",
        parts=("tools",),
        imports=_names(
            "values hardware checkpoints limits devices memory dit lm audio engine cli harness probes record table "
            "executors campaign"
        ),
    ),
)
"""Every room, from the ground up: a room imports only rooms that are listed before it."""
