"""Where the golden cases lie: `$ACTIONCAST_GOLDEN`, else `../shared/golden` beside the checkout."""

import os
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(
    os.environ.get("ACTIONCAST_GOLDEN") or Path(__file__).parents[2] / "shared" / "golden"
).resolve()


def golden_cases(folder: str) -> list[Any]:
    """One pytest parameter, a folder, for each case of `folder`.

    Without the folder: one that is skipped, or an error in CI. A folder without cases is an error
    everywhere, so that no test passes by having nothing to look at.
    """
    where = ROOT / folder
    if not where.is_dir():
        if os.environ.get("CI") == "true":
            raise FileNotFoundError(f"CI must have golden cases in {where}, got no such folder.")
        why = pytest.mark.skip(reason=f"no golden cases in {where}; set ACTIONCAST_GOLDEN")
        return [pytest.param(where, id="absent", marks=why)]
    cases = sorted(path for path in where.iterdir() if (path / "config.json").is_file())
    if not cases:
        raise FileNotFoundError(f"{where} must hold golden cases, got an empty folder.")
    return [pytest.param(path, id=path.name) for path in cases]


def golden_file(path: str) -> Path:
    """Return one golden file; without it the calling test skips, or fails in CI."""
    where = ROOT / path
    if not where.is_file():
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI must have the golden file {where}, got none.")
        pytest.skip(f"no golden file {where}; set ACTIONCAST_GOLDEN")
    return where
