"""Time and weigh ActFusion against its literal form, on two cores.

Both run in turn on the same video with the same weights and the same noise, and the median of the
ratios counts, so a machine that slows down for a while slows both. Memory is what a run adds at its
peak to the model and the inputs, each form in a process of its own. Exit status 1 if a limit is
missed or the values differ.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

os.environ["OMP_NUM_THREADS"] = "2"
os.environ["OMP_PROC_BIND"] = "true"
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "models"))

import torch
from diffusion_reference import ReferenceDiffusion, mean_of_offsets
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from actioncast.models.diffusion_official import MODULES, diffusion_from_official
from actioncast.timeline import Taxonomy
from actioncast.types import Observation

MOST_DIFFERENT = 1e-5
FEATURE_DIM = 2048
COMPARED_GRADIENTS = ("encoder.conv_in", "encoder.conv_out", "decoder.conv_in", "decoder.conv_out")
SALADS: dict[str, Any] = {
    "num_labels": 19,
    "encoder_layers": 10,
    "encoder_dim": 64,
    "encoder_kernel": 5,
    "decoder_layers": 8,
    "decoder_dim": 24,
    "decoder_kernel": 7,
    "step_dim": 512,
    "condition_layers": (5, 7, 9),
    "dropouts": (0.5, 0.5, 0.5, 0.1),
    "scale": 1.0,
}
BREAKFAST: dict[str, Any] = {
    **SALADS,
    "num_labels": 48,
    "encoder_layers": 12,
    "encoder_dim": 256,
    "decoder_dim": 128,
    "decoder_kernel": 5,
    "condition_layers": (7, 8, 9),
    "dropouts": (0.5, 0.1, 0.1, 0.1),
    "scale": 0.5,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is run, and by how much the package must be faster and may be heavier."""

    sizes: dict[str, Any]
    """Of the network."""
    frames: int
    """Of the video."""
    stride: int = 1
    """Frames a step; a video is read once from every offset of it."""
    observed: int | None = None
    """Frames that are seen, the others are anticipated; absent, all."""
    is_training: bool = False
    """Whether a training step is run instead of inference."""
    least_ratio: float
    """Literal time by the package's, at least."""
    goal: float
    """The same, as hoped for."""
    most_memory: float | None = None
    """The package's memory by the literal form's, at most; absent, it is not weighed."""


CASES = {
    "salads tas": Case(
        sizes=SALADS, frames=11_552, stride=8, least_ratio=5, goal=8, most_memory=1.5
    ),
    "salads lta .2": Case(
        sizes=SALADS, frames=11_552, stride=8, observed=2310, least_ratio=4, goal=6
    ),
    "breakfast tas": Case(sizes=BREAKFAST, frames=2099, least_ratio=3, goal=4.5),
    "salads training": Case(
        sizes=SALADS, frames=1444, is_training=True, least_ratio=1.5, goal=2, most_memory=1.0
    ),
}
WARM_UP = {"frames": 64, "observed": None}
"""Of a case that loads the libraries before memory is measured."""


@dataclass(frozen=True, slots=True)
class Form:
    """One of the two ways to compute the same."""

    run: Callable[[], Any]
    """What is timed: a whole video, or a training step with dropout."""
    values: Callable[[], dict[str, Tensor]]
    """What must be equal: probabilities, or loss and gradients without dropout."""


