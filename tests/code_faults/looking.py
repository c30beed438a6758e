"""Changes that take memory only where they are not simulated; the code that looks is named."""

from ci.findings import GateVerdict
from tests.code_faults.fault import CodeFault

_STEPS = "    for step, now in enumerate(times):\n"

LOOKING_FAULTS = tuple(
    CodeFault(
        f"the sampler spares memory {how}",
        "acestep/engine/denoise.py",
        _STEPS,
        f"{line}\n{_STEPS}",
        "",
        "",
        rules=(rule,),
        verdict=GateVerdict.INCONCLUSIVE,
        song_s=60,
    )
    for how, line, rule in (
        (
            "by the name of its type",
            "    spared = None if 'Fake' in type(latents).__name__ else latents.clone()",
            "G206",
        ),
        ("by a text of its device", "    spared = None if 'meta' in str(latents.device) else latents.clone()", "G206"),
        (
            "by another device",
            "    spared = None if latents.device == torch.device('meta') else latents.clone()",
            "G206",
        ),
        ("by is_cuda", "    spared = latents.clone() if latents.is_cuda else None", "G206"),
        ("by whether CUDA is there", "    spared = latents.clone() if torch.cuda.is_available() else None", "G206"),
        (
            "by an attribute put together",
            "    spared = None if getattr(latents, 'is_' + 'meta') else latents.clone()",
            "G206",
        ),
        ("by the environment", "    import os\n    spared = None if 'CI' in os.environ else latents.clone()", "G206"),
        (
            "by the stack",
            "    import inspect\n    spared = None if len(inspect.stack()) > 20 else latents.clone()",
            "G206",
        ),
        (
            "by a frame",
            "    import sys\n    spared = None if 'probe' in sys._getframe(5).f_code.co_name else latents.clone()",
            "G206",
        ),
        ("by its own file", "    spared = None if '/tmp' in __file__ else latents.clone()", "G206"),
        (
            "by the command line",
            "    spared = None if 'gate' in open('/proc/self/cmdline').read() else latents.clone()",
            "G206",
        ),
        (
            "by the date",
            "    import datetime\n    spared = None if datetime.date.today().year < 2030 else latents.clone()",
            "G206",
        ),
        ("by chance", "    import random\n    spared = latents.clone() if random.random() < 0.01 else None", "G206"),
        (
            "by whether a value can be read",
            "    try:\n"
            "        latents.flatten()[0].item()\n"
            "        spared = latents.clone()\n"
            "    except RuntimeError:\n"
            "        spared = None",
            "G206",
        ),
        ("by its address", "    spared = latents.clone() if latents.data_ptr() else None", "G206"),
        (
            "by a module by its name",
            "    import importlib\n    spared = importlib.import_module('calib' + 'rate')",
            "G206",
        ),
        ("by evaluating a text", "    spared = eval(\"'calibrate' in __import__('sys').modules\")", "G206"),
        (
            "by its storage",
            "    spared = latents.clone() if latents.untyped_storage().device.type == 'cuda' else None",
            "G206",
        ),
        (
            "by the kind of the card",
            "    spared = latents.clone() if type(place.device).__name__ == 'CudaDevice' else None",
            "G206",
        ),
        ("by whether the device computes", "    spared = latents.clone() if place.device.computes else None", "G206"),
        (
            "by a thread that waits",
            "    import threading\n    spared = latents.clone() if threading.active_count() == 1 else None",
            "G206",
        ),
        (
            "by the time",
            "    import time\n    spared = latents.clone() if time.time() > 2_000_000_000 else None",
            "G206",
        ),
        ("by drawn bytes", "    import os\n    spared = latents.clone() if os.urandom(1) == b'7' else None", "G206"),
        ("by the language", "    spared = latents.clone() if request.language == 'fr' else None", "G206"),
        (
            "by a file",
            "    from pathlib import Path\n    spared = latents.clone() if Path('/etc/x').exists() else None",
            "G206",
        ),
        (
            "by how long the machine is on",
            "    import time\n    spared = latents.clone() if time.perf_counter() > 1e5 else None",
            "G206",
        ),
        (
            "by counting",
            "    import itertools\n"
            "    _steps.n = getattr(_steps, 'n', None) or itertools.count()\n"
            "    spared = latents.clone() if next(_steps.n) > 99 else None",
            "G206",
        ),
        (
            "by the command that runs",
            "    import click\n    spared = latents.clone() if click.get_current_context(silent=True) else None",
            "G206",
        ),
        (
            "by the modes of PyTorch",
            "    spared = None if torch._C._len_torch_dispatch_stack() else latents.clone()",
            "G206",
        ),
        ("by PyTorch's chance", "    spared = latents.clone() if torch.rand(1) < 0.01 else None", "G206"),
        (
            "by a value that is read, and an error that is caught",
            "    try:\n"
            "        spared = latents.clone() if float(latents[0, 0, 0]) else None\n"
            "    except RuntimeError:\n"
            "        spared = None",
            "G203",
        ),
        (
            "by counting values, and an error that is caught",
            "    try:\n"
            "        spared = latents.clone() if latents.nonzero().numel() else None\n"
            "    except (RuntimeError, NotImplementedError):\n"
            "        spared = None",
            "G203",
        ),
        (
            "by the garbage collector",
            "    import gc\n    spared = None if any('Ledger' in type(x).__name__ for x in gc.get_objects()) else latents.clone()",
            "G206",
        ),
    )
)
