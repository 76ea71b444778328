"""Timeline files: what is written comes back, and bad input says where and why."""

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from actioncast.timeline import LabelSpace, Segment, Timeline
from actioncast.timeline_files import SUFFIXES, read_timeline, write_timeline

SALAD = LabelSpace(("cut tomato", "pour milk", "SIL"), frozenset({"SIL"}))
ODD = (
    "a --> b",
    "x < y & z",
    "two\nlines",
    "\r",
    " blanks ",
    "quo\"te,;'",
    "</script>",
    "100 %",
    "",
)


def timeline_of(*segments, labels=SALAD):
    return Timeline.of([Segment(*segment) for segment in segments], labels)


FORECAST = timeline_of(
    (0.0, 4.0, 0, 0.97), (4.0, 9.0, 1, 0.9), (9.0, 12.5, 1, 0.83), (12.5, 20, 2, 0.4)
)


NAME = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(ODD)
TIME = st.floats(0, 5000, allow_subnormal=False)
SPAN = st.lists(TIME, min_size=2, max_size=2, unique=True).map(sorted)


def drawings(names=NAME):
    """What `built` makes a timeline and now of."""
    row = st.tuples(SPAN, st.integers(0, 999), st.floats(0, 1))
    names = st.lists(names, min_size=1, max_size=5, unique=True)
    return st.tuples(names, st.lists(row, min_size=1, max_size=7), st.none() | TIME)


def built(drawing):
    names, rows, now = drawing
    segments = [Segment(a, b, label % len(names), score) for (a, b), label, score in rows]
    return Timeline.of(segments, LabelSpace(tuple(names))), now


def named(timeline):
    return [(s.start, s.end, timeline.labels.names[s.label], s.score) for s in timeline]


def parts(timeline, now):
    return [now is not None and s.start >= now for s in timeline]


@pytest.fixture
def write(tmp_path):
    def write(name, text):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


once = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("suffix", [".json", ".vtt"])
@once
@given(drawings())
def test_json_and_vtt_come_back_exactly(tmp_path, suffix, drawing):
    timeline, now = built(drawing)
    path = tmp_path / f"a{suffix}"
    write_timeline(timeline, path, now=now, video="films/a b.mp4")
    read = read_timeline(path)
    assert read.timeline == timeline
    assert [s.score for s in read.timeline] == [s.score for s in timeline]
    assert (read.now, read.video) == (now, "films/a b.mp4")


@once
@given(drawings())
def test_csv_comes_back_with_its_parts(tmp_path, drawing):
    timeline, now = built(drawing)
    path = tmp_path / "a.csv"
    write_timeline(timeline, path, now=now)
    read = read_timeline(path, timeline.labels)
    assert named(read.timeline) == named(timeline)
    assert parts(read.timeline, read.now) == parts(timeline, now)
    assert sorted(named(read_timeline(path).timeline)) == sorted(named(timeline))


XML_TEXT = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff"), max_size=8
) | st.sampled_from(ODD)


@once
@example(([""], [([1.5723513856646631e-260, 2.220446049250313e-16], 0, 0.0)], 5.3e-304))
@given(drawings(XML_TEXT))
def test_eaf_comes_back_to_the_millisecond(tmp_path, drawing):
    timeline, now = built(drawing)
    path = tmp_path / "a.eaf"
    write_timeline(timeline, path, now=now, video="https://example.org/a.mp4?b&c")
    read = read_timeline(path)
    assert read.timeline.labels == timeline.labels
    assert read.video == "https://example.org/a.mp4?b&c"
    assert (read.now is None) == (now is None)
    assert sum(parts(read.timeline, read.now)) == sum(parts(timeline, now))
    left = list(read.timeline)
    for s in timeline:
        # To the nearest millisecond; being shorter, or touching now, may cost one more each.
        touches_now = now is not None and min(abs(s.start - now), abs(s.end - now)) < 0.0011
        allowed = 0.00051 + 0.001 * (s.duration < 0.0011) + 0.001 * touches_now
        match = next(
            r
            for r in left
            if (r.label, r.score) == (s.label, s.score)
            and r.start == pytest.approx(s.start, abs=allowed)
            and r.end == pytest.approx(s.end, abs=allowed)
        )
        left.remove(match)
    assert left == []
    # Once rounded, it comes back exactly.
    again = tmp_path / "b.eaf"
    write_timeline(read.timeline, again, now=read.now)
    assert read_timeline(again).timeline == read.timeline


