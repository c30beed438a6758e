"""The page opens before PyTorch is imported, which takes longer than everything else until then."""

from pathlib import Path

from tests.counted import counted

SCRIPT = """
import sys; from pathlib import Path
sys.modules["torch"] = None  # so that importing it fails
from acestep.limits.plan import Overrides
from acestep.ui.serve import serve_page

def opened(address):
    print(address)
    raise KeyboardInterrupt

how = dict.fromkeys(("language",)) | dict.fromkeys(("share", "init_service"), False)
how |= dict.fromkeys(("adapters", "auth", "hosts"), ())
try:
    serve_page(model="tiny", overrides=Overrides(), out=Path(sys.argv[1]), server_name="127.0.0.1", port=0,
               alone=True, announce=opened, notify=print, **how)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_the_page_opens_before_torch_is_imported(tmp_path: Path) -> None:
    done, _ = counted(SCRIPT, [str(tmp_path)], {"PATH": "", "MAX_CUDA_VRAM": "8"})
    address, end = done.stdout.split()
    assert (address.partition("127")[0], end) == ("http://", "interrupted"), done.stderr
