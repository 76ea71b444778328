"""`actioncast questions`: by templates, by a model that errs, resumed, and checked."""

import json

import pytest
from chat_server import chat_server, said

from actioncast.progress import silent
from actioncast.questions import QuestionMode, read_questions
from actioncast.questions.asking import parse_answer, partial_file
from actioncast.questions.command import Questions, questions
from actioncast.questions.endpoint import ChatEndpoint
from actioncast.questions.templates import GENERIC, clues
from epic_folders import VALIDATION, write_official

IDS = ("P02_01_0", "P01_02_0", "P01_02_1", "P01_02_2")
MORE = (*VALIDATION, "P01_02_1 00:01:03.00 00:01:04.00 2 1", "P01_02_2 00:01:05.00 00:01:06.00 1 0")


@pytest.fixture
def folder(tmp_path):
    return write_official(tmp_path / "epic", validation=MORE)


@pytest.fixture
def chat(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with chat_server() as server:
        server.always = good
        yield server


@pytest.fixture
def quick(monkeypatch):
    """Waits of no time."""
    monkeypatch.setattr(ChatEndpoint, "_wait", lambda *_: 0.0)


def good(messages):
    """A description, then two questions about it."""
    if messages[1]["content"].startswith("Note:"):
        return said("A person does something.")
    facts = json.loads(messages[1]["content"])
    assert facts["description"] == "A person does something."
    pair = {"verb": f"What is done to the {facts['noun']}?", "noun": "Where does it go?"}
    return said(f"Here you are:\n```json\n{json.dumps(pair)}\n```")


def asked(chat):
    """How many descriptions were asked for."""
    return sum(r["messages"][1]["content"].startswith("Note:") for r in chat.requests)


def run(folder, out, chat=None, **more):
    if chat is not None:
        more = {"endpoint": chat.url, "model": "m"} | more
    questions(Questions(out=str(out), data=folder, **more), silent)


def test_templates_write_a_file_that_passes_the_check(folder, tmp_path, capsys):
    run(folder, tmp_path / "q.json")
    file = read_questions(tmp_path / "q.json", IDS)
    assert (file.mode, file.source) == (QuestionMode.ORACLE, "templates, seed 0")
    assert "own annotation" in capsys.readouterr().out
    questions(Questions(check=tmp_path / "q.json", data=folder))
    assert "none names its own answer" in capsys.readouterr().out
    first = (tmp_path / "q.json").read_bytes()
    run(folder, tmp_path / "q.json")
    assert (tmp_path / "q.json").read_bytes() == first
    run(folder, tmp_path / "q.json", seed=1)
    assert (tmp_path / "q.json").read_bytes() != first


def test_predicted_questions_tell_what_had_started_and_nothing_of_the_clip(folder, tmp_path):
    run(folder, tmp_path / "q.json", mode="predicted", recount=3)
    file = read_questions(tmp_path / "q.json", IDS)
    assert file.mode is QuestionMode.PREDICTED
    # Before P01_02_1 (63.0 s) only P01_02_0 had started by 62.0 s; before the others nothing had.
    assert file.questions["P01_02_1"].verb.startswith("So far: take tap. ")
    assert file.questions["P01_02_2"].verb.startswith("So far: take tap, then wash pan. ")
    assert file.questions["P01_02_0"] == file.questions["P02_01_0"]
    run(folder, tmp_path / "q.json", mode="predicted", recount=3, ahead=2.5)
    file = read_questions(tmp_path / "q.json", IDS)
    assert file.questions["P01_02_2"].verb.startswith("So far: take tap. ")


def test_predicted_questions_ask_about_the_action_observed_last(folder, tmp_path):
    run(folder, tmp_path / "q.json", mode="predicted")
    file = read_questions(tmp_path / "q.json", IDS)
    assert "last action observed until 1 s before" in file.source
    asked = file.questions["P01_02_2"]
    # The one observed last is to wash the pan: its clues, and neither word.
    assert clues("verb")["wash"] in asked.verb
    assert clues("noun")["pan"] in asked.noun
    assert file.questions["P01_02_0"] == GENERIC == file.questions["P02_01_0"]


def test_generic_questions_are_the_same_for_all(folder, tmp_path):
    run(folder, tmp_path / "q.json", mode="generic", part="train")
    file = read_questions(tmp_path / "q.json", ["P01_01_0", "P01_01_1"])
    assert len(set(file.questions.values())) == 1
    assert file.mode is QuestionMode.GENERIC


def test_a_model_is_asked_twice_a_clip_and_masked(folder, tmp_path, chat):
    run(folder, tmp_path / "q.json", chat)
    file = read_questions(tmp_path / "q.json", IDS)
    assert file.source == "m, prompts 1"
    assert file.questions["P01_02_0"].verb == "What is done to the <MASK>?"
    assert (asked(chat), len(chat.requests)) == (4, 8)
    assert not partial_file(tmp_path / "q.json").exists()
    assert "take the pan" in chat.requests[0]["messages"][1]["content"]
    everything = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    assert b"sk-secret" not in everything


def test_a_model_is_told_its_mistake_and_asked_again(folder, tmp_path, chat):
    def clumsy(messages):
        if len(messages) == 2 and "description" in messages[1]["content"]:
            return said('{"verb": "Is it taken, put or washed?", "noun": "Which tap or pan?"}')
        if len(messages) == 4:
            assert "must not contain" in messages[3]["content"]
        return good(messages)

    chat.always = clumsy
    run(folder, tmp_path / "q.json", chat)
    assert len(chat.requests) == 12
    assert set(read_questions(tmp_path / "q.json", IDS).questions) == set(IDS)


def test_what_stays_unusable_is_listed_and_asked_again_next_time(folder, tmp_path, chat):
    out = tmp_path / "q.json"

    def stubborn(messages):
        facts = messages[1]["content"]
        return said("I cannot.") if '"wash"' in facts else good(messages)

    chat.always = stubborn
    with pytest.raises(ValueError, match=r"1 clips have no questions: P01_02_1 \(.*no JSON"):
        run(folder, out, chat)
    assert not out.exists()
    # One description and three tries for the stubborn one, two requests for each other.
    assert len(chat.requests) == 4 + 6
    chat.always = good
    chat.requests.clear()
    run(folder, out, chat)
    assert len(chat.requests) == 2
    assert set(read_questions(out, IDS).questions) == set(IDS)


def test_a_stopped_run_goes_on_where_it_was(folder, tmp_path, chat):
    out = tmp_path / "q.json"
    chat.script = [said("A person does something."), good_answer(), (401, {}, b"")]
    with pytest.raises(ValueError, match=r"1 of 4 clips are answered and kept"):
        run(folder, out, chat, workers=1)
    lines = partial_file(out).read_text().splitlines()
    assert [json.loads(line).get("id") for line in lines] == [None, "P02_01_0"]
    # A kill cuts the last line short.
    with partial_file(out).open("a") as file:
        file.write('{"id": "P01_02_0", "verb": "Wh')
    chat.requests.clear()
    run(folder, out, chat)
    assert asked(chat) == 3
    file = read_questions(out, IDS)
    assert file.questions["P02_01_0"].noun == "Where was it?"


def good_answer():
    return said('{"verb": "Why?", "noun": "Where was it?"}')


def test_answers_of_another_model_are_not_mixed_in(folder, tmp_path, chat):
    out = tmp_path / "q.json"
    chat.script = [said("A person does something."), good_answer(), (401, {}, b"")]
    with pytest.raises(ValueError, match="refuses the key"):
        run(folder, out, chat, workers=1)
    with pytest.raises(ValueError, match="begun with another model"):
        run(folder, out, chat, model="another")
    with pytest.raises(ValueError, match="begun with another data"):
        run(folder, out, chat, part="train")


@pytest.mark.usefixtures("quick")
def test_an_endpoint_that_falls_silent_is_given_up(folder, tmp_path, chat):
    chat.always = lambda _: (503, {}, b"")
    with pytest.raises(ValueError, match="0 of 4 clips are answered"):
        run(folder, tmp_path / "q.json", chat, workers=1)
    assert len(chat.requests) in range(3 * 8, 4 * 8 + 1)


@pytest.mark.usefixtures("quick")
def test_one_silent_clip_does_not_stop_the_others(folder, tmp_path, chat):
    def deaf(messages):
        return (500, {}, b"") if '"wash"' in messages[1]["content"] else good(messages)

    chat.always = deaf
    with pytest.raises(ValueError, match=r"1 clips have no questions: P01_02_1 \(.*no answer in 8"):
        run(folder, tmp_path / "q.json", chat, workers=3)
    assert len(partial_file(tmp_path / "q.json").read_text().splitlines()) == 4


def test_a_model_asks_about_the_last_observed_action(folder, tmp_path, chat):
    run(folder, tmp_path / "q.json", chat, mode="predicted")
    assert asked(chat) == 2
    told = {r["messages"][1]["content"] for r in chat.requests}
    assert {"Note: take tap", "Note: wash pan"} <= told
    file = read_questions(tmp_path / "q.json", IDS)
    assert (file.mode, len(file.questions)) == (QuestionMode.PREDICTED, 4)


def test_a_leaking_file_is_refused_or_masked(folder, tmp_path):
    path = tmp_path / "theirs.json"
    pairs = {clip: {"verb": "Who?", "noun": "Which taps and pans?"} for clip in IDS}
    path.write_text(json.dumps({"format": 1, "source": "them", "questions": pairs}))
    with pytest.raises(ValueError, match=r"P01_02_0 \(noun question, 'taps'\)"):
        questions(Questions(check=path, data=folder))
    questions(Questions(out=str(tmp_path / "ours.json"), check=path, data=folder, mask=True))
    file = read_questions(tmp_path / "ours.json", IDS)
    assert file.questions["P01_02_0"].noun == "Which <MASK> and pans?"
    path.write_text(
        json.dumps({"format": 1, "source": "x", "mode": "predicted", "questions": pairs})
    )
    with pytest.raises(ValueError, match="would tell it"):
        questions(Questions(check=path, data=folder, mask=True))
    questions(Questions(check=path, data=folder))


@pytest.mark.parametrize(
    ("more", "match"),
    [
        ({"out": ""}, "say which file"),
        ({"mask": True}, "--check"),
        ({"model": "m"}, "--endpoint"),
        ({"endpoint": "http://127.0.0.1:1", "mode": "generic"}, "without a model"),
        ({"endpoint": "http://127.0.0.1:1"}, "--model"),
        ({"workers": 0}, "--workers must be 1"),
        ({"part": "test"}, "unknown part"),
        ({"out": "."}, "must be a file"),
    ],
)
def test_odd_options_are_refused(folder, tmp_path, monkeypatch, more, match):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=match):
        questions(Questions(**({"out": "q.json", "data": folder} | more)))