@pytest.mark.parametrize(("past", "now", "future"), [(0.9996, 1.0, 2), (0.0, 3e-4, 4e-4)])
def test_rounding_carries_no_segment_over_now(tmp_path, past, now, future):
    timeline = timeline_of((past, 3, 0), (future, 3, 1))
    write_timeline(timeline, tmp_path / "a.eaf", now=now)
    read = read_timeline(tmp_path / "a.eaf")
    assert parts(read.timeline, read.now) == [False, True]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_overlapping_segments_survive(tmp_path, suffix):
    timeline = timeline_of(
        (0, 5, 0, 0.5), (0, 5, 0, 0.6), (1, 3, 1), (2, 8, 2), (6, 9, 1), (7, 9, 0)
    )
    path = tmp_path / f"a{suffix}"
    write_timeline(timeline, path, now=6)
    read = read_timeline(path, SALAD)
    assert sorted(named(read.timeline)) == sorted(named(timeline))
    assert read.now == 6


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_timeline_without_segments_comes_back(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    write_timeline(Timeline((), SALAD), path)
    read = read_timeline(path, SALAD)
    assert read.timeline == Timeline((), SALAD)
    assert read.now is None


@pytest.mark.parametrize("suffix", [".json", ".eaf"])
def test_background_comes_back(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    write_timeline(FORECAST, path)
    assert read_timeline(path).timeline.labels.background == {"SIL"}


def test_csv_is_a_table_with_parts(tmp_path):
    path = tmp_path / "a.csv"
    write_timeline(FORECAST, path, now=9.0)
    assert path.read_text().splitlines() == [
        "start,end,label,score,part",
        "0.0,4.0,cut tomato,0.97,past",
        "4.0,9.0,pour milk,0.9,past",
        "9.0,12.5,pour milk,0.83,future",
        "12.5,20,SIL,0.4,future",
    ]


def test_vtt_cues_say_what_comes_at_now(tmp_path):
    path = tmp_path / "a.vtt"
    write_timeline(FORECAST, path, now=9.0)
    text = path.read_text()
    assert text.startswith("WEBVTT\n\n")
    cues = re.findall(r"^(\S+) --> (\S+)(.*)\n(.*)", text, re.M)
    assert cues == [
        ("00:00:00.000", "00:00:04.000", "", "cut tomato (97 %)"),
        (
            *("00:00:04.000", "00:00:11.000", " line:0"),
            "<c.forecast>from 0:09: pour milk (83 %) → SIL (40 %)</c>",
        ),
        ("00:00:04.000", "00:00:09.000", "", "pour milk (90 %)"),
        ("00:00:09.000", "00:00:12.500", "", "<c.forecast>next: pour milk (83 %)</c>"),
        ("00:00:12.500", "00:00:20.000", "", "<c.forecast>next: SIL (40 %)</c>"),
    ]


def test_vtt_cues_are_plain_text_of_one_line(tmp_path):
    labels = LabelSpace(ODD)
    path = tmp_path / "a.vtt"
    write_timeline(timeline_of(*((i, i + 1, i) for i in range(9)), labels=labels), path)
    text = path.read_text()
    assert "a --&gt; b" in text
    assert "x &lt; y &amp; z" in text
    assert "two lines" in text
    assert text.count("-->") == 9
    assert "</script>" not in text.partition("\n1")[0]


def test_vtt_edited_against_its_note_is_refused(tmp_path, write):
    path = tmp_path / "a.vtt"
    write_timeline(FORECAST, path, now=9.0)
    edited = path.read_text().replace("pour milk (90 %)", "cut tomato (90 %)")
    with pytest.raises(ValueError, match=r"Delete the block that starts with 'NOTE actioncast"):
        read_timeline(write("b.vtt", edited))
    without = re.sub(r"NOTE actioncast.*\n.*\n\n", "", edited)
    read = read_timeline(write("c.vtt", without), SALAD)
    names = [name for _, _, name, _ in named(read.timeline)]
    assert names == ["cut tomato", "cut tomato", "pour milk", "SIL"]
    assert read.now == 9.0


def test_eaf_has_a_tier_for_each_part_and_for_overlaps(tmp_path):
    path = tmp_path / "a.eaf"
    write_timeline(timeline_of((0, 5, 0), (1, 3, 1), (6, 9, 2)), path, now=6, video="v.mp4")
    root = ET.parse(path).getroot()
    tiers = [tier.get("TIER_ID") for tier in root.iterfind("TIER")]
    assert tiers == ["past", "past score", "past-2", "past-2 score", "forecast", "forecast score"]
    order = [child.tag for child in root]
    sequence = "HEADER TIME_ORDER TIER LINGUISTIC_TYPE LANGUAGE CONSTRAINT CONTROLLED_VOCABULARY"
    assert order == sorted(order, key=sequence.split().index)
    times = [int(slot.get("TIME_VALUE")) for slot in root.iter("TIME_SLOT")]
    assert times == sorted(times) == [0, 1000, 3000, 5000, 6000, 9000]
    assert read_timeline(path).video == str(Path("v.mp4").resolve())


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbfstart,end,label\r\n0,1.5,cut tomato\r\n1.5,3,pour milk\r\n",
        b"start;end;label\n0;1,5;cut tomato\n1,5;3;pour milk\n",
        b"label, start, end, note\n\npour milk, 1.5, 3.0, x\ncut tomato, 0, 1.5\n",
    ],
)
def test_hand_written_csv_is_read(write, text):
    read = read_timeline(write("a.csv", text), SALAD)
    assert named(read.timeline) == [(0, 1.5, "cut tomato", 1), (1.5, 3, "pour milk", 1)]
    assert read.now is None


