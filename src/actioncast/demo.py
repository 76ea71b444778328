"""The main job on an embedded data set: train, score, forecast one video, look at it."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import mean

import torch

from actioncast.data.synthetic import SyntheticConfig, anticipation_ceiling
from actioncast.passport import Result, write_result
from actioncast.plotting import TimelineRow, draw_timelines, print_timeline
from actioncast.progress import Reporter
from actioncast.protocols import LongTerm
from actioncast.recipes import recipe
from actioncast.runs import Loaded, load_run, train_run, trained_protocol
from actioncast.scoring import evaluate_run
from actioncast.seeing import Forecast, forecast_video
from actioncast.tables import result_table
from actioncast.training import Machine

MODELS = {
    "repeat-last-action": "repeat-last-action",
    "semi-markov": "semi-markov",
    "futr": "futr-demo",
}
"""What the demo trains: a name, and its recipe."""
OBSERVED = 0.3
"""Share of the video seen in the picture."""


def run_demo(out: Path) -> list[Path]:
    """Train FUTR and two baselines on synthetic videos, print scores and draw a forecast.

    Args:
        out: Where runs, results and pictures are written. Runs found there are used again.

    Returns:
        The pictures.
    """
    # Nets this small are slower on several threads, and sometimes many times slower.
    torch.set_num_threads(1)
    results: dict[str, Result] = {}
    forecasts: dict[str, Forecast] = {}
    for name, recipe_name in MODELS.items():
        config = replace(recipe(recipe_name), dataset="synthetic")
        folder = train_run(
            recipe_name,
            config,
            out / "runs" / name,
            splits=("1",),
            machine=Machine(accelerator="cpu"),
            resume=True,
        )
        (loaded,) = load_run(folder)
        result = evaluate_run([loaded], LongTerm(), progress=Reporter())
        results[f"{name} ({result.passport.input})"] = result
        write_result(result, out / "results" / f"{name}.json")
        video = loaded.dataset.select(loaded.dataset.split("1").test)[0]
        question = trained_protocol(loaded).question(video.num_frames, OBSERVED, video.rate)
        forecasts[name] = forecast_video(loaded, video, question, name)
    print("\nMean over classes (MoC) on the test videos, observed share/horizon share; higher is")
    print("better. The baselines read true labels, FUTR reads noisy features.\n")
    print(result_table(results).plain())
    print(_against_the_ceiling(results, loaded))
    best = forecasts["futr"]
    print(f"\nFUTR on {video.id}, {best.now:.1f} s seen:\n")
    print_timeline(best.timeline, best.now)
    rows = [TimelineRow(name="truth", timeline=video.timeline, now=float("inf"))]
    rows += [forecast.rows()[-1] for forecast in reversed(forecasts.values())]
    pictures = [out / f"timeline{suffix}" for suffix in (".png", ".svg", ".html")]
    for picture in pictures:
        draw_timelines(rows, picture, title=f"{video.id}: past | now | future", now=best.now)
    print("\n" + "\n".join(f"wrote {picture}" for picture in pictures))
    return pictures


def _against_the_ceiling(results: Mapping[str, Result], loaded: Loaded) -> str:
    """Frames named right, beside what nobody can beat: the grammar of the videos is known."""
    config, protocol, cell = SyntheticConfig(), LongTerm(), f"mof {OBSERVED:g}/0.5"
    videos = loaded.dataset.select(loaded.dataset.split("1").test)
    ceilings = [
        anticipation_ceiling(
            config, [(video, protocol.question(video.num_frames, OBSERVED, video.rate))]
        )
        for video in videos
    ]
    said = ", ".join(
        f"{name} {mean(row[cell] for row in result.videos.values()):.0f} %"
        for name, result in results.items()
    )
    return (
        f"\nFrames of the next half named right, {OBSERVED:.0%} seen: {said}.\n"
        f"The best possible forecaster expects {100 * mean(ceilings):.0f} %."
    )
