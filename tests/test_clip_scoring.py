import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actioncast.__main__ import main
from actioncast.clip_evaluation import BOTH, JOINT, KNOWN, score_clips, selecting_score, subsets
from actioncast.clip_runs import load_clip_run
from actioncast.clip_scoring import clip_probabilities, clip_result
from actioncast.data.clips import ActionClip, ClipDataset
from actioncast.passport import Result, read_result, require_comparable, write_result
from actioncast.tables import clip_tables
from actioncast.timeline import LabelSpace, Taxonomy
from clip_folders import write_kitchen
from epic_folders import clip_dataset
from folders import SMALL, write_folder

SIZE = 9
PAIRS = tuple((verb, noun) for verb in range(SIZE) for noun in range(SIZE))
NINE = Taxonomy(
    {
        "verb": LabelSpace(tuple(f"v{i}" for i in range(SIZE))),
        "noun": LabelSpace(tuple(f"n{i}" for i in range(SIZE))),
        "action": LabelSpace(tuple(f"v{v} n{n}" for v, n in PAIRS)),
    },
    pairs=PAIRS,
)


def clip(i: int, verb: int, noun: int, who: str = "P01") -> ActionClip:
    return ActionClip(
        id=f"{who}_01_{i}",
        video=f"{who}_01",
        participant=who,
        start=float(i),
        stop=i + 1.0,
        verb=verb,
        noun=noun,
        action=SIZE * verb + noun,
    )


def dataset(clips: list[ActionClip], **values: Any) -> ClipDataset:
    return ClipDataset(
        name="nine",
        taxonomy=NINE,
        clips={"train": (), "validation": tuple(clips)},
        videos={},
        **values,
    )


def ranked(first: list[int], size: int = SIZE) -> np.ndarray:
    """Scores that rank these classes first."""
    scores = np.linspace(1.0, 0.1, size)
    found = np.zeros(size)
    rest = [i for i in range(size) if i not in first]
    found[[*first, *rest]] = scores
    return found


def test_recall_is_a_mean_over_classes_and_accuracy_over_clips() -> None:
    """Verbs 0, 0, 0, 1, of which two of the first three are found: 33.3, and 50 % of clips."""
    clips = [clip(0, 0, 0), clip(1, 0, 0), clip(2, 0, 0), clip(3, 1, 0)]
    hit, miss = ranked([0, 8, 7, 6, 5]), ranked([8, 7, 6, 5, 4])
    verbs = np.stack([hit, hit, miss, miss])
    nouns = np.stack([hit] * 4)
    actions = (verbs[:, :, None] * nouns[:, None]).reshape(4, -1)
    found = score_clips(
        {"verb": verbs, "noun": nouns, "action": actions}, clips, dataset(clips), "next_action"
    )["overall"]
    assert found["recall@5 verb"] == pytest.approx(100 / 3)
    assert found["top-5 verb"] == 50
    assert found["top-1 verb"] == 50
    assert found["recall@5 noun"] == found["top-1 noun"] == 100


def test_the_joint_variant_has_its_own_name_and_counts_more() -> None:
    """The verb ranks fifth and so does the noun: the pair ranks beyond five (sheet, section 3)."""
    clips = [clip(0, 4, 4)]
    fifth = ranked([0, 1, 2, 3, 4])
    actions = np.outer(fifth, fifth).reshape(1, -1)
    scores = {"verb": fifth[None], "noun": fifth[None], "action": actions}
    found = score_clips(scores, clips, dataset(clips), "next_action")["overall"]
    assert found[JOINT] == 100
    assert found["recall@5 action"] == found["top-5 action"] == 0
    assert "joint" in JOINT