def test_labels_come_in_order_of_appearance(write):
    read = read_timeline(write("a.csv", "start,end,label\n5,6,b\n0,1,a\n1,2,b\n"))
    assert read.timeline.labels.names == ("b", "a")


def test_vtt_of_another_tool_is_read(write):
    text = (
        "WEBVTT - a film\r\nKind: captions\r\n\r\nNOTE hello\r\n\r\n"
        "00:01.000 --> 00:02.500 line:0\r\n"
        "<v Ann>pour\r\nmilk</v>\r\n\r\nintro\r\n01:00:00.000 --> 01:00:01.000\r\na &amp; b\r\n"
    )
    read = read_timeline(write("a.vtt", text))
    assert named(read.timeline) == [(1, 2.5, "pour milk", 1), (3600, 3601, "a & b", 1)]


ELAN = """<?xml version="1.0" encoding="UTF-8"?>
<ANNOTATION_DOCUMENT AUTHOR="" DATE="2024-01-01T00:00:00+00:00" FORMAT="3.0" VERSION="3.0">
<HEADER MEDIA_FILE="" TIME_UNITS="milliseconds"/>
<TIME_ORDER><TIME_SLOT TIME_SLOT_ID="ts1" TIME_VALUE="100"/>
<TIME_SLOT TIME_SLOT_ID="ts2" TIME_VALUE="2000"/><TIME_SLOT TIME_SLOT_ID="ts3"/></TIME_ORDER>
<TIER LINGUISTIC_TYPE_REF="t" TIER_ID="hands"><ANNOTATION>
<ALIGNABLE_ANNOTATION ANNOTATION_ID="a1" TIME_SLOT_REF1="ts1" TIME_SLOT_REF2="ts2">
<ANNOTATION_VALUE>pour milk</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION></TIER>
<TIER LINGUISTIC_TYPE_REF="t" TIER_ID="empty"/>%s</ANNOTATION_DOCUMENT>
"""
CHILD = """<TIER LINGUISTIC_TYPE_REF="u" PARENT_REF="hands" TIER_ID="English"><ANNOTATION>
<REF_ANNOTATION ANNOTATION_ID="a2" ANNOTATION_REF="a1"><ANNOTATION_VALUE>to pour</ANNOTATION_VALUE>
</REF_ANNOTATION></ANNOTATION></TIER>"""


def test_eaf_of_elan_is_read(write):
    assert named(read_timeline(write("a.eaf", ELAN % "")).timeline) == [(0.1, 2, "pour milk", 1)]
    path = write("b.eaf", ELAN % CHILD)
    assert named(read_timeline(path, tier="English").timeline) == [(0.1, 2, "to pour", 1)]
    with pytest.raises(ValueError, match=r"got \['hands', 'English'\]; choose one with `tier`"):
        read_timeline(path)
    with pytest.raises(ValueError, match=r"tier must be one of .*'empty'.* got 'feet'"):
        read_timeline(path, tier="feet")


