"""Files that are replaced whole or not at all: written beside, flushed to disk, then renamed."""

import os
import stat
import tempfile
from pathlib import Path


def replace_file(path: Path, content: bytes) -> None:
    """Write a file in one step: readers see the old bytes or the new, never a part of them.

    A full disk or a kill leaves the old file. A link is followed, a missing folder is made, and an
    existing file keeps its mode; a new one may be read by everybody.

    Raises:
        ValueError: There is something else under that name, a device for example.
        OSError: The file cannot be written; an older one is then untouched.
    """
    # A link would be replaced by a plain file.
    path = path.resolve()
    if path.exists() and not path.is_file():
        # A device or a pipe renamed over would be gone for everybody.
        raise ValueError(f"{path} must be a file to write to, got a folder, device or pipe.")
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename last, where the system can open folders."""
    flag = getattr(os, "O_DIRECTORY", None)
    if flag is None:
        return
    handle = os.open(folder, flag)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
