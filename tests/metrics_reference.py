"""The metrics in their most literal form: one frame, one segment, one table cell at a time.

Written from the definitions alone, on lists: what the vectorised versions must equal and beat.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest


def golden_cases(*keys, is_required=True):
    """Parameters for every golden case that has all `keys`; `require` opens them."""
    default = Path(__file__).parents[2] / "shared" / "golden"
    root = Path(os.environ.get("ACTIONCAST_GOLDEN") or default)
    if not root.is_dir():
        is_failure = os.environ.get("CI") == "true"
        return [pytest.param((None, f"no golden folder {root}", is_failure), id="missing")]
    folder = root / "metrics"
    cases = []
    for path in sorted(folder.glob("*.json")):
        found = _having(set(keys), json.loads(path.read_text()))
        cases += [
            pytest.param((case, "", False), id=f"{path.stem}-{case.get('name', number)}")
            for number, case in enumerate(found)
        ]
    return cases or [pytest.param((None, f"{folder} has no {keys}", is_required), id="missing")]


def require(parameter):
    """Return the case, or skip where there are no goldens at all; in CI there must be some."""
    case, reason, is_failure = parameter
    if is_failure:
        pytest.fail(reason)
    if case is None:
        pytest.skip(reason)
    return case


def digits(text):
    return np.array([int(digit) for digit in text])


def number(value):
    """JSON null stands for NaN."""
    return np.nan if value is None else value


def _having(keys, node):
    if isinstance(node, dict):
        return [node] if keys <= set(node) else [c for v in node.values() for c in _having(keys, v)]
    if isinstance(node, list) and node and isinstance(node[0], dict):
        return [case for child in node for case in _having(keys, child)]
    return []


def segments_of(frames, background=(), legacy_last_segment=False):
    segments = []
    start = 0
    for t in range(1, len(frames) + 1):
        if t == len(frames) or frames[t] != frames[start]:
            end = t - 1 if legacy_last_segment and t == len(frames) else t
            if frames[start] not in background:
                segments.append((frames[start], start, end))
            start = t
    return segments


def mof(predicted, truth):
    correct = total = 0
    for labels, true_labels in zip(predicted, truth, strict=True):
        for label, true_label in zip(labels, true_labels, strict=True):
            total += 1
            if label == true_label:
                correct += 1
    return 100.0 * correct / total


def levenshtein(first, second):
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i in range(len(first) + 1):
        table[i][0] = i
    for j in range(len(second) + 1):
        table[0][j] = j
    for i in range(1, len(first) + 1):
        for j in range(1, len(second) + 1):
            substituted = table[i - 1][j - 1] + (first[i - 1] != second[j - 1])
            table[i][j] = min(table[i - 1][j] + 1, table[i][j - 1] + 1, substituted)
    return table[-1][-1]


def alignment_with_swaps(first, second):
    """Optimal string alignment: Levenshtein plus swaps of neighbours, no part edited twice."""
    table = [[i + j for j in range(len(second) + 1)] for i in range(len(first) + 1)]
    for i in range(1, len(first) + 1):
        for j in range(1, len(second) + 1):
            substituted = table[i - 1][j - 1] + (first[i - 1] != second[j - 1])
            table[i][j] = min(table[i - 1][j] + 1, table[i][j - 1] + 1, substituted)
            swappable = i > 1 and j > 1
            if swappable and first[i - 1] == second[j - 2] and first[i - 2] == second[j - 1]:
                table[i][j] = min(table[i][j], table[i - 2][j - 2] + 1)
    return table[-1][-1]


def edit_score(predicted, truth, background=()):
    first = [label for label, _, _ in segments_of(predicted, background)]
    second = [label for label, _, _ in segments_of(truth, background)]
    if not first and not second:
        return 100.0
    return 100.0 * (1.0 - levenshtein(first, second) / max(len(first), len(second)))


def edit(predicted, truth, background=()):
    scores = [edit_score(p, t, background) for p, t in zip(predicted, truth, strict=True)]
    return sum(scores) / len(scores)


def f1_counts(predicted, truth, overlap, background=(), legacy_last_segment=False):
    guesses = segments_of(predicted, background, legacy_last_segment)
    targets = segments_of(truth, background, legacy_last_segment)
    is_hit = [False] * len(targets)
    tp = fp = 0
    for label, start, end in guesses:
        best, best_iou = -1, 0.0
        for index, (true_label, true_start, true_end) in enumerate(targets):
            shared = min(end, true_end) - max(start, true_start)
            spanned = max(end, true_end) - min(start, true_start)
            if label == true_label and spanned and shared / spanned > best_iou:
                best, best_iou = index, shared / spanned
        if best >= 0 and best_iou >= overlap and not is_hit[best]:
            is_hit[best] = True
            tp += 1
        else:
            fp += 1
    return tp, fp, len(targets) - tp


def f1(predicted, truth, overlap, background=(), legacy_last_segment=False):
    tp = fp = fn = 0
    for labels, true_labels in zip(predicted, truth, strict=True):
        counts = f1_counts(labels, true_labels, overlap, background, legacy_last_segment)
        tp, fp, fn = tp + counts[0], fp + counts[1], fn + counts[2]
    return 100.0 if tp + fp + fn == 0 else 200.0 * tp / (2 * tp + fp + fn)


def moc_counts(predicted, truth, num_labels, observed_ratio, horizon_ratio, *, missing="wrong"):
    """`predicted[v][0]` is the label of frame int(observed_ratio * T) of video v."""
    correct, total = [0] * num_labels, [0] * num_labels
    for labels, true_labels in zip(predicted, truth, strict=True):
        start = int(observed_ratio * len(true_labels))
        end = int((observed_ratio + horizon_ratio) * len(true_labels))
        for t in range(start, min(end, len(true_labels))):
            if t - start >= len(labels) and missing == "skip":
                continue
            total[true_labels[t]] += 1
            if t - start < len(labels) and labels[t - start] == true_labels[t]:
                correct[true_labels[t]] += 1
    return correct, total


def moc(correct, total):
    shares = [c / t for c, t in zip(correct, total, strict=True) if t > 0]
    return 100.0 * sum(shares) / len(shares) if shares else float("nan")


def top_ids(scores, k, ties="lowest"):
    sign = 1 if ties == "lowest" else -1
    return sorted(range(len(scores)), key=lambda label: (-scores[label], sign * label))[:k]


def class_mean_recall(scores, labels, k, ties="lowest"):
    hits = {}
    for row, label in zip(scores, labels, strict=True):
        hits.setdefault(label, []).append(label in top_ids(row, k, ties))
    shares = [sum(found) / len(found) for found in hits.values()]
    return 100.0 * sum(shares) / len(shares)


def average_precision(scores, positives, calibrated=False):
    """Area under the steps of precision over recall, one step for each distinct score."""
    num_positive = sum(positives)
    num_negative = len(positives) - num_positive
    area = recall = 0.0
    for threshold in sorted(set(scores), reverse=True):
        chosen = [bool(y) for s, y in zip(scores, positives, strict=True) if s >= threshold]
        tp = sum(chosen)
        fp = len(chosen) - tp
        if calibrated and fp:
            fp = fp * num_positive / num_negative
        precision = tp / (tp + fp) if tp else 0.0
        area += (tp / num_positive - recall) * precision
        recall = tp / num_positive
    return area
