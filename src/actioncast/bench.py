"""Anticipation from true labels on real data: every model, split, cell and horizon source."""

import multiprocessing
import re
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, cast

import torch

from actioncast.data import find_dataset
from actioncast.files import replace_file
from actioncast.passport import Result, read_result, require_comparable, write_result
from actioncast.progress import Reporter
from actioncast.protocols import HorizonSource, LongTerm
from actioncast.published import CELLS, published
from actioncast.recipes import recipe
from actioncast.runs import ALL, evaluate_run, load_run, train_run
from actioncast.tables import Table, result_table, with_published
from actioncast.training import Machine, TrainConfig

LEARNED = {"futr": "futr-{dataset}-labels"}
"""Models that stand for a recipe of their own on each data set."""
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
        # A learned model is trained anew for each horizon source, so each is a job of its own.
        jobs += [replace(one, horizons=(h,)) for h in horizons] if model in LEARNED else [one]
    reporter, started = Reporter(every=0.0), time.monotonic()
    found: dict[str, Result] = {}
    # Spawned, not forked: a fork of a process that has used torch's threads can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max(1, min(workers, len(jobs))), mp_context=context) as pool:
        pending = [pool.submit(run_job, job) for job in jobs]
        try:
            for done, future in enumerate(as_completed(pending), 1):
                for name, result in future.result().items():
                    found[name] = result
                    write_result(result, out / f"{name}.json")
                reporter.say("bench", done, len(jobs), time.monotonic() - started)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    reporter.close()
    return dict(sorted(found.items()))


def run_job(job: Job) -> dict[str, Result]:
    """Train and score one model on one data set."""
    torch.set_num_threads(1)
    name = job.recipe()
    config = replace(recipe(name), dataset=job.dataset, seed=job.seed)
    folder = job.runs / f"{job.dataset}-{job.model}-seed{job.seed}"
    if job.model in LEARNED:
        (source,) = job.horizons
        config = for_horizon(config, source)
        folder = folder.with_name(f"{folder.name}-{source}")
    train_run(
        name,
        config,
        folder,
        data=job.data,
        splits=job.splits,
        machine=Machine(accelerator="cpu", quiet=True),
        resume=True,
    )
    loaded = [
        one for one in load_run(folder, job.data) if ALL in job.splits or one.split in job.splits
    ]
    return {
        f"{job.dataset}-{job.model}-{source}": evaluate_run(loaded, LongTerm(horizon_source=source))
        for source in job.horizons
    }


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
    """Put the tables of a folder of result files between the markers in a README.

    Raises:
        FileNotFoundError, ValueError: There are no result files, or the README has no markers.
    """
    files = sorted(results.glob("*.json"))
    if not files:
        raise FileNotFoundError(
            f"{results} holds no result file; make them with: actioncast bench labels."
        )
    found = {path.stem: read_result(path) for path in files}
    if not readme.is_file():
        raise FileNotFoundError(f"the README {readme} does not exist; say --readme PATH.")
    text = readme.read_text()
    begin, end = "<!-- bench labels -->", "<!-- end of bench labels -->"
    if begin not in text or end not in text:
        raise ValueError(f"{readme} must hold the lines {begin} and {end}, got one without.")
    tables_ = "\n\n".join(
        f"**{heading}**\n\n{table.markdown()}" for heading, table in _tables(found)
    )
    made = re.sub(
        f"{re.escape(begin)}.*{re.escape(end)}",
        lambda _: f"{begin}\n{tables_}\n{end}",
        text,
        flags=re.DOTALL,
    )
    replace_file(readme, made.encode())
    return f"wrote the tables of {len(found)} result files into {readme}"


def _tables(results: Mapping[str, Result]) -> list[tuple[str, Table]]:
    made: list[tuple[str, Table]] = []
    groups = sorted({(r.passport.dataset, r.passport.horizon_source) for r in results.values()})
    order = list(HorizonSource)
    for dataset, horizon in sorted(
        groups, key=lambda g: (g[0] != "breakfast", order.index(_source(g[1])))
    ):
        rows = {
            name.removeprefix(f"{dataset}-").removesuffix(f"-{_source(horizon)}"): result
            for name, result in results.items()
            if (result.passport.dataset, result.passport.horizon_source) == (dataset, horizon)
        }
        require_comparable(rows, ("selection",))
        ordered = dict(sorted(rows.items(), key=lambda item: item[1].total["mean"]))
        table = result_table(ordered, [*CELLS, "mean"])
        if _source(horizon) is HorizonSource.TRUE_LENGTH:
            table = with_published(table, list(ordered.values()), published(dataset), CELLS)
        made.append((f"{dataset}, {HEADINGS[_source(horizon)]}", table))
    return made


def _source(horizon: str) -> HorizonSource:
    return HorizonSource(horizon.split(maxsplit=1)[0])