HEAD = "start,end,label,score,part\n"
JSON = '{"format": "actioncast-timeline", "version": 1, "segments": [%s]}'
DOCTYPE = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>'


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "", r"must end with \.csv, \.json, \.vtt, \.eaf, got .*a\.txt"),
        ("a.csv", "", r"a\.csv, line 1: the header must name start, end and label"),
        ("a.csv", "from,end,label\n", r"line 1: .* got 'from,end,label'; add start"),
        ("a.csv", HEAD + "0,1,pour mlk\n", r"line 2: unknown action 'pour mlk'; .* 'pour milk'"),
        ("a.csv", HEAD + '0,1,"cut\ntomato"\n', r"line 2: unknown action 'cut\\ntomato'"),
        ("a.csv", HEAD + '0,1,SIL\n\n2,1,"SIL"\n', r"line 4: a segment must end after it starts"),
        ("a.csv", HEAD + "0,x,SIL\n", r"line 2: end must be a number, got 'x'; write seconds as"),
        ("a.csv", HEAD + "0,inf,SIL\n", r"line 2: a segment must end"),
        ("a.csv", HEAD + "0,1\n", r"line 2: a row must have a label"),
        ("a.csv", HEAD + "0,1,a,b,1,past\n", r"line 2: a row must have 5 cells .* quote labels"),
        ("a.csv", HEAD + "0,1,SIL,83\n", r"line 2: a score must be from 0 to 1, got 83.*divide"),
        ("a.csv", HEAD + "0,1,SIL,1,now\n", r"line 2: part must be past or future, got 'now'"),
        ("a.csv", HEAD + "0,1,SIL,1,future\n1,2,SIL,1,past\n", r"line 3: a past segment must"),
        ("a.csv", HEAD + '0,1,"SIL\n', r"must be CSV, got"),
        ("a.csv", b"start,end,label\n0,1,caf\xe9\n", r"must be UTF-8 text, got byte 0xe9 at off"),
        ("a.json", '{"format":\n', r"a\.json, line 2: must be JSON"),
        ("a.json", "[]", r'must be an object with "format": "actioncast-timeline", got'),
        ("a.json", JSON.replace("1,", "2,") % "", r"version must be 1, got 2.0; update"),
        ("a.json", JSON % '{"start": "0"}', r'segments\[0\]: "start" must be a number, got \'0\''),
        ("a.json", JSON % '{"start": true}', r'segments\[0\]: "start" must be a number, got True'),
        ("a.json", JSON % '{"start": 0, "end": 1}', r'"label" must be text, got nothing'),
        ("a.json", JSON % '{"start": NaN, "end": 1, "label": "SIL"}', r"must end after it starts"),
        ("a.vtt", "1\n00:00.000 --> 00:01.000\nSIL\n", r"a\.vtt, line 1: must be WEBVTT, got '1'"),
        ("a.vtt", "WEBVTT\n\n00:00 --> 00:01\nSIL\n", r"line 3: a cue must have a line as"),
        ("a.vtt", "WEBVTT\n\nSIL\n", r"line 3: a cue must have a line as .* got 'SIL'"),
        ("a.vtt", "WEBVTT\n\n00:00.000 --> 00:01.000\n", r"line 3: a cue must name an action"),
        ("a.eaf", "<a>", r"a\.eaf, line 1: must be XML"),
        ("a.eaf", "<a/>", r"must hold ANNOTATION_DOCUMENT, got a"),
        ("a.eaf", DOCTYPE, r"must have no DOCTYPE"),
        (
            "a.eaf",
            (ELAN % "").replace('REF2="ts2"', 'REF2="ts3"'),
            r"annotation a1: must start and",
        ),
        ("a.eaf", (ELAN % "").replace("pour", "por"), r"annotation a1: unknown action 'por milk'"),
        ("a.eaf", (ELAN % "").replace('"2000"', '"2 s"'), r"annotation a1: must be a number"),
    ],
)
def test_bad_input_says_where_and_what_to_do(write, name, text, message):
    with pytest.raises(ValueError, match=message):
        read_timeline(write(name, text), SALAD)


def test_a_file_without_labels_asks_for_them(write):
    with pytest.raises(ValueError, match="give `labels`"):
        read_timeline(write("a.csv", HEAD))


def test_tier_is_for_eaf_alone(write):
    with pytest.raises(ValueError, match=r"only \.eaf files have tiers"):
        read_timeline(write("a.csv", HEAD), tier="hands")


@pytest.mark.parametrize(
    ("suffix", "segment", "message"),
    [
        (".vtt", (-1.0, 2.0, 0), "counts from the start of the video"),
        (".eaf", (-1.0, 2.0, 0), "counts from the start of the video"),
        (".json", (0.0, float("inf"), 0), "finite times"),
        (".csv", (0.0, 1.0, 0, 1.5), "score must be from 0 to 1"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(tmp_path, suffix, segment, message):
    path = tmp_path / f"a{suffix}"
    with pytest.raises(ValueError, match=message):
        write_timeline(timeline_of(segment), path)
    assert not path.exists()


def test_eaf_refuses_control_characters(tmp_path):
    with pytest.raises(ValueError, match=r"XML cannot hold the label 'a\\x00'"):
        write_timeline(Timeline((), LabelSpace(("a\0",))), tmp_path / "a.eaf")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("broken", ["os.fsync", "pathlib.Path.replace"])
def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch, suffix, broken):
    path = tmp_path / f"a{suffix}"
    write_timeline(FORECAST, path)
    old = path.read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(broken, fail)
    with pytest.raises(OSError, match="No space left"):
        write_timeline(timeline_of((0, 1, 0)), path)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def test_json_is_for_other_programs_too(tmp_path):
    path = tmp_path / "a.json"
    write_timeline(FORECAST, path, now=9.0)
    content = json.loads(path.read_text())
    assert (content["format"], content["version"]) == ("actioncast-timeline", 1)
    assert content["segments"][2] == {"start": 9, "end": 12.5, "label": "pour milk", "score": 0.83}