def test_actions_are_also_ranked_among_those_of_training_alone() -> None:
    """The true action ranks sixth of all, third of those that training has; another is new."""
    clips = [clip(0, 0, 5), clip(1, 0, 7)]
    data = replace(dataset(clips), clips={"train": (clip(2, 0, 5), clip(3, 0, 0), clip(4, 0, 1))})
    actions = np.stack([ranked([0, 1, 2, 3, 4, 5], SIZE**2), ranked([7], SIZE**2)])
    even = np.full((2, SIZE), 1 / SIZE)
    found = score_clips({"verb": even, "noun": even, "action": actions}, clips, data, "next_action")
    assert found["overall"]["recall@5 action"] == 50
    # The new one is right among all and cannot be right among those of training.
    assert found["overall"][KNOWN] == 50
    only = score_clips(
        {"verb": even[:1], "noun": even[:1], "action": actions[:1]}, clips[:1], data, "next_action"
    )["overall"]
    assert (only["recall@5 action"], only[KNOWN]) == (0, 100)


def test_the_best_verb_with_the_best_noun_is_another_top_1() -> None:
    """The best pair is none of the best verb and the best noun."""
    clips = [clip(0, 1, 1)]
    verbs, nouns = ranked([1])[None], ranked([1])[None]
    actions = ranked([SIZE * 2 + 2], SIZE**2)[None]
    scores = {"verb": verbs, "noun": nouns, "action": actions}
    found = score_clips(scores, clips, dataset(clips), "recognition")["overall"]
    assert (found["top-1 action"], found[BOTH]) == (0, 100)


def test_subsets_have_their_own_clips_and_classes() -> None:
    clips = [clip(0, 0, 0), clip(1, 1, 0), clip(2, 0, 3, "P09"), clip(3, 5, 5, "P09")]
    data = dataset(
        clips,
        tail={"verb": frozenset({1}), "noun": frozenset({3})},
        unseen=frozenset({"P09"}),
    )
    found = subsets(clips, data)
    assert found["unseen"]["verb"].tolist() == [False, False, True, True]
    assert found["tail"]["verb"].tolist() == [False, True, False, False]
    assert found["tail"]["noun"].tolist() == [False, False, True, False]
    # An action is rare where its verb is, or its noun.
    assert found["tail"]["action"].tolist() == [False, True, True, False]
    right = {head: np.eye(len(s))[[c.label(head) for c in clips]] for head, s in NINE.heads.items()}
    wrong = {**right, "verb": right["verb"].copy()}
    wrong["verb"][3] = ranked([8, 7, 6, 4, 3])
    scored = score_clips(wrong, clips, data, "next_action")
    # Of all, verbs 0, 1 and 5; of the unseen, 0 and 5; of the tail, 1.
    assert scored["overall"]["recall@5 verb"] == pytest.approx(200 / 3)
    assert scored["unseen"]["recall@5 verb"] == 50
    assert scored["tail"]["recall@5 verb"] == 100
    empty = score_clips(right, clips, dataset(clips), "next_action")
    assert np.isnan(empty["unseen"]["recall@5 action"])


def test_recognition_leads_with_top_1() -> None:
    clips = [clip(0, 0, 0)]
    scores = {head: ranked([0], len(s))[None] for head, s in NINE.heads.items()}
    found = score_clips(scores, clips, dataset(clips), "recognition")["overall"]
    assert list(found)[:3] == ["top-1 verb", "top-1 noun", "top-1 action"]
    assert list(score_clips(scores, clips, dataset(clips), "next_action")["overall"])[:3] == [
        "recall@5 verb",
        "recall@5 noun",
        "recall@5 action",
    ]


def test_what_selects_is_one_head_or_their_mean() -> None:
    clips = [clip(0, 0, 0), clip(1, 0, 0), clip(2, 1, 1)]
    verbs = np.stack([ranked([0]), ranked([8, 7, 6, 5, 4]), ranked([1])])
    right = {head: np.eye(len(s))[[c.label(head) for c in clips]] for head, s in NINE.heads.items()}
    scores = {**right, "verb": verbs}
    assert selecting_score(scores, clips, "next_action", "verb") == 75
    assert selecting_score(scores, clips, "next_action", "action") == 100
    assert selecting_score(scores, clips, "next_action", "mean") == pytest.approx(275 / 3)
    assert selecting_score(scores, clips, "recognition", "verb") == pytest.approx(200 / 3)


