"""Where the public sets lie: `$ACTIONCAST_DATA`, else `../shared/data` beside the checkout."""

import os
from functools import cache
from pathlib import Path

import pytest

from actioncast.data import Dataset, open_dataset

ROOT = Path(
    os.environ.get("ACTIONCAST_DATA") or Path(__file__).parents[2] / "shared" / "data"
).resolve()


def real_dataset(name: str) -> Dataset:
    """Open a public set; without it the calling test skips, or fails in CI."""
    folder = ROOT / name
    if not folder.is_dir():
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI must have the data set {folder}, got no such folder.")
        pytest.skip(f"no data set {folder}; set ACTIONCAST_DATA")
    return _opened(folder)


@cache
def _opened(folder: Path) -> Dataset:
    return open_dataset(folder.name, folder)
