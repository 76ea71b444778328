import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actioncast.data.clips import ActionClip
from actioncast.submission import (
    Supervision,
    check_submission,
    write_submission,
)
from actioncast.timeline import LabelSpace, Taxonomy

SIZE = 11
PAIRS = tuple((verb, noun) for verb in range(SIZE) for noun in range(SIZE))
WIDE = Taxonomy(
    {
        "verb": LabelSpace(tuple(f"v{i}" for i in range(SIZE))),
        "noun": LabelSpace(tuple(f"n{i}" for i in range(SIZE))),
        "action": LabelSpace(tuple(f"v{v} n{n}" for v, n in PAIRS)),
    },
    pairs=PAIRS,
)
CLIPS = tuple(
    ActionClip(
        id=f"P01_01_{i}",
        video="P01_01",
        participant="P01",
        start=float(i),
        stop=i + 1.0,
        verb=0,
        noun=i,
        action=i,
    )
    for i in range(3)
)
IDS = [clip.id for clip in CLIPS]


def scores() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    found = {
        head: rng.random((len(CLIPS), len(space))).astype(np.float32)
        for head, space in WIDE.heads.items()
    }
    return {head: rows / rows.sum(1, keepdims=True) for head, rows in found.items()}


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "submission.json"
    levels = Supervision(pretraining=1, labels=4, data=3)
    write_submission(path, scores(), CLIPS, WIDE, "next_action", levels)
    return path


def test_it_holds_what_the_challenge_reads(written: Path) -> None:
    content = json.loads(written.read_text())
    about = {key: value for key, value in content.items() if key != "results"}
    assert about == {
        "version": "0.2",
        "challenge": "action_anticipation",
        "sls_pt": 1,
        "sls_tl": 4,
        "sls_td": 3,
    }
    assert list(content["results"]) == IDS
    asked = scores()
    for i, clip in enumerate(IDS):
        answer = content["results"][clip]
        for head in ("verb", "noun"):
            assert list(answer[head]) == [str(k) for k in range(SIZE)]
            np.testing.assert_allclose(list(answer[head].values()), asked[head][i], rtol=1e-6)
        # The hundred likeliest of 121, the likeliest first.
        best = np.argsort(-asked["action"][i])[:100]
        assert list(answer["action"]) == [f"{k // SIZE},{k % SIZE}" for k in best]
        np.testing.assert_allclose(
            list(answer["action"].values()), asked["action"][i][best], rtol=1e-6
        )


def test_recognition_is_another_challenge(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    write_submission(path, scores(), CLIPS, WIDE, "recognition")
    content = json.loads(path.read_text())
    assert content["challenge"] == "action_recognition"
    assert {content[level] for level in ("sls_pt", "sls_tl", "sls_td")} == {-1}
    check_submission(path, IDS, WIDE, "recognition")
    with pytest.raises(ValueError, match="challenge action_anticipation"):
        check_submission(path, IDS, WIDE, "next_action")


def drop(*keys: str) -> Callable[[Any], None]:
    def change(content: Any) -> None:
        for key in keys[:-1]:
            content = content[key]
        del content[keys[-1]]

    return change


def put(value: Any, *keys: str) -> Callable[[Any], None]:
    def change(content: Any) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (drop("results"), 'with "results"'),
        (put("0.1", "version"), "must be of version 0.2"),
        (put("nothing", "challenge"), "action_anticipation or action_recognition"),
        (put(7, "sls_td"), "sls_td must be a level"),
        (drop("sls_pt"), "sls_pt must be a level"),
        (drop("results", IDS[1]), f"missing are {IDS[1]} and of no clip are none"),
        (put({}, "results", "P09_01_0"), "of no clip are P09_01_0"),
        (drop("results", IDS[0], "noun"), "lacks noun"),
        (drop("results", IDS[0], "verb", "4"), "missing are 4 and unknown are none"),
        (put(0.5, "results", IDS[0], "noun", "99"), "unknown are 99"),
        (put("high", "results", IDS[2], "verb", "0"), "verb 0 must be a finite number"),
        (put(float("nan"), "results", IDS[2], "noun", "3"), "noun 3 must be a finite number"),
        (put(0.1, "results", IDS[0], "action", "10,11"), "exactly 100 actions, got 101"),
        (put({}, "results", IDS[0], "action"), "exactly 100 actions, got 0"),
    ],
)
def test_an_incomplete_file_is_refused(
    written: Path, change: Callable[[Any], None], sentence: str
) -> None:
    content = json.loads(written.read_text())
    change(content)
    written.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=sentence):
        check_submission(written, IDS, WIDE)


@pytest.mark.parametrize("name", ["11,0", "0,11", "3", "a,b", "3,-1", "3,7,1"])
def test_an_action_that_is_none_is_refused(written: Path, name: str) -> None:
    content = json.loads(written.read_text())
    actions = content["results"][IDS[0]]["action"]
    actions[name] = actions.pop(next(iter(actions)))
    written.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="an action must be called by a verb"):
        check_submission(written, IDS, WIDE)


def test_no_file_and_no_json_are_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        check_submission(tmp_path / "none.json", IDS, WIDE)
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ValueError, match="must be JSON"):
        check_submission(tmp_path / "broken.json", IDS, WIDE)


def test_too_few_actions_and_wrong_levels_are_refused(tmp_path: Path) -> None:
    few = replace(WIDE, heads={**WIDE.heads, "action": LabelSpace(("a",))}, pairs=((0, 0),))
    with pytest.raises(ValueError, match="got a taxonomy of 1"):
        write_submission(tmp_path / "s.json", scores(), CLIPS, few, "next_action")
    with pytest.raises(ValueError, match="supervision level of data"):
        Supervision(data=6)