# Runs


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three trained runs on a small kitchen."""
    home = tmp_path_factory.mktemp("clips")
    data = write_kitchen(home / "epic100")
    for recipe in ("class-frequency-ek100", "pair-n-gram-ek100", "object-n-gram-ek100"):
        assert main(["train", recipe, "--data", str(data), "--out", str(home / "runs")]) == 0
    return home


def result_of(home: Path, recipe: str) -> Result:
    loaded = load_clip_run(home / "runs" / recipe)
    return clip_result(loaded, clip_probabilities(loaded))


def test_every_clip_counts_those_too_of_which_nothing_was_seen(home: Path) -> None:
    loaded = load_clip_run(home / "runs" / "pair-n-gram-ek100")
    unseen = [c for c in loaded.clips if not len(loaded.sources.first.read(c))]
    assert unseen
    scores = clip_probabilities(loaded, batch_size=5)
    whole = clip_probabilities(loaded, batch_size=100)
    for head, rows in scores.items():
        assert len(rows) == len(loaded.clips) == 24
        np.testing.assert_allclose(rows, whole[head], rtol=1e-5)
        np.testing.assert_allclose(rows.sum(1), 1, atol=1e-5)
    assert clip_result(loaded, scores).passport.num_clips == 24


def test_counting_what_went_before_beats_counting_classes(home: Path) -> None:
    names = ("class-frequency-ek100", "pair-n-gram-ek100")
    frequency, grams = (result_of(home, name).total["top-1 verb"] for name in names)
    assert grams > frequency + 20


def test_the_passport_says_what_was_measured(home: Path, tmp_path: Path) -> None:
    result = result_of(home, "object-n-gram-ek100")
    said = result.passport
    assert (said.task, said.anticipation_time, said.splits) == ("next action", 1.0, ("validation",))
    assert (said.model, said.recipe) == ("pair-n-gram", "object-n-gram-ek100")
    assert said.selection == "none: counted on all training clips"
    assert "annotated past actions, the latest 16" in said.input
    assert (said.questions, said.clip, said.features_causal) == ("", "", "yes")
    assert list(result.splits) == ["overall", "unseen", "tail"]
    assert result.total == result.splits["overall"]
    write_result(result, tmp_path / "r.json")
    assert read_result(tmp_path / "r.json") == result


def test_oracle_questions_stand_in_no_table_with_others(home: Path) -> None:
    plain = result_of(home, "pair-n-gram-ek100")

    def asked(questions: str) -> Result:
        return replace(plain, passport=replace(plain.passport, questions=questions))

    oracle, predicted = asked("oracle: made from ..."), asked("predicted: made from ...")
    require_comparable({"plain": plain, "predicted": predicted})
    require_comparable({"one": oracle, "two": oracle})
    for other in (plain, predicted):
        with pytest.raises(ValueError, match="questions: one: oracle"):
            require_comparable({"one": oracle, "two": other})
        require_comparable({"one": oracle, "two": other}, ["questions"])


@pytest.mark.parametrize(
    ("field", "value"), [("anticipation_time", 2.0), ("task", "recognition"), ("metric", "other")]
)
def test_what_was_asked_otherwise_stands_in_no_table(home: Path, field: str, value: Any) -> None:
    plain = result_of(home, "pair-n-gram-ek100")
    other = replace(plain, passport=replace(plain.passport, **{field: value}))
    with pytest.raises(ValueError, match=f"{field}: "):
        require_comparable({"one": plain, "two": other})


def test_results_written_before_these_fields_existed_are_read(home: Path, tmp_path: Path) -> None:
    write_result(result_of(home, "pair-n-gram-ek100"), tmp_path / "r.json")
    content = json.loads((tmp_path / "r.json").read_text())
    for name in ("num_clips", "anticipation_time", "clip", "questions"):
        del content["passport"][name]
    (tmp_path / "r.json").write_text(json.dumps(content))
    assert read_result(tmp_path / "r.json").passport.questions == ""


def test_tables_show_the_subsets_first(home: Path) -> None:
    result = result_of(home, "pair-n-gram-ek100")
    leading, rest = clip_tables({"ours": result})
    assert leading.header[:4] == ("recall@5", "overall verb", "overall noun", "overall action")
    assert len(leading.header) == 10
    assert leading.rows[0][3] == f"{result.total['recall@5 action']:.2f}"
    assert JOINT in rest.header
    assert not any("joint" in name for name in leading.header)


def test_several_runs_make_one_table(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [str(home / "runs" / n) for n in ("class-frequency-ek100", "pair-n-gram-ek100")]
    assert main(["evaluate", *runs]) == 0
    out = capsys.readouterr().out
    assert "24 actions, next action after 1 s" in out
    assert all(out.count(f"{run} ") == 2 for run in runs)
    files = [f"{run}/results/next_action.json" for run in runs]
    assert main(["compare", *files]) == 0
    assert main(["info", files[0]]) == 0
    assert main(["info", runs[0]]) == 0
    assert "class-frequency" in capsys.readouterr().out


def test_what_is_of_whole_videos_is_refused(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(home / "runs" / "pair-n-gram-ek100")
    videos = write_folder(tmp_path / "videos")
    out = ["--out", str(tmp_path / "runs")]
    assert main(["train", "futr", "--data", str(videos), *out, *SMALL]) == 0
    other = str(tmp_path / "runs" / "futr")
    for words, sentence in (
        ([run, "--horizon", "seconds"], "--horizon is an option for whole videos"),
        ([run, "--num-samples", "3"], "--num-samples is an option for whole videos"),
        ([run, other], "have no score in common"),
        ([run, run, "--submission", "s.json"], "holds the answers of one run, got 2"),
        ([other, "--submission", "s.json"], "got a run on whole videos"),
        ([run, "--split", "test"], "unknown part 'test'"),
        ([run, "--split", "held_out"], "held no participant out"),
        ([run, "--submission", str(tmp_path / "s.json")], "got a taxonomy of"),
        ([run, "--supervision", "1", "2", "9"], "supervision level of data"),
    ):
        assert main(["evaluate", *words]) == 2
        assert sentence in capsys.readouterr().err


def test_runs_of_one_kind_are_not_loaded_as_the_other(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(home / "runs" / "pair-n-gram-ek100")
    assert main(["predict", run, "P01_01"]) == 2
    assert "must be a run on whole videos, got one on short actions" in capsys.readouterr().err
    videos = write_folder(tmp_path / "videos")
    out = ["--out", str(tmp_path / "runs")]
    assert main(["train", "futr", "--data", str(videos), *out, *SMALL]) == 0
    with pytest.raises(ValueError, match="must be a run on short actions, got one on whole videos"):
        load_clip_run(tmp_path / "runs" / "futr")


def test_a_checkpoint_of_other_classes_is_refused(home: Path, tmp_path: Path) -> None:
    data = write_kitchen(tmp_path / "epic100")
    classes = data / "EPIC_100_noun_classes.csv"
    classes.write_text(classes.read_text().replace("pan", "pot"))
    with pytest.raises(ValueError, match="names other verbs, nouns or actions"):
        load_clip_run(home / "runs" / "pair-n-gram-ek100", data)


def test_data_of_hand_made_clips_has_all_its_actions() -> None:
    """Clips of these tests number their actions as the taxonomy does."""
    found = clip_dataset([])
    assert found.taxonomy.pairs[5] == (2, 1)


def test_a_run_with_oracle_questions_says_so_wherever_it_is_seen(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Recognition from features, asked about its own annotation, through the command line."""
    data = home / "epic100"
    for video in ("P01_01", "P02_01", "P03_01", "P04_01", "P01_02", "P05_01"):
        (data / "features").mkdir(exist_ok=True)
        np.save(data / "features" / f"{video}.npy", np.ones((200, 3), np.float32))
    words = ["train", "mambavl-ek100-recognition", "--data", str(data), "--out", str(tmp_path)]
    words += ["--text-encoder", "hash:4", "--epochs", "1", "--warmup-epochs", "1", "--seed", "3"]
    words += ["--model.hidden-dim", "8", "--model.state-dim", "2", "--feature-rate", "5"]
    write_lengths(data)
    assert main(words) == 0
    run = tmp_path / "mambavl-ek100-recognition"
    capsys.readouterr()
    assert main(["evaluate", str(run)]) == 0
    assert "recognition with oracle questions" in capsys.readouterr().out
    said = read_result(run / "results" / "recognition.json").passport
    assert said.task == "recognition with oracle questions"
    assert said.questions.startswith("oracle: questions made from")
    assert "own annotation" in said.questions
    assert said.clip == "16 frames of the action itself, from its start to its stop."
    assert (said.features_causal, said.seeds, said.anticipation_time) == ("unknown", (3,), 0.0)
    assert main(["evaluate", str(run), "--split", "train"]) in (0, 2)
    # Other data do not take the place of the run's own result.
    own = (run / "results" / "recognition.json").read_bytes()
    other = tmp_path / "other"
    shutil.copytree(data, other)
    rows = (other / "EPIC_100_validation.csv").read_text().splitlines()
    (other / "EPIC_100_validation.csv").write_text("\n".join(rows[:-1]) + "\n")
    assert main(["evaluate", str(run), "--data", str(other)]) == 0
    assert (run / "results" / "recognition.json").read_bytes() == own
    assert len(list((run / "results").glob("recognition-on-*.json"))) == 1