def package(case: Case) -> Form:
    """The package's model, reading all offsets as one batch."""
    config, weights = diffusion_from_official(
        "actfusion",
        literal_model(case).state_dict(),
        case.sizes["condition_layers"],
        case.sizes["scale"],
    )
    model = replace(config, class_weights=case.is_training).build(
        Taxonomy.of(map(str, range(case.sizes["num_labels"])))
    )
    model.load_state_dict(weights)
    model.eval()
    if case.is_training:
        drawn = training_draws(case)
        with torch.no_grad():
            model.label_weights.copy_(drawn["class_weights"])
        features = drawn["features"].mT.contiguous()

        def total() -> Tensor:
            terms = model.video_losses(
                features,
                drawn["labels"][None],
                drawn["boundary"][:, 0],
                drawn["mask"][:, 0] > 0,
                drawn["t"],
                drawn["noise"],
            )
            return torch.stack(list(terms.values())).sum()

        return training_form(model, total, {name: MODULES[name] for name in COMPARED_GRADIENTS})

    offsets = [one[0].mT for one in offset_features(case)]
    lengths = torch.tensor([len(one) for one in offsets])
    observed = case.observed or case.frames
    x = Observation(
        features=pad_sequence(offsets, batch_first=True),
        valid=torch.arange(int(lengths.max())) < lengths[:, None],
        rate=30.0,
        horizon=torch.full((case.stride,), case.frames - observed),
        stride=case.stride,
        first=torch.arange(case.stride),
        observed=torch.full((case.stride,), observed),
        video_length=torch.full((case.stride,), case.frames),
    )
    del offsets

    def probabilities() -> Tensor:
        answers = []
        for first, answer in enumerate(model.predict(x)):
            steps = answer.past
            assert steps is not None
            if answer.future is not None:
                unseen = range(first + case.stride * len(steps), case.frames, case.stride)
                steps = torch.cat([steps, answer.future[[frame - observed for frame in unseen]]])
            answers.append(steps.mT[None])
        return mean_of_offsets(answers)

    return Form(probabilities, lambda: {"probabilities": probabilities()})


