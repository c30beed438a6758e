"""Where files are served from: gradio's cache, with folders of each visitor."""

from hashlib import blake2s
from pathlib import Path

from gradio.utils import get_upload_folder


def served_folder(kind: str, songs: Path) -> Path:
    """Return the folder of the cache for one kind of file of the visitor whose songs are in a folder.

    Its name cannot be guessed, and tells neither the name of that folder, which belongs to the visitor alone, nor where
    files of another kind are: a visitor may pass on the address of a file.
    """
    secret = blake2s(f"{kind} {songs.name}".encode(), digest_size=16).hexdigest()
    return Path(get_upload_folder()) / f"{kind}-{secret}"
