import json
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from actioncast.passport import (
    MUST_AGREE,
    Passport,
    Result,
    differences,
    read_result,
    require_comparable,
    write_result,
)

PASSPORT = Passport(
    dataset="50salads",
    fingerprint="0123456789abcdef",
    splits=("1", "2"),
    num_videos=20,
    task="long_term",
    observed_ratios=(0.2, 0.3),
    horizon_ratios=(0.1, 0.5),
    horizon_source="true_length",
    input="features",
    features_causal="no",
    metric="MoC",
    selection="last epoch",
    model="futr",
    recipe="futr-50salads",
    seeds=(0, 1),
    version="0.1.0",
    commit="abc",
)
RESULT = Result(
    passport=PASSPORT,
    total={"moc 0.2/0.1": 37.012345, "mean": 20.5},
    splits={"1": {"mean": 20.0}, "2": {"mean": 21.0}},
    videos={"1/rgb-01-1": {"mof 0.2/0.1": float("nan")}},
)
ON_TEST = "best on the test split, which flatters"
OTHER: dict[str, Any] = {
    "splits": ("1",),
    "num_videos": 10,
    "num_clips": 10,
    "anticipation_time": 1.0,
    "observed_ratios": (0.2,),
    "ahead": (0.25, 0.5),
    "steps_per_second": 4.0,
    "horizon_ratios": (0.1,),
    "seeds": (3,),
    "changed": ("lr 0.1",),
}


def result(**changes: Any) -> Result:
    return replace(RESULT, passport=replace(PASSPORT, **changes))


@pytest.mark.parametrize("name", [field.name for field in fields(Passport)])
def test_exactly_the_fields_that_must_agree_forbid_a_comparison(name: str):
    other = replace(PASSPORT, **{name: OTHER.get(name, "something else")})
    found = differences([PASSPORT, other])
    assert list(found) == ([name] if name in MUST_AGREE else [])


def test_who_made_a_result_may_differ_and_nothing_else():
    free = {"num_videos", "selection", "model", "recipe", "trained_on", "inference"}
    free |= {"seeds", "version", "commit", "note", "num_clips", "clip", "questions", "way"}
    free |= {"changed", "labels", "captions", "trunk"}
    assert {field.name for field in fields(Passport)} - set(MUST_AGREE) == free


def test_all_differences_are_named_with_their_values():
    theirs = result(horizon_source="seconds 300", splits=("1",))
    with pytest.raises(ValueError, match="cannot stand side by side") as raised:
        require_comparable({"ours": RESULT, "theirs": theirs})
    assert str(raised.value) == (
        "these results cannot stand side by side, they differ in\n"
        "  splits: ours: 1, 2; theirs: 1\n"
        "  horizon_source: ours: true_length; theirs: seconds 300\n"
        "If the difference is the point of the table, say actioncast compare FILE... --across "
        "splits horizon_source."
    )


def test_what_a_table_is_about_may_differ():
    theirs = result(horizon_source="seconds 300", splits=("1",))
    require_comparable({"a": RESULT, "b": theirs}, ("splits", "horizon_source"))
    with pytest.raises(ValueError, match="they differ in\n  splits: a") as raised:
        require_comparable({"a": RESULT, "b": theirs}, ("horizon_source",))
    assert "true_length" not in str(raised.value)


def test_results_that_agree_compare():
    require_comparable({"a": RESULT, "b": result(model="n-gram", seeds=(7,), note="again")})
    require_comparable({"a": RESULT})


def test_a_checkpoint_that_the_test_split_chose_does_not_compare_with_others():
    chosen = result(selection=ON_TEST)
    assert list(differences([PASSPORT, chosen.passport])) == ["selection"]
    assert differences([chosen.passport, chosen.passport]) == {}
    assert differences([PASSPORT, replace(PASSPORT, selection="best on held-out videos")]) == {}
    with pytest.raises(ValueError, match="selection: a: last epoch; b: best on the test split"):
        require_comparable({"a": RESULT, "b": chosen})
    require_comparable({"a": RESULT, "b": chosen}, ("selection",))


def test_questions_that_know_the_answer_do_not_compare_with_others():
    oracle, predicted = result(questions="oracle: own"), result(questions="predicted: before")
    assert list(differences([PASSPORT, oracle.passport])) == ["questions"]
    assert differences([oracle.passport, oracle.passport]) == {}
    assert differences([PASSPORT, predicted.passport]) == {}
    with pytest.raises(ValueError, match="questions: a: none; b: oracle: own"):
        require_comparable({"a": RESULT, "b": oracle})
    require_comparable({"a": RESULT, "b": oracle}, ("questions",))


def test_an_unknown_field_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"--across must name fields of .*task.*, got horizon\."):
        require_comparable({"a": RESULT}, ("horizon",))


def test_a_result_comes_back(tmp_path: Path):
    path = tmp_path / "deep" / "r.json"
    write_result(replace(RESULT, videos={}), path)
    assert read_result(path) == replace(RESULT, videos={})
    write_result(RESULT, path)
    read = read_result(path)
    assert read.passport == PASSPORT
    assert read.videos["1/rgb-01-1"]["mof 0.2/0.1"] != read.videos["1/rgb-01-1"]["mof 0.2/0.1"]


def test_a_result_written_before_inference_was_said_still_reads(tmp_path: Path):
    path = tmp_path / "r.json"
    write_result(replace(RESULT, videos={}), path)
    older = json.loads(path.read_text())
    del older["passport"]["inference"]
    path.write_text(json.dumps(older))
    assert read_result(path).passport == PASSPORT


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"score": 1}, r"r.json: unknown key 'score'; Result has passport, total"),
        ({"passport": {"dataset": "x", "data": 1}}, r"r.json: unknown key 'passport.data'"),
        ({"passport": {"dataset": "x"}}, r"r.json: passport.fingerprint: Field required"),
        ({"total": {"mean": "high"}}, r"r.json: total.mean: Input should be a valid number"),
        ({"format": 2}, r"r.json must be of format 1, got 2; it was written by another version"),
    ],
)
def test_a_wrong_key_is_named(tmp_path: Path, change: dict[str, Any], sentence: str):
    path = tmp_path / "r.json"
    write_result(RESULT, path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=sentence):
        read_result(path)


@pytest.mark.parametrize("content", [b"", b"moc = 37", b"\xff\xfe"])
def test_a_file_that_is_no_json_is_named(tmp_path: Path, content: bytes):
    (tmp_path / "r.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"r.json must be a result file in JSON, got .*; give a"):
        read_result(tmp_path / "r.json")


def test_a_list_is_no_result(tmp_path: Path):
    (tmp_path / "r.json").write_text("[]")
    with pytest.raises(ValueError, match=r"r.json: Result: .*, got \[\]"):
        read_result(tmp_path / "r.json")


def test_a_score_of_nothing_is_null_in_strict_json_and_nan_here(tmp_path: Path):
    write_result(RESULT, tmp_path / "a.json")

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    value = json.loads((tmp_path / "a.json").read_text(), parse_constant=refuse)
    assert value["videos"]["1/rgb-01-1"]["mof 0.2/0.1"] is None
    assert math.isnan(read_result(tmp_path / "a.json").videos["1/rgb-01-1"]["mof 0.2/0.1"])


def test_a_missing_result_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"the result file .*r.json does not exist"):
        read_result(tmp_path / "r.json")