def literal(case: Case) -> Form:
    """The literal form, one offset after another."""
    model = literal_model(case)
    if case.is_training:
        drawn = training_draws(case)
        names = {name: name for name in COMPARED_GRADIENTS}
        return training_form(model, lambda: model.training_loss(**drawn)["total"], names)
    offsets = offset_features(case)
    num_steps = -(-case.frames // case.stride)

    def probabilities() -> Tensor:
        return mean_of_offsets(
            model.sample(features, None if case.observed is None else num_steps)
            for features in offsets
        )

    return Form(probabilities, lambda: {"probabilities": probabilities()})


FORMS = {"package": package, "literal": literal}


def literal_model(case: Case) -> ReferenceDiffusion:
    torch.manual_seed(0)
    model = ReferenceDiffusion(**case.sizes, feature_dim=FEATURE_DIM, bias=True, mask_token=True)
    return model.eval()


def offset_features(case: Case) -> list[Tensor]:
    """What is seen of the video, [1, feature, step], from every offset."""
    torch.manual_seed(1)
    seen = torch.randn(FEATURE_DIM, case.observed or case.frames)
    return [seen[None, :, offset :: case.stride].contiguous() for offset in range(case.stride)]


def training_draws(case: Case) -> dict[str, Tensor]:
    """One video of twelve actions with its mask, step and noise."""
    torch.manual_seed(1)
    time, num_labels = case.frames, case.sizes["num_labels"]
    labels = torch.arange(time) * 12 // time % num_labels
    boundary = torch.zeros(1, 1, time)
    boundary[0, 0, 1:] = (labels[1:] != labels[:-1]).float()
    return {
        "features": torch.randn(1, FEATURE_DIM, time),
        "labels": labels,
        "mask": (torch.arange(time) < time // 2)[None, None].float(),
        "t": torch.tensor([333]),
        "noise": torch.randn(1, num_labels, time),
        "boundary": boundary,
        "class_weights": torch.rand(num_labels) + 0.5,
    }


def training_form(
    model: torch.nn.Module, total: Callable[[], Tensor], gradients: dict[str, str]
) -> Form:
    """Forward, backward and Adam; `gradients` maps the released names of modules to the model's."""
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-4)

    def step() -> None:
        model.train()
        optimizer.zero_grad()
        total().backward()
        optimizer.step()

    def values() -> dict[str, Tensor]:
        model.eval()
        model.zero_grad()
        loss = total()
        loss.backward()
        found = {"loss": loss.detach()}
        for name, path in gradients.items():
            gradient = model.get_parameter(f"{path}.weight").grad
            assert gradient is not None
            found[name] = gradient.flatten().clone()
        return found

    return Form(step, values)


def difference(case: Case, first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    """The greatest; of gradients relative to their largest entry."""
    return max(
        float((value - second[name]).abs().max() / (value.abs().max() if case.is_training else 1))
        for name, value in first.items()
    )


def timed(case: Case, against: str, rounds: int) -> dict[str, Any]:
    forms = literal(case), FORMS[against](case)
    different = difference(case, forms[0].values(), forms[1].values())
    seconds: tuple[list[float], list[float]] = [], []
    for _ in range(rounds * (5 if case.is_training else 1)):
        for form, times in zip(forms, seconds, strict=True):
            start = time.perf_counter()
            form.run()
            times.append(time.perf_counter() - start)
    ratio = median(a / b for a, b in zip(*seconds, strict=True))
    return {
        "literal_s": median(seconds[0]),
        "package_s": median(seconds[1]),
        "ratio": ratio,
        "least_ratio": case.least_ratio,
        "goal": case.goal,
        "difference": different,
        "passed": ratio >= case.least_ratio and different <= MOST_DIFFERENT,
    }


def status_mb(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise OSError(f"/proc/self/status has no {field}")


def peak_mb(case: Case, form: str) -> dict[str, float]:
    """What a run adds to this process at its peak, and the peak itself."""
    warm_up = replace(case, **WARM_UP)
    FORMS[form](warm_up).run()
    prepared = FORMS[form](case)
    Path("/proc/self/clear_refs").write_text("5")
    before = status_mb("VmRSS")
    for _ in range(2 if case.is_training else 1):
        prepared.run()
    peak = status_mb("VmHWM")
    return {"work_mb": peak - before, "peak_mb": peak}


def weighed(name: str, against: str) -> dict[str, Any]:
    """Both forms' memory, or why it could not be measured."""
    found = []
    for form in ("literal", against):
        command = [sys.executable, __file__, "--weigh", name, form]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            return {"skipped": f"memory cannot be measured here: {reason}"}
        found.append(json.loads(done.stdout))
    ratio, most = found[1]["work_mb"] / found[0]["work_mb"], CASES[name].most_memory
    assert most is not None
    return {
        "literal": found[0],
        "package": found[1],
        "ratio": ratio,
        "most": most,
        "passed": ratio < most if CASES[name].is_training else ratio <= most,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="pairs of videos; five steps each")
    parser.add_argument("--only", choices=CASES, nargs="+", default=list(CASES))
    parser.add_argument(
        "--against",
        choices=FORMS,
        default="package",
        help="literal: that form against itself, which shows the noise",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--weigh", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.weigh:
        name, form = arguments.weigh
        print(json.dumps(peak_mb(CASES[name], form)))
        return 0

    load = os.getloadavg()[0]
    report: dict[str, Any] = {"load_at_start": load}
    passed = True
    if load > 0.5 and not arguments.json:
        print(f"load {load:.1f} before the start: two threads need both cores to themselves")
    for name in arguments.only:
        case = CASES[name]
        row = report[name] = timed(case, arguments.against, arguments.rounds)
        passed &= row["passed"]
        if not arguments.json:
            print(
                f"{name:16} literal {row['literal_s']:.3f} s   "
                f"package {row['package_s']:.3f} s   {row['ratio']:.2f}x "
                f"(least {case.least_ratio:g}x, goal {case.goal:g}x)   "
                f"differ by {row['difference']:.1e}   {'passed' if row['passed'] else 'FAILED'}",
                flush=True,
            )
        if case.most_memory is None:
            continue
        memory = row["memory"] = weighed(name, arguments.against)
        passed &= memory.get("passed", True)
        if not arguments.json:
            print(told(memory), flush=True)
    if arguments.json:
        print(json.dumps(report))
    return 0 if passed else 1


def told(memory: dict[str, Any]) -> str:
    if "skipped" in memory:
        return f"{'':16} {memory['skipped']}"
    sizes = "   ".join(
        f"{form} {memory[form]['work_mb']:.0f} MB (process {memory[form]['peak_mb']:.0f})"
        for form in ("literal", "package")
    )
    verdict = "passed" if memory["passed"] else "FAILED"
    return f"{'':16} {sizes}   {memory['ratio']:.2f}x (most {memory['most']:g}x)   {verdict}"


if __name__ == "__main__":
    sys.exit(main())
