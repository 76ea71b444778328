"""Time the vectorised metrics against their literal definitions, on one core.

Both run in turn on the same videos, and the median of the ratios counts, so a machine that slows
down for a while slows both. Exit status 1 if a limit is missed or the values differ.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import numpy as np  # noqa: E402

import metrics_reference as reference  # noqa: E402
from actioncast import metrics  # noqa: E402

NUM_VIDEOS, NUM_LABELS, MEAN_FRAMES = 1712, 48, 2098
OBSERVED_RATIOS = (0.2, 0.3)
LIMITS = {"segmentation": 0.3, "long_term": 0.15}
LEAST_RATIO = 15.0


def real_videos(folder: Path) -> list[np.ndarray]:
    ids: dict[str, int] = {}
    return [
        np.array([ids.setdefault(name, len(ids)) for name in path.read_text().split()])
        for path in sorted(folder.glob("*.txt"))
    ]


def synthetic_videos(rng: np.random.Generator) -> list[np.ndarray]:
    """Videos of Breakfast's number and mean length, with about seven segments each."""
    videos = []
    for _ in range(NUM_VIDEOS):
        num_frames = max(int(rng.gamma(1.7, MEAN_FRAMES / 1.7)), 130)
        cuts = np.sort(rng.integers(1, num_frames, rng.integers(3, 10)))
        durations = np.diff(np.concatenate([[0], cuts, [num_frames]]))
        videos.append(np.repeat(rng.integers(0, NUM_LABELS, len(durations)), durations))
    return videos


def perturbed(labels: np.ndarray, num_labels: int, rng: np.random.Generator) -> np.ndarray:
    """Shift the labels a little and overwrite stretches: a prediction with about 20 segments."""
    answer = np.roll(labels, rng.integers(-60, 60))
    for _ in range(rng.integers(4, 12)):
        start = rng.integers(0, len(answer))
        answer[start : start + rng.integers(5, 120)] = rng.integers(0, num_labels)
    return answer


def compared(
    literal: Callable[[], Any], vectorised: Callable[[], Any], rounds: int
) -> tuple[dict[str, float], bool]:
    seconds, ratios = ([], []), []
    for _ in range(rounds):
        answers = []
        for function, times in zip((literal, vectorised), seconds, strict=True):
            start = time.perf_counter()
            answers.append(function())
            times.append(time.perf_counter() - start)
        ratios.append(seconds[0][-1] / seconds[1][-1])
    is_equal = bool(np.allclose(answers[0], answers[1], rtol=0, atol=1e-9))
    figures = {
        "literal_s": median(seconds[0]),
        "vectorised_s": median(seconds[1]),
        "ratio": median(ratios),
    }
    return figures, is_equal


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of data")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    rng = np.random.default_rng(0)
    folder = arguments.data / "breakfast" / "groundTruth"
    truth = real_videos(folder) if folder.is_dir() else synthetic_videos(rng)
    num_labels = 1 + max(int(labels.max()) for labels in truth)
    predicted = [perturbed(labels, num_labels, rng) for labels in truth]
    futures = {
        ratio: [p[int(ratio * len(p)) :][: len(p) // 2] for p in predicted]
        for ratio in OBSERVED_RATIOS
    }
    truth_lists = [labels.tolist() for labels in truth]
    predicted_lists = [labels.tolist() for labels in predicted]
    future_lists = {ratio: [f.tolist() for f in futures[ratio]] for ratio in futures}

    def literal_segmentation() -> list[float]:
        f1 = [reference.f1(predicted_lists, truth_lists, overlap) for overlap in metrics.OVERLAPS]
        mof = reference.mof(predicted_lists, truth_lists)
        return [mof, reference.edit(predicted_lists, truth_lists), *f1]

    def vectorised_segmentation() -> list[float]:
        scores = metrics.segmentation_scores(predicted, truth)
        return [scores.mof, scores.edit, *scores.f1]

    def literal_long_term() -> list[float]:
        return [
            reference.moc(
                *reference.moc_counts(future_lists[alpha], truth_lists, num_labels, alpha, beta)
            )
            for alpha in OBSERVED_RATIOS
            for beta in metrics.HORIZON_RATIOS
        ]

    def vectorised_long_term() -> list[float]:
        return [cell.moc for cell in metrics.long_term_scores(futures, truth, num_labels)]

    pairs = {
        "segmentation": (literal_segmentation, vectorised_segmentation),
        "long_term": (literal_long_term, vectorised_long_term),
    }
    report: dict[str, Any] = {
        "labels": "breakfast" if folder.is_dir() else "synthetic",
        "videos": len(truth),
        "frames": sum(map(len, truth)),
    }
    passed = True
    for name, (literal, vectorised) in pairs.items():
        figures, is_equal = compared(literal, vectorised, arguments.rounds)
        is_fast = figures["vectorised_s"] <= LIMITS[name] and figures["ratio"] >= LEAST_RATIO
        passed &= is_equal and is_fast
        report[name] = {
            **figures,
            "limit_s": LIMITS[name],
            "equal": is_equal,
            "passed": is_equal and is_fast,
            "values": vectorised(),
        }
    if arguments.json:
        print(json.dumps(report))
    else:
        print(
            f"{report['videos']} videos ({report['labels']}), {report['frames']} frames, one core"
        )
        for name in pairs:
            row = report[name]
            print(
                f"{name:14} literal {row['literal_s']:.3f} s   "
                f"vectorised {row['vectorised_s']:.4f} s (limit {row['limit_s']} s)   "
                f"{row['ratio']:.1f}x (least {LEAST_RATIO:.0f}x)   "
                f"{'equal' if row['equal'] else 'DIFFERENT'}   "
                f"{'passed' if row['passed'] else 'FAILED'}"
            )
            print("  values " + " ".join(f"{value:.4f}" for value in row["values"]))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
