from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actioncast.data.clip_features import ClipFeatures, open_clip_features
from actioncast.data.clips import ActionClip
from actioncast.data.feature_steps import FeatureSteps
from actioncast.features import FeatureFile
from actioncast.protocols.next_action import NextAction
from actioncast.types import IGNORE
from epic_folders import clip, clip_dataset

NONE = IGNORE
ASKED = clip("P01_01_9", 10.0, 12.0, 1, 1)
TWO_SECONDS = NextAction(span=2.0, num_frames=8)


def opened(folder: Path, *clips: ActionClip, length: int = 80) -> FeatureSteps:
    """Features of four steps a second, each its number."""
    np.save(folder / "P01_01.npy", np.arange(length, dtype=np.float32)[:, None] * [1.0, -1, 0])
    dataset = clip_dataset([*clips, ASKED], duration=length / 4)
    files = open_clip_features(folder, dataset, TWO_SECONDS, 4.0)
    return FeatureSteps(files, dataset, 2.0)


@pytest.mark.parametrize(
    ("start", "steps"),
    [
        # The boundary is 9.0 s, the moment of step 36, which may not be read.
        (10.0, range(28, 36)),
        (10.01, range(29, 37)),
        (10.25, range(29, 37)),
        (2.0, range(4)),
        (1.1, range(1)),
        (1.0, range(0)),
        (0.5, range(0)),
    ],
)
def test_every_step_before_the_boundary_is_read(start: float, steps: range, tmp_path: Path) -> None:
    found = opened(tmp_path).read(replace(ASKED, start=start))
    assert found[:, 0].tolist() == list(steps)
    assert found.shape[1] == 3


def test_a_file_that_ends_early_holds_its_last_step(tmp_path: Path) -> None:
    source = opened(tmp_path, length=80)
    late = clip("P01_01_8", 21.5, 22.0)
    assert source.read(late)[:, 0].tolist() == [74, 75, 76, 77, 78, 79, 79, 79]


def test_what_trains_features_by_hand(tmp_path: Path) -> None:
    """Steps at 7.0, 7.25, ..., 8.75 s, background in between."""
    early = clip("P01_01_0", 6.0, 7.25, 0, 0)
    middle = clip("P01_01_1", 7.5, 8.5, 2, 1)
    going_on = clip("P01_01_2", 8.3, 12.0, 2, 0)
    found = opened(tmp_path, early, middle, going_on).steps(ASKED)
    # A stop at the moment itself is over: 7.25 and 8.5.
    assert found.frames["action"].tolist() == [0, NONE, 5, 5, 5, 5, 4, 4]
    assert found.frames["verb"].tolist() == [0, NONE, 2, 2, 2, 2, 2, 2]
    # 8.3 - 1.0 lies after the step at 7.25 s and before that at 7.5 s; 7.5 - 1.0 before the first.
    assert found.starts["action"].tolist() == [NONE, 4, NONE, NONE, NONE, NONE, NONE, 3]


def test_a_start_a_second_after_a_step_stands_at_the_one_before(tmp_path: Path) -> None:
    """As the step at the boundary itself is not read."""
    other = clip("P01_01_1", 8.5, 9.0, 2, 1)
    found = opened(tmp_path, other).steps(ASKED)
    assert found.starts["noun"].tolist() == [NONE, 1, NONE, NONE, NONE, NONE, NONE, 1]


@given(st.integers(0, 2**32 - 1), st.integers(110, 400))
def test_features_at_or_after_the_boundary_change_nothing(
    tmp_path_factory: pytest.TempPathFactory, seed: int, tenths: int
) -> None:
    path = tmp_path_factory.getbasetemp() / f"steps_{seed}.npy"
    asked = clip("P01_01_1", tenths / 10, tenths / 10 + 1)
    # The first step at or after the boundary, in twentieths of a second.
    first = -(-(tenths * 2 - 20) // 5)
    values = np.arange(200, dtype=np.float32)[:, None] * [1.0, 2.0]
    values[first:] = np.nan
    np.save(path, values)
    files = ClipFeatures({"P01_01": FeatureFile(path, 200, 0, 2)}, NextAction(), 4.0)
    source = FeatureSteps(files, clip_dataset([asked]), 2.0)
    assert source.read(asked)[:, 0].tolist() == list(range(first - 8, first))
    path.unlink()