def write_lengths(data: Path) -> None:
    videos = sorted(path.stem for path in (data / "features").glob("*.npy"))
    rows = [f"{video},40.0,60.0,1920x1080" for video in videos]
    text = "\n".join(["video_id,duration,fps,resolution", *rows]) + "\n"
    (data / "EPIC_100_video_info.csv").write_text(text)


def test_counting_counts_the_training_part_alone(home: Path) -> None:
    """48 clips train and 24 validate; frequencies are those of the 48."""
    loaded = load_clip_run(home / "runs" / "class-frequency-ek100")
    train = loaded.dataset.part("train")
    model: Any = loaded.checkpoint.model
    for head, size in (("verb", 3), ("noun", 2), ("action", len(loaded.dataset.taxonomy.pairs))):
        counts = np.bincount([clip.label(head) for clip in train], minlength=size)
        assert getattr(model, f"counts_{head}").tolist() == counts.tolist()
    grams: Any = load_clip_run(home / "runs" / "pair-n-gram-ek100").checkpoint.model
    assert sorted(grams.answers.tolist()) == sorted(clip.action for clip in train)


def test_the_joint_variant_needs_both_halves() -> None:
    clips = [clip(0, 0, 8)]
    first = ranked([0, 1, 2, 3, 4])[None]
    scores = {"verb": first, "noun": first, "action": np.outer(first, first).reshape(1, -1)}
    assert score_clips(scores, clips, dataset(clips), "next_action")["overall"][JOINT] == 0


def test_recognition_is_selected_by_the_first_answer() -> None:
    clips = [clip(0, 1, 1), clip(1, 1, 1)]
    verbs = np.stack([ranked([1]), ranked([0, 1])])
    scores = {"verb": verbs, "noun": verbs, "action": np.ones((2, SIZE**2))}
    assert selecting_score(scores, clips, "recognition", "verb") == 50
    assert selecting_score(scores, clips, "next_action", "verb") == 100
