from dataclasses import replace

import pytest

from actioncast.clip_bench import clip_result_tables, is_of_clips
from actioncast.passport import Passport, Result

PASSPORT = Passport(
    dataset="epic100",
    fingerprint="f",
    splits=("validation",),
    num_videos=2,
    num_clips=9668,
    task="next action",
    anticipation_time=1.0,
    input="annotated past actions, the latest 16",
    features_causal="yes",
    metric="m",
    selection="last epoch",
    model="mamba-vl",
    recipe="mambavl",
    seeds=(0,),
    version="0",
    commit="c",
)
SCORES = (
    *(f"recall@5 {head}" for head in ("verb", "noun", "action")),
    "recall@5 known action",
    "joint top-5 action",
)


def result(score: float, **values: object) -> Result:
    found = {subset: dict.fromkeys(SCORES, score) for subset in ("overall", "unseen", "tail")}
    passport = replace(PASSPORT, **values)  # type: ignore[arg-type]
    return Result(passport=passport, total=found["overall"], splits=found)


def test_seeds_make_one_row_with_mean_and_deviation_and_the_best_comes_last() -> None:
    results = [
        result(20.0, seeds=(0,), questions="predicted: made from ..."),
        result(22.0, seeds=(1,), questions="predicted: made from ..."),
        result(3.0, recipe="class-frequency"),
    ]
    ((heading, table),) = clip_result_tables(results)
    assert heading == "epic100, next action after 1 s, 9,668 clips"
    names = [row[0] for row in table.rows]
    assert names == ["class-frequency (history)", "mambavl (history + predicted questions)"]
    assert table.rows[0][1] == "3.00"
    assert table.rows[1][1] == "21.00 ± 1.41"
    assert "joint" in table.header[-1]


def test_what_does_not_compare_makes_no_table() -> None:
    with pytest.raises(ValueError, match="questions"):
        clip_result_tables(
            [result(1.0), result(9.0, recipe="other", questions="oracle: made from ...")]
        )


def test_a_result_of_videos_is_none_of_clips() -> None:
    assert is_of_clips(result(1.0))
    assert not is_of_clips(result(1.0, num_clips=0))