def test_the_data_is_found_by_name(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("ACTIONCAST_DATA", str(folder.parent))
    run(folder.relative_to(folder.parent), tmp_path / "q.json")
    assert (tmp_path / "q.json").exists()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ACTIONCAST_DATA")
    with pytest.raises(FileNotFoundError, match="--data"):
        questions(Questions(out="q.json"))


@pytest.mark.parametrize(
    ("answer", "wrong"),
    [
        ("no", "no JSON object"),
        ('{"verb": "a", ', "broken JSON"),
        ('{"verb": "a"}', "noun: nothing"),
        ('{"verb": "a", "noun": 3}', "noun: a number"),
        ('{"verb": "a", "noun": " "}', "noun: empty"),
        (json.dumps({"verb": "a" * 401, "noun": "b"}), "400 characters"),
        ('{"x":' * 100_000, "broken JSON"),
    ],
)
def test_what_is_no_answer_is_said(answer, wrong):
    pair, said_wrong = parse_answer(answer)
    assert pair is None
    assert wrong in said_wrong


def test_an_answer_may_stand_among_words():
    pair, wrong = parse_answer('Sure! {"verb": "Why\\n so?", "noun": "Where?", "more": 1} Bye.')
    assert not wrong
    assert pair is not None
    assert (pair.verb, pair.noun) == ("Why so?", "Where?")
