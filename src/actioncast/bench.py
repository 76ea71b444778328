"""Anticipation from true labels on real data: every model, split, cell and horizon source."""

import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any, TypeVar, cast

import torch

from actioncast.clip_bench import clip_result_tables, is_of_clips
from actioncast.data import LabelInput, find_dataset, open_dataset
from actioncast.files import replace_file
from actioncast.passport import Result, read_result, require_comparable, write_result
from actioncast.progress import Reporter
from actioncast.protocols import HorizonSource, LongTerm
from actioncast.published import CELLS, published
from actioncast.recipes import recipe
from actioncast.runs import ALL, load_run, train_run
from actioncast.scoring import evaluate_run
from actioncast.tables import Table, result_table, with_published
from actioncast.timeline import FINE
from actioncast.training import Machine, TrainConfig

DoneT = TypeVar("DoneT")
LEARNED = {"futr": "futr-{dataset}-labels"}
"""Models that stand for a recipe of their own on each data set."""
BENCHED = ("breakfast", "50salads")
"""Data sets of the benchmark from labels, in the order of its tables."""
TRUE_LABELS = str(LabelInput())
INPUTS = ("input", "features_causal")
HEADINGS = {
    HorizonSource.TRUE_LENGTH: "horizon from the true length of the video (what everybody "
    "publishes; it leaks that length)",
    HorizonSource.OBSERVED_MULTIPLE: "horizon four times what was observed (no leak)",
    HorizonSource.SECONDS: "horizon of 300 seconds (no leak)",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One model on one data set, under some horizon sources."""

    model: str
    dataset: str
    horizons: tuple[HorizonSource, ...]
    data: Path | None
    splits: tuple[str, ...]
    seed: int
    runs: Path
    trained_on: HorizonSource = HorizonSource.TRUE_LENGTH
    """Whose questions a learned model is trained on."""

    @property
    def folder(self) -> Path:
        """Of the trained model."""
        name = f"{self.dataset}-{self.model}-seed{self.seed}"
        if self.trained_on is not HorizonSource.TRUE_LENGTH:
            name += f"-{self.trained_on}"
        return self.runs / name

    def recipe(self) -> str:
        """The name of the recipe."""
        return LEARNED.get(self.model, self.model).format(dataset=self.dataset)


def bench_labels(
    *,
    data: Path | None,
    datasets: Sequence[str],
    models: Sequence[str],
    horizons: Sequence[HorizonSource],
    splits: Sequence[str] = (ALL,),
    seed: int = 0,
    out: Path,
    runs: Path,
    workers: int = 2,
    retrain: bool = False,
) -> dict[str, Result]:
    """Train and score models from true labels, and write one result file each.

    Args:
        data: Folder that holds the data sets.
        datasets: Their names.
        models: Recipes, or `futr`.
        horizons: Horizon sources.
        splits: Splits, or `all`.
        seed: Of every model.
        out: Where result files go, `<dataset>-<model>-<horizon source>.json`.
        runs: Where trained models go; a run found there is used again.
        workers: Processes.
        retrain: Train learned models anew for each horizon source. Otherwise they are trained on
            `true_length` and only the horizon is swapped, as published for FUTR (ActFusion,
            Table 6).

    Raises:
        ValueError, FileNotFoundError: A model or data set does not exist.
    """
    for dataset in datasets:
        if dataset != "synthetic":
            find_dataset(dataset, data)
    jobs: list[Job] = []
    for dataset, model in product(datasets, models):
        one = Job(
            model=model,
            dataset=dataset,
            horizons=tuple(horizons),
            data=data,
            splits=tuple(splits),
            seed=seed,
            runs=runs,
        )
        recipe(one.recipe())
        if model in LEARNED and retrain:
            jobs += [replace(one, horizons=(source,), trained_on=source) for source in horizons]
        else:
            jobs.append(one)
    # Learned models take long, so each of their splits is a training of its own.
    trainings = [
        replace(job, splits=(split,))
        for job in jobs
        if job.model in LEARNED
        for split in (open_dataset(job.dataset, data).splits if ALL in splits else splits)
    ]
    found: dict[str, Result] = {}
    # Spawned, not forked: a fork of a process that has used torch's threads can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max(1, workers), mp_context=context) as pool:
        try:
            for _ in _done(pool, train_job, trainings, "train"):
                pass
            for results in _done(pool, score_job, jobs, "bench"):
                for name, result in results.items():
                    found[name] = result
                    write_result(replace(result, videos={}), out / f"{name}.json")
        except BrokenProcessPool:
            raise ChildProcessError(
                "a worker was killed, perhaps for lack of memory: try --workers 1"
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return dict(sorted(found.items()))


def _done(
    pool: ProcessPoolExecutor, function: Callable[[Job], DoneT], jobs: Sequence[Job], what: str
) -> Iterator[DoneT]:
    """What jobs give, as they end; says how long the rest will take."""
    reporter, started = Reporter(every=0.0), time.monotonic()
    pending = [pool.submit(function, job) for job in jobs]
    for done, future in enumerate(as_completed(pending), 1):
        yield future.result()
        reporter.say(what, done, len(jobs), time.monotonic() - started)
    reporter.close()


def train_job(job: Job) -> Path:
    """Train one model on splits of one data set; what is trained already stays."""
    torch.set_num_threads(1)
    config = replace(recipe(job.recipe()), dataset=job.dataset, seed=job.seed)
    return train_run(
        job.recipe(),
        for_horizon(config, job.trained_on),
        job.folder,
        data=job.data,
        splits=job.splits,
        machine=Machine(accelerator="cpu", quiet=True),
        resume=True,
    )


def score_job(job: Job) -> dict[str, Result]:
    """Score one model on one data set, trained first if it is not."""
    train_job(job)
    loaded = [
        one
        for one in load_run(job.folder, job.data)
        if ALL in job.splits or one.split in job.splits
    ]
    results: dict[str, Result] = {}
    for source in job.horizons:
        swapped = job.model in LEARNED and source is not job.trained_on
        note = f"trained on {job.trained_on} questions, only the horizon is swapped"
        results[f"{job.dataset}-{job.model}-{source}"] = evaluate_run(
            loaded, LongTerm(horizon_source=source), note=note if swapped else ""
        )
    return results


def for_horizon(config: TrainConfig, source: HorizonSource) -> TrainConfig:
    """The recipe trained on the questions of another horizon source.

    A horizon that does not know the length reaches beyond the end of the video, so the end of the
    future takes time there.
    """
    model = config.model
    if source is not HorizonSource.TRUE_LENGTH and hasattr(model, "end_takes_time"):
        model = replace(cast(Any, model), end_takes_time=True)
    return replace(config, model=model, horizon_source=source)


def tables(results: Mapping[str, Result]) -> str:
    """One table a data set and horizon source, published rows beside ours, for a terminal."""
    return "\n\n".join(f"{heading}\n{table.plain()}" for heading, table in _tables(results))


def write_readme(results: Path, readme: Path) -> str:
    """Make the tables of a README anew from result files.

    Each folder of result files fills the lines between its markers, `<!-- NAME -->` and
    `<!-- end of NAME -->`.

    Args:
        results: Folder whose folders hold result files, for example `results`.
        readme: The file with the markers.

    Raises:
        FileNotFoundError, ValueError: There are no result files, or the README has no markers.
    """
    if not readme.is_file():
        raise FileNotFoundError(f"the README {readme} does not exist; say --readme PATH.")
    text, written = readme.read_text(), 0
    folders = sorted({path.parent for path in results.glob("*/*.json")})
    if not folders:
        raise FileNotFoundError(
            f"{results} holds no folder of result files; make one with: actioncast bench labels."
        )
    for folder in folders:
        begin, end = f"<!-- {folder.name} -->", f"<!-- end of {folder.name} -->"
        if begin not in text or end not in text:
            raise ValueError(f"{readme} must hold the lines {begin} and {end}, got one without.")
        found = {path.stem: read_result(path) for path in sorted(folder.glob("*.json"))}
        written += len(found)
        made = "\n\n".join(
            f"**{heading}**\n\n{table.markdown()}" for heading, table in _tables(found)
        )
        before, rest = text.split(begin, 1)
        after = rest.split(end, 1)[1]
        text = f"{before}{begin}\n{made}\n{end}{after}"
    replace_file(readme, text.encode())
    return f"wrote the tables of {written} result files into {readme}"


def _tables(results: Mapping[str, Result]) -> list[tuple[str, Table]]:
    """A table for each data set, level of labels, task and horizon source, in that order."""
    clips = [result for result in results.values() if is_of_clips(result)]
    if clips:
        return clip_result_tables(clips)
    groups: dict[tuple[str, str, str, str], dict[str, Result]] = {}
    for result in results.values():
        said = result.passport
        key = (said.dataset, said.label_level, said.task, said.horizon_source)
        rows = groups.setdefault(key, {})
        rows[_row_name(result, rows)] = result
    return [
        (_heading(*key), _table(key[0], *key[2:], groups[key]))
        for key in sorted(groups, key=_place_in_order)
    ]


def _row_name(result: Result, taken: Mapping[str, Result]) -> str:
    said = result.passport
    # In the benchmark everybody reads the same input; elsewhere the row says what it read.
    name = ", ".join((said.recipe, *said.changed))
    if said.dataset not in BENCHED:
        name += f" ({said.input})"
    # Of the benchmark a line above the table says what a note would.
    if said.note and said.input != TRUE_LABELS:
        name += f", {said.note}"
    if name in taken:
        name += f", seed {', '.join(map(str, said.seeds))}"
    return name


def _over_seeds(rows: Mapping[str, Result]) -> dict[str, tuple[Result, Result | None]]:
    """The same rows; those that differ in their seed alone make one.

    That one holds their means, and besides the deviations between them.
    """
    alike: dict[tuple[str, ...], list[tuple[str, Result]]] = {}
    for name, result in rows.items():
        said = result.passport
        who = (said.recipe, *said.changed, said.input, said.inference, said.note)
        alike.setdefault(who, []).append((name, result))
    found: dict[str, tuple[Result, Result | None]] = {}
    for runs in alike.values():
        name, first = runs[0]
        if len(runs) == 1:
            found[name] = first, None
            continue
        totals = [result.total for _, result in runs]
        means, deviations = (
            replace(first, total={cell: measure([t[cell] for t in totals]) for cell in totals[0]})
            for measure in (mean, stdev)
        )
        found[f"{name}, mean of {len(runs)} seeds"] = means, deviations
    return found


def _table(dataset: str, task: str, horizon: str, rows: Mapping[str, Result]) -> Table:
    benched = dataset in BENCHED
    require_comparable(rows, ("selection",) if benched else ("selection", *INPUTS))
    seeds = _over_seeds(rows)
    ordered: dict[str, Result] = {}
    for name, (result, deviations) in sorted(seeds.items(), key=lambda i: i[1][0].total["mean"]):
        ordered[name] = result
        if deviations is not None:
            ordered[f"{name}: deviation"] = deviations
    if task == "online":
        return result_table(ordered, _online_columns(next(iter(ordered.values()))))
    if task != "long_term":
        return result_table(ordered)
    first = next(iter(ordered.values()))
    if set(CELLS) - set(first.total) or len(first.total) > len(CELLS) + 1:
        return result_table(ordered, [*_longest(first), "mean"])
    table = result_table(ordered, [*CELLS, "mean"])
    read = {result.passport.input for result in rows.values()}
    if benched and read == {TRUE_LABELS} and _source(horizon) is HorizonSource.TRUE_LENGTH:
        return with_published(table, list(ordered.values()), published(dataset), CELLS)
    return table


def _longest(result: Result) -> list[str]:
    """The longest window of every observed share: of many shares all cells are too many."""
    said = result.passport
    beta = max(said.horizon_ratios)
    return [f"moc {alpha:g}/{beta:g}" for alpha in said.observed_ratios]


def _online_columns(result: Result) -> list[str]:
    """Detection, every moment ahead, and what a deployment feels."""
    names = list(result.total)
    moments = [name for name in names if name.startswith("mAP ") and name.endswith("s")]
    felt = [name for name in names if name.split()[0] in ("onset", "false")]
    first = [name for name in ("mAP", "cAP", "mof") if name in names]
    return [*first, *moments, *(n for n in ("mAP ahead",) if n in names), *felt[:2], "mean"]


def _heading(dataset: str, level: str, task: str, horizon: str) -> str:
    if level != FINE:
        dataset = f"{dataset}, {level} labels"
    if task == "online":
        return f"{dataset}, online detection and anticipation at every step"
    said = HEADINGS[_source(horizon)] if horizon else "frame accuracy, edit, F1 and their mean"
    return f"{dataset}, {said}"


def _place_in_order(key: tuple[str, str, str, str]) -> tuple[int, str, bool, str, int]:
    dataset, level, task, horizon = key
    order = list(HorizonSource)
    known = BENCHED.index(dataset) if dataset in BENCHED else len(BENCHED)
    return (
        known,
        dataset,
        task == "long_term",
        level,
        order.index(_source(horizon)) if horizon else 0,
    )


def _source(horizon: str) -> HorizonSource:
    return HorizonSource(horizon.split(maxsplit=1)[0])
