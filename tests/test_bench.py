import json
from dataclasses import replace
from pathlib import Path

import pytest

import folders
from actioncast.__main__ import main
from actioncast.bench import bench_labels, for_horizon, tables, write_readme
from actioncast.passport import Result, read_result, write_result
from actioncast.protocols import HorizonSource
from actioncast.published import CELLS, FROM_LABELS
from actioncast.recipes import recipe

TRUE, SECONDS = HorizonSource.TRUE_LENGTH, HorizonSource.SECONDS
MODELS = ("repeat-last-action", "n-gram")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny folders under the names of the public sets."""
    home = tmp_path_factory.mktemp("bench")
    names = {
        "breakfast": [f"P{p:02d}_cam01_P{p:02d}_tea" for p in range(4)],
        "50salads": [f"rgb-{p:02d}-1" for p in range(4)],
    }
    for dataset, videos in names.items():
        folders.write_folder(
            home / dataset, features=False, splits=2, about={}, names=videos, scale=4
        )
    return home


@pytest.fixture(scope="module")
def results(home: Path) -> dict[str, Result]:
    return bench_labels(
        data=home,
        datasets=("breakfast", "50salads"),
        models=MODELS,
        horizons=(TRUE, SECONDS),
        out=home / "results" / "labels",
        runs=home / "runs",
        workers=1,
    )


def test_every_model_data_set_and_horizon_has_a_result(
    home: Path, results: dict[str, Result]
) -> None:
    wanted = {
        f"{dataset}-{model}-{horizon}"
        for dataset in ("breakfast", "50salads")
        for model in MODELS
        for horizon in ("true_length", "seconds")
    }
    assert results.keys() == wanted
    assert {p.stem for p in (home / "results" / "labels").iterdir()} == wanted
    for name, result in results.items():
        assert read_result(home / "results" / "labels" / f"{name}.json") == replace(
            result, videos={}
        )
        passport = result.passport
        assert passport.splits == ("1", "2")
        assert passport.num_videos == 4
        assert passport.input == "true labels"
        assert passport.horizon_source.startswith(name.rsplit("-", 1)[-1])
        assert set(result.total) == {*CELLS, "mean"}
        assert 0 <= result.total["mean"] <= 100
    assert results["breakfast-n-gram-true_length"].passport.dataset == "breakfast"


def test_published_rows_stand_marked_in_the_table_of_the_true_length(
    results: dict[str, Result],
) -> None:
    text = tables(results)
    sections = text.split("\n\n")
    assert [s.split(",")[0] for s in sections] == ["breakfast"] * 2 + ["50salads"] * 2
    for section in sections:
        dataset, published = section.split(",")[0], "[published: reported, unverified]" in section
        assert published == ("true length" in section)
        assert all(model in section for model in MODELS)
        if published:
            for row in FROM_LABELS:
                assert (f"{row.method}, {row.source} [{row.mark}]" in section) == (
                    row.dataset == dataset
                    or any(o.method == row.method and o.dataset == dataset for o in FROM_LABELS)
                )
            means = [float(line.split()[-1]) for line in section.splitlines()[3:]]
            assert means == sorted(means)
            assert len(means) == len(MODELS) + sum(r.dataset == dataset for r in FROM_LABELS)


def test_the_readme_is_changed_between_its_markers_alone(
    home: Path, results: dict[str, Result], tmp_path: Path
) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- labels -->\nold\n<!-- end of labels -->\nafter\n")
    assert "8 result files" in write_readme(home / "results", readme)
    text = readme.read_text()
    assert text.startswith("before\n<!-- labels -->\n**breakfast")
    assert text.endswith("<!-- end of labels -->\nafter\n")
    assert "old" not in text
    assert "| n-gram | " in text
    total = results["50salads-n-gram-seconds"].total["mean"]
    assert f"{total:.2f} |" in text
    again = readme.read_text()
    write_readme(home / "results", readme)
    assert readme.read_text() == again
    readme.write_text("nothing")
    with pytest.raises(ValueError, match="must hold the lines <!-- labels -->"):
        write_readme(home / "results", readme)
    assert readme.read_text() == "nothing"
    with pytest.raises(FileNotFoundError, match=r"README .* does not exist"):
        write_readme(home / "results", tmp_path / "no.md")


def test_results_of_other_data_do_not_share_a_table(
    results: dict[str, Result], tmp_path: Path
) -> None:
    for name in ("breakfast-n-gram-true_length", "breakfast-repeat-last-action-true_length"):
        write_result(results[name], tmp_path / "labels" / f"{name}.json")
    odd = tmp_path / "labels" / "breakfast-n-gram-true_length.json"
    value = json.loads(odd.read_text())
    value["passport"]["fingerprint"] = "other"
    odd.write_text(json.dumps(value))
    readme = tmp_path / "README.md"
    readme.write_text("<!-- labels --><!-- end of labels -->")
    with pytest.raises(ValueError, match="fingerprint"):
        write_readme(tmp_path, readme)


def test_trained_models_are_used_again(
    home: Path, results: dict[str, Result], capsys: pytest.CaptureFixture[str]
) -> None:
    model = home / "runs" / "breakfast-n-gram-seed0" / "split1" / "best" / "model.safetensors"
    before = model.stat().st_mtime_ns
    words = ["--data", str(home), "--out", str(home / "again"), "--runs", str(home / "runs")]
    words += ["--datasets", "breakfast", "--models", "n-gram", "--horizons", "true_length"]
    assert main(["bench", "labels", *words, "--workers", "1", "--splits", "2", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert model.stat().st_mtime_ns == before
    (result,) = said.values()
    assert result["passport"]["splits"] == ["2"]
    whole = results["breakfast-n-gram-true_length"]
    assert result["total"] == pytest.approx(whole.splits["2"])


def test_a_learned_model_learns_the_questions_of_its_horizon() -> None:
    config = recipe("futr-breakfast-labels")
    assert for_horizon(config, TRUE) == config
    changed = for_horizon(config, SECONDS)
    assert changed.horizon_source is SECONDS
    assert changed.model.end_takes_time  # type: ignore[union-attr]
    assert for_horizon(recipe("n-gram"), SECONDS).model == recipe("n-gram").model


def test_runs_of_several_seeds_make_a_row_of_means_and_one_of_deviations(
    results: dict[str, Result],
) -> None:
    one = next(r for r in results.values() if r.passport.horizon_source.startswith("seconds"))
    others = {
        f"seed {seed}": replace(
            one,
            passport=replace(one.passport, recipe="drawn", seeds=(seed,)),
            total=dict.fromkeys(one.total, 10.0 + 2 * seed),
        )
        for seed in (0, 1, 2)
    }
    rows = [line.split("  ") for line in tables({**others, "alone": one}).splitlines()]
    found = {row[0]: [cell.strip() for cell in row if cell.strip()][1:] for row in rows}
    assert set(found["drawn, mean of 3 seeds"]) == {"12.00"}
    assert set(found["drawn, mean of 3 seeds: deviation"]) == {"2.00"}
    assert one.passport.recipe in found
    names = [row[0] for row in rows]
    assert names.index("drawn, mean of 3 seeds: deviation") == (
        names.index("drawn, mean of 3 seeds") + 1
    )


def test_results_of_streams_show_detection_and_every_moment_ahead(
    results: dict[str, Result],
) -> None:
    one = next(r for r in results.values() if r.passport.horizon_source.startswith("seconds"))
    said = replace(
        one.passport,
        dataset="kitchen",
        task="online",
        horizon_source="",
        observed_ratios=(),
        horizon_ratios=(),
        ahead=(1.0, 2.5),
        input="features, 8 wide",
    )
    total = {"mAP": 70.0, "cAP": 90.0, "mof": 60.0, "mAP ahead": 30.0, "mAP 1s": 35.0}
    total |= {"mAP 2.5s": 25.0, "cAP 1s": 80.0, "onset delay (s)": 0.5, "mean": 50.0}
    made = {
        name: replace(one, passport=replace(said, recipe=name), total={**total, "mean": mean})
        for name, mean in (("better", 51.0), ("worse", 49.0))
    }
    heading, header, _, first, second, *_ = tables(made).splitlines()
    assert heading == "kitchen, online detection and anticipation at every step"
    names = [name for name in header.split("  ") if name]
    shown = ["mAP", "cAP", "mof", "mAP 1s", "mAP 2.5s", "mAP ahead", "onset delay (s)", "mean"]
    assert [name.strip() for name in names] == shown
    assert first.startswith("worse")
    assert second.startswith("better")
    assert second.split()[-8:] == [
        "70.00",
        "90.00",
        "60.00",
        "35.00",
        "25.00",
        "30.00",
        "0.50",
        "51.00",
    ]
