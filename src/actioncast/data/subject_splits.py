"""Splits by who acts: no person, and nothing that was filmed, on both sides.

Videos that share a group or a recording stay together. Such sets are dealt one after another, the
largest first, each to the part that then misses its share of videos least, over all and within
every stratum (an activity, say). Chance says only which of equals comes first.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from actioncast.data.base import Split, Video


def subject_splits(
    videos: Iterable[Video],
    folds: int = 5,
    seed: int = 0,
    group: Callable[[Video], str] | None = None,
    stratum: Callable[[Video], str] | None = None,
) -> dict[str, Split]:
    """Splits `1` to `folds`; every video tests in exactly one of them.

    Args:
        videos: Of a data set.
        folds: Number of splits.
        seed: Which of several equal ways.
        group: Who acts in a video; what it says itself, if absent.
        stratum: What should be as common in every fold, such as an activity; nothing, if absent.

    Raises:
        ValueError: There are fewer people than folds.
    """
    if folds < 2:
        raise ValueError(f"folds must be at least 2, got {folds}.")
    videos = list(videos)
    tests = subject_parts(videos, (1.0,) * folds, seed, group, stratum)
    return {
        str(k): Split(tuple(v.id for v in videos if v.id not in set(test)), test)
        for k, test in enumerate(tests, 1)
    }


def subject_parts(
    videos: Iterable[Video],
    shares: Sequence[float],
    seed: int = 0,
    group: Callable[[Video], str] | None = None,
    stratum: Callable[[Video], str] | None = None,
) -> list[tuple[str, ...]]:
    """Cut videos into parts, such as 0.7, 0.2 and 0.1 to train, to validate and to test.

    Args:
        videos: Of a data set.
        shares: How large each part should be, in proportion to one another.
        seed: Which of several equal ways.
        group: Who acts in a video; what it says itself, if absent.
        stratum: What should be as common in every part; nothing, if absent.

    Returns:
        The names of each part in the order of the videos; none is empty.

    Raises:
        ValueError: A share is not positive, or there are fewer people than parts.
    """
    if not shares or not all(0 < share < float("inf") for share in shares):
        raise ValueError(f"shares must be positive numbers, got {tuple(shares)}.")
    videos = list(videos)
    dealt = _sets(videos, group)
    if len(dealt) < len(shares):
        raise ValueError(
            f"there must be a person for each of {len(shares)} parts, got {len(dealt)} "
            f"({', '.join(sorted(dealt)[:5])}); ask for fewer parts, or say who acts."
        )
    strata = sorted({stratum(video) for video in videos}) if stratum else []
    # One column counts all videos, the others those of a stratum.
    counts = np.zeros((len(dealt), 1 + len(strata)))
    for i, own in enumerate(dealt.values()):
        for video in own:
            counts[i, 0] += 1
            if stratum:
                counts[i, 1 + strata.index(stratum(video))] += 1
    share = np.array(shares) / sum(shares)
    wanted = share[:, None] * counts.sum(0)
    had = np.zeros_like(wanted)
    part_of: dict[str, int] = {}
    shuffled = np.random.default_rng(seed).permutation(len(dealt))
    order = sorted(shuffled.tolist(), key=lambda i: -counts[i, 0])
    for left, i in zip(range(len(order), 0, -1), order, strict=True):
        # A set more in a part changes the squared misses, relative to what is wanted, by this.
        cost = ((2 * (had - wanted) + counts[i]) * counts[i] / wanted).sum(1)
        if left <= int((had[:, 0] == 0).sum()):
            cost = np.where(had[:, 0] == 0, cost, np.inf)
        best = int(np.argmin(cost))
        had[best] += counts[i]
        part_of.update({video.id: best for video in list(dealt.values())[i]})
    return [tuple(v.id for v in videos if part_of[v.id] == k) for k in range(len(share))]


def write_splits(splits: Mapping[str, Split], folder: Path) -> None:
    """Write the bundles of a data set folder, `splits/train.split1.bundle` and so on.

    Raises:
        ValueError: Its `splits/` holds some already.
    """
    where = folder / "splits"
    where.mkdir(parents=True, exist_ok=True)
    if found := sorted(path.name for path in where.glob("*.bundle")):
        raise ValueError(f"{where} must hold no bundle, got {found[0]}; take it away first.")
    for name, split in splits.items():
        for part, ids in (("train", split.train), ("test", split.test)):
            lines = "".join(f"{video}.txt\n" for video in ids)
            (where / f"{part}.split{name}.bundle").write_text(lines, encoding="utf-8")


def _sets(videos: Sequence[Video], group: Callable[[Video], str] | None) -> dict[str, list[Video]]:
    """The videos that must stay together, by the name of their first group."""
    leader: dict[str, str] = {}

    def led(key: str) -> str:
        while leader.setdefault(key, key) != key:
            key = leader[key]
        return key

    groups = [(group(v) if group else v.group) or f"video {v.id}" for v in videos]
    for video, own in zip(videos, groups, strict=True):
        # Nobody is called so.
        first, second = sorted((led(own), led(f"\0{video.recording or video.id}")), reverse=True)
        leader[second] = first
    found: defaultdict[str, list[Video]] = defaultdict(list)
    for video, own in zip(videos, groups, strict=True):
        found[led(own)].append(video)
    return dict(found)
