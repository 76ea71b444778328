"""Pictures of timelines: what is drawn can be read back from pixels, SVG text and the page."""

import io
import json
import math
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from matplotlib import image
from rich.console import Console

from actioncast.plotting import (
    GREY,
    PALETTE,
    TimelineRow,
    colours,
    draw_timelines,
    lanes,
    print_timeline,
    timeline_text,
)
from actioncast.timeline import LabelSpace, Segment, Timeline

EVIL = "</script><img src=x onerror=alert(1)>&\"'"
SALAD = LabelSpace(("cut tomato", "pour milk", "stir", "SIL", EVIL, "@@{data}"))
TRUTH = Timeline.of([Segment(0, 4, 0), Segment(4, 8, 1), Segment(8, 10, 3)], SALAD)
FORECAST = Timeline.of([Segment(0, 5, 0), Segment(5, 8, 1, 0.8), Segment(8, 10, 2, 0.2)], SALAD)
ROWS = [
    TimelineRow(name="truth", timeline=TRUTH, now=math.inf),
    TimelineRow(name="FUTR", timeline=FORECAST),
]


def row_of(*segments, labels=SALAD, name="run", now=None):
    return TimelineRow(name=name, timeline=Timeline.of(segments, labels), now=now)


def rgb(colour):
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))


def pixels(path):
    return (image.imread(path)[..., :3] * 255).round().astype(int)


def share(picture, colour):
    """The share of pixels of about this colour."""
    return float((abs(picture - np.array(rgb(colour))).max(-1) <= 2).mean())


def svg_texts(path):
    root = ET.parse(path).getroot()
    return ["".join(node.itertext()).strip() for node in root.iter() if node.tag.endswith("}text")]


def data_of(path):
    script = re.search(
        r'<script type="application/json" id="data">(.*?)</script>', path.read_text()
    )
    return json.loads(script[1])


def dom(path):
    """The page as a browser leaves it, after its script has run."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs chromium: apt-get install chromium")
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command = [browser, "--headless", *quiet, "--window-size=1400,800", "--dump-dom", path.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def test_the_palette_has_48_colours_that_differ():
    channels = np.array([rgb(colour) for colour in (*PALETTE, GREY)])
    apart = abs(channels[:, None] - channels[None]).sum(-1) + 1000 * np.eye(len(channels))
    assert len(PALETTE) == 48
    assert apart.min() > 35


def test_colour_depends_on_the_label_and_background_is_grey():
    labels = LabelSpace(("a", "BG", "c", "idle"), frozenset({"idle"}))
    assert colours(labels) == (PALETTE[0], GREY, PALETTE[2], GREY)
    many = LabelSpace(tuple(map(str, range(60))))
    assert colours(many)[50] == PALETTE[2]


def test_png_has_the_colours_of_what_occurs_and_no_other(tmp_path):
    draw_timelines(ROWS, tmp_path / "a.png")
    picture = pixels(tmp_path / "a.png")
    for label in (0, 1):
        assert share(picture, PALETTE[label]) > 0.02
    assert share(picture, GREY) > 0.01
    assert share(picture, PALETTE[4]) == 0


def test_png_draws_the_less_probable_paler_but_visible(tmp_path):
    def ground(score):
        draw_timelines([row_of(Segment(0, 1, 0, score))], tmp_path / "a.png")
        picture = pixels(tmp_path / "a.png")
        # Left of the name, in the middle of the only row.
        return picture[: picture.shape[0] // 3, picture.shape[1] // 4].min(0).sum()

    assert ground(1.0) == sum(rgb(PALETTE[0]))
    assert ground(1.0) < ground(0.5) < ground(0.0) < 3 * 255 - 60


def test_png_hatches_the_future_alone(tmp_path):
    def shades(now):
        draw_timelines([row_of(Segment(0, 10, 0))], tmp_path / "a.png", now=now)
        picture = pixels(tmp_path / "a.png")
        height, width, _ = picture.shape
        strip = picture[: height // 3]
        inside = (abs(strip - np.array(rgb(PALETTE[0]))).max(-1) <= 2).sum(1).argmax()
        line = picture[inside]
        return [
            len(np.unique(line[a : a + width // 10], axis=0)) for a in (width // 5, 4 * width // 5)
        ]

    past, future = shades(5.0)
    assert past == 1
    assert future > 5
    assert shades(None) == [1, 1]


@pytest.mark.parametrize("suffix", [".png", ".svg", ".html"])
def test_the_same_input_gives_the_same_bytes(tmp_path, suffix):
    for name in "ab":
        draw_timelines(ROWS, tmp_path / f"{name}{suffix}", title="one", now=5.0)
    draw_timelines(ROWS, tmp_path / f"c{suffix}", title="one", now=6.0)
    a, b, c = ((tmp_path / f"{name}{suffix}").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_svg_text_is_text(tmp_path):
    draw_timelines(ROWS, tmp_path / "a.svg", title="breakfast", now=5.0)
    texts = svg_texts(tmp_path / "a.svg")
    for text in (
        "breakfast",
        "truth",
        "FUTR",
        "cut tomato",
        "pour milk",
        "stir",
        "now",
        "time (s)",
    ):
        assert text in texts
    assert EVIL not in texts
    draw_timelines(ROWS, tmp_path / "b.svg")
    assert "now" not in svg_texts(tmp_path / "b.svg")


def test_svg_shows_odd_names_as_they_are(tmp_path):
    rows = [row_of(Segment(0, 9, 4), name="$x_1$"), row_of(Segment(0, 9, 5), name="a\x00b\nc")]
    draw_timelines(rows, tmp_path / "a.svg", title="50 % of $y$ <b>")
    assert {EVIL, "@@{data}", "$x_1$", "a b c", "50 % of $y$ <b>"} <= set(
        svg_texts(tmp_path / "a.svg")
    )


def test_a_narrow_segment_bears_its_number_in_the_legend(tmp_path):
    row = row_of(Segment(0, 97, 0), Segment(97, 100, 1))
    draw_timelines([row], tmp_path / "a.svg")
    texts = svg_texts(tmp_path / "a.svg")
    assert (texts.count("1"), texts.count("pour milk")) == (2, 1)
    assert (texts.count("0"), texts.count("cut tomato")) == (2, 2)  # a tick and the legend's


def test_axis_speaks_minutes_beyond_two(tmp_path):
    draw_timelines([row_of(Segment(0, 1210, 0))], tmp_path / "a.svg")
    assert {"0:00", "20:00", "time (min:s)"} <= set(svg_texts(tmp_path / "a.svg"))
    draw_timelines([row_of(Segment(3590, 3700, 0))], tmp_path / "b.svg")
    assert {"1:00:00", "59:50"} <= set(svg_texts(tmp_path / "b.svg"))


@pytest.mark.parametrize("count", [1, 6])
@pytest.mark.parametrize("kind", ["svg", "html", "png"])
def test_long_names_stay_in_the_picture(tmp_path, count, kind):
    labels = LabelSpace(tuple(f"{'very ' * 30}long action {i}" for i in range(30)))
    rows = [
        row_of(*(Segment(i, i + 1, i) for i in range(30)), labels=labels, name="a run " * 40)
        for _ in range(count)
    ]
    draw_timelines(rows, tmp_path / f"a.{kind}", title="a title " * 60)
    if kind == "png":
        picture = pixels(tmp_path / "a.png")
        edges = [picture[:8], picture[-8:], picture[:, :8], picture[:, -8:]]
        assert all((edge == 255).all() for edge in edges)


def test_the_line_leaves_the_name_clear(tmp_path):
    rows = [row_of(Segment(0, 10, 0), now=math.inf), row_of(Segment(4, 10, 0), now=4.0)]
    draw_timelines(rows, tmp_path / "a.svg")
    svg = (tmp_path / "a.svg").read_text()
    above, below = re.findall(r'<text[^>]* x="([\d.]+)"[^>]*>cut tomato', svg)[:2]
    assert float(above) == pytest.approx(float(below), abs=0.5)


def test_overlapping_segments_get_lanes():
    row = row_of(Segment(0, 5, 0), Segment(1, 3, 1), Segment(3, 9, 2), Segment(5, 6, 0))
    assert lanes(row.timeline) == [0, 1, 1, 0]


def test_page_holds_the_rows_cut_at_now(tmp_path):
    draw_timelines([row_of(Segment(0, 9, 0, 0.5))], tmp_path / "a.html", now=4.0)
    (row,) = data_of(tmp_path / "a.html")["rows"]
    assert row["segments"] == [[0, 4, 0, 0.5, 0, 0], [4, 9, 0, 0.5, 0, 1]]
    assert row["now"] == 4


def test_page_is_self_contained(tmp_path):
    draw_timelines(ROWS, tmp_path / "a.html")
    page = tmp_path.joinpath("a.html").read_text().replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?://|@import|url\((?!#)|<link[^>]*href=\"(?!data:,)|src=\"", page)
    assert "@@" not in page


def test_names_cannot_break_out_of_the_page(tmp_path):
    rows = [row_of(Segment(0, 9, 4), Segment(9, 12, 5), name=EVIL)]
    path = tmp_path / "a.html"
    draw_timelines(rows, path, title=EVIL)
    page = path.read_text()
    assert "<img" not in page
    assert page.count("</script>") == 2
    data = data_of(path)
    assert data["rows"][0]["name"] == data["labels"]["4"]["name"] == EVIL
    assert data["labels"]["5"]["name"] == "@@{data}"
    shown = dom(path)
    assert "<img" not in shown
    assert 'data-row="0"' in shown


def test_page_shows_segments_in_a_browser(tmp_path):
    draw_timelines(ROWS, tmp_path / "a.html", title="breakfast", now=5.0)
    shown = dom(tmp_path / "a.html")
    rects = re.findall(r'<rect class="segment"[^>]*data-row[^>]*>', shown)
    assert len(rects) == 6
    assert 'aria-label="truth: cut tomato, 0.0\u20134.0 s, 100 %"' in shown
    assert 'aria-label="FUTR: stir, 8.0\u201310.0 s, 20 %, future"' in shown
    lefts = [float(re.search(r' x="([\d.]+)"', rect)[1]) for rect in rects[:3]]
    assert lefts == sorted(lefts)
    assert lefts[2] - lefts[0] == pytest.approx(2 * (lefts[1] - lefts[0]), abs=0.1)
    assert shown.count('fill="url(#hatch-') == 2
    assert re.search(r'<text class="nowname"[^>]*>now</text>', shown)
    assert re.search(r'<text class="name"[^>]*>pour milk</text>', shown)
    assert shown.count('aria-pressed="false"') == 4
    assert "<td>FUTR</td><td>8.00</td><td>10.00</td><td>stir</td><td>20 %</td>" in shown


def test_page_survives_twenty_rows_of_500_segments(tmp_path):
    segments = [Segment(i, i + 1, i % 3, 0.5) for i in range(500)]
    rows = [row_of(*segments, name=f"run {i}") for i in range(20)]
    draw_timelines(rows, tmp_path / "a.html", now=400.0)
    assert dom(tmp_path / "a.html").count("data-row=") == 10_000


@pytest.mark.parametrize("suffix", [".png", ".svg", ".html"])
def test_an_empty_timeline_is_drawn(tmp_path, suffix):
    draw_timelines([row_of()], tmp_path / f"a{suffix}")
    assert (tmp_path / f"a{suffix}").stat().st_size > 500


def test_bad_input_says_what_to_do(tmp_path):
    with pytest.raises(ValueError, match=r"must end with \.png, \.svg, \.html, got .*a\.gif"):
        draw_timelines(ROWS, tmp_path / "a.gif")
    with pytest.raises(ValueError, match="got no rows"):
        draw_timelines([], tmp_path / "a.png")
    other = row_of(Segment(0, 1, 0), labels=LabelSpace(("x",)), name="other")
    with pytest.raises(ValueError, match="'other' and 'truth' differ; read both with the same"):
        draw_timelines([ROWS[0], other], tmp_path / "a.png")


def test_user_settings_of_matplotlib_change_nothing(tmp_path):
    import matplotlib

    draw_timelines(ROWS, tmp_path / "a.svg")
    with matplotlib.rc_context({"font.size": 30, "text.usetex": True, "svg.fonttype": "path"}):
        draw_timelines(ROWS, tmp_path / "b.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_terminal_bar_is_past_now_future():
    lines = timeline_text(FORECAST, 5.0, 41).plain.split("\n")
    assert lines[0] == "a" * 20 + "│" + "b" * 12 + "c" * 8
    assert lines[1].split() == ["0.0", "now", "5.0", "10.0"]
    assert lines[2].split() == ["a", "0.0", "5.0", "cut", "tomato", "100", "%"]
    assert lines[3].startswith("── now ──")
    assert lines[5].split() == ["c", "8.0", "10.0", "stir", "20", "%"]
    assert {len(line) for line in lines} == {41}


def test_terminal_shows_gaps_and_no_escape_codes_of_names():
    labels = LabelSpace(("evil \x1b[31m name", "x" * 200))
    timeline = Timeline.of([Segment(0, 2, 0), Segment(8, 10, 1)], labels)
    text = timeline_text(timeline, width=40).plain
    assert text.startswith("a" * 8 + "·" * 24 + "b" * 8)
    assert "\x1b" not in text
    assert max(map(len, text.split("\n"))) == 40


def test_terminal_colours_only_in_a_terminal():
    plain = io.StringIO()
    print_timeline(FORECAST, 5.0, 60, Console(file=plain))
    assert plain.getvalue().startswith("aaaa")
    assert "\x1b" not in plain.getvalue()
    terminal = Console(file=io.StringIO(), force_terminal=True, color_system="truecolor", width=60)
    print_timeline(FORECAST, 5.0, console=terminal)
    red, green, blue = rgb(PALETTE[0])
    assert f"48;2;{red};{green};{blue}m" in terminal.file.getvalue()
