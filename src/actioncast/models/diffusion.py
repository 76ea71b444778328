"""What DiffAct and ActFusion share: labels of all frames denoised, given what an encoder saw.

Both denoise the labels of a whole video from Gaussian noise, conditioned on the frames. They differ
in how frames are hidden: see `diffact.py` and `actfusion.py`.
"""

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from actioncast.layers.attention import Positions
from actioncast.layers.decoding import held_steps
from actioncast.layers.denoiser import FrameEncoder, LabelDenoiser
from actioncast.layers.diffusion import (
    cosine_signal,
    ddim_step,
    ddim_steps,
    diffuse,
    standard_noise,
)
from actioncast.layers.frame_losses import (
    boundary_loss,
    boundary_targets,
    class_weights,
    frame_cross_entropy,
    smoothing_loss,
    soft_cross_entropy,
    soft_labels,
    strided_boundaries,
)
from actioncast.layers.frame_masks import draw
from actioncast.models.base import Anticipator, CountsFirst, Losses
from actioncast.models.diffusion_config import DiffusionConfig
from actioncast.timeline import Taxonomy
from actioncast.types import IGNORE, Observation, Prediction, Target, Task, TrainingTimeline

STEPS_AT_ONCE = 6000
"""Steps of all videos denoised together: more would leave the processor's caches, and memory grows
with them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """What the encoder makes of videos of one length."""

    logits: Float[Tensor, "batch label time"]
    """Its own answer."""
    condition: Float[Tensor, "batch condition time"]
    """What the denoiser is told."""
    named: Bool[Tensor, "batch time"]
    """Steps that its own answer names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    """A training video as its mask shows it."""

    features: Float[Tensor, "seen feature"]
    labels: Int[Tensor, " time"]
    boundaries: Float[Tensor, " time"]
    visible: Bool[Tensor, " time"]


class DiffusionAnticipator(Anticipator, CountsFirst):
    """Denoises the labels of all steps of a video, seen or not.

    A subclass says how hidden steps are told to encoder and denoiser.
    """

    tasks = frozenset({Task.SEGMENTATION, Task.LONG_TERM})
    trains_on_whole_videos: ClassVar[bool] = True
    label_weights: Float[Tensor, " label"]
    signal: Float[Tensor, " step"]

    def __init__(
        self,
        config: DiffusionConfig,
        taxonomy: Taxonomy,
        positions: Positions = "none",
        max_positions: int = 0,
    ) -> None:
        super().__init__()
        self.settings = config
        self.answers_told_length = config.to_the_end
        self.taxonomy = taxonomy
        self.num_labels = len(taxonomy.labels)
        self.encoder = FrameEncoder(
            config.feature_dim,
            self.num_labels,
            config.encoder_layers,
            config.encoder_dim,
            config.encoder_taps,
            config.dropout,
            config.channel_dropout,
            config.frame_dropout,
            positions,
            max_positions,
        )
        self.decoder = LabelDenoiser(
            self.num_labels,
            config.condition_dim(self.num_labels),
            config.decoder_layers,
            config.decoder_dim,
            config.decoder_taps,
            config.step_dim,
            config.decoder_dropout,
            positions,
            max_positions,
        )
        self.register_buffer("label_weights", torch.ones(self.num_labels))
        self.register_buffer("signal", cosine_signal(config.num_steps), persistent=False)

    @abstractmethod
    def encode(
        self,
        features: Float[Tensor, "batch seen feature"],
        visible: Bool[Tensor, "batch time"],
        valid: Bool[Tensor, "batch time"] | None = None,
    ) -> Encoded:
        """Encode videos whose first steps have features, of which `visible` ones may be used.

        Args:
            features: Of the first steps; those after them are hidden.
            visible: Steps that may be seen.
            valid: False where a shorter video is padded; absent, none is.
        """

    def more_losses(
        self,
        encoded: Encoded,  # noqa: ARG002
        features: Float[Tensor, "batch seen feature"],  # noqa: ARG002
        hidden: Bool[Tensor, "batch time"],  # noqa: ARG002
    ) -> Losses:
        """Terms that a subclass adds; none."""
        return {}

    def count(self, timelines: Sequence[TrainingTimeline]) -> None:
        """Weigh labels by how rare their frames are in training, if the config asks for it."""
        if not self.settings.class_weights:
            return
        counts = torch.zeros(self.num_labels)
        for one in timelines:
            frames = torch.from_numpy(one.timeline.to_frames(one.num_frames, one.rate))
            counts += torch.bincount(frames, minlength=self.num_labels)
        self.label_weights.copy_(class_weights(counts))

    def losses(self, x: Observation, y: Target) -> Losses:
        """The terms of each video, averaged over the videos of the batch.

        Each video draws its mask, its diffusion step and its noise; a batch of videos gives what
        its videos give one by one.

        Raises:
            ValueError: The target names no frames.
        """
        head = self.taxonomy.primary
        if head not in y.frames:
            raise ValueError(
                f"{type(self).__name__} learns from the frames of head {head!r}, got none; choose "
                "a data set that labels frames."
            )
        self._require_width(x)
        shown = [self._shown(x, y, i) for i in range(len(x))]
        device = x.features.device
        totals = [len(one.visible) for one in shown]
        time = max(totals)
        valid = None
        if min(totals) < time:
            valid = (torch.arange(time) < torch.tensor(totals)[:, None]).to(device)
        return self.video_losses(
            pad_sequence([one.features for one in shown], batch_first=True),
            pad_sequence([one.labels for one in shown], batch_first=True, padding_value=IGNORE),
            pad_sequence([one.boundaries for one in shown], batch_first=True),
            pad_sequence([one.visible for one in shown], batch_first=True),
            torch.randint(self.settings.num_steps, (len(x),)).to(device),
            torch.randn(len(x), self.num_labels, time, device=device),
            valid,
        )

    def _shown(self, x: Observation, y: Target, i: int) -> "_Shown":
        """One video of a batch with its mask drawn, cut or lengthened to what the mask asks for."""
        head, valid = self.taxonomy.primary, x.valid[i]
        labels = y.frames[head][i, valid]
        whole = y.video_frames[head][i] if head in y.video_frames else labels
        # What is padded lies at the end; a frame without a label amid the video keeps its place.
        num_frames = int((whole != IGNORE).nonzero().max()) + 1 if (whole != IGNORE).any() else 0
        num_frames = max(num_frames, x.first_frame(i) + (len(labels) - 1) * x.stride + 1)
        targets = boundary_targets(whole[:num_frames], self.settings.boundary_sigma)
        boundaries = strided_boundaries(targets, x.stride, x.first_frame(i))[: len(labels)]
        visible = draw(self.settings.masking, labels, boundaries).visible
        # A negative pad cuts.
        more = (0, len(visible) - len(labels))
        return _Shown(
            features=x.features[i, valid][: len(visible)],
            labels=F.pad(labels, more, value=IGNORE),
            boundaries=F.pad(boundaries, more),
            visible=visible,
        )

    def video_losses(
        self,
        features: Float[Tensor, "batch seen feature"],
        labels: Int[Tensor, "batch time"],
        boundaries: Float[Tensor, "batch time"],
        visible: Bool[Tensor, "batch time"],
        step: Int[Tensor, " batch"],
        noise: Float[Tensor, "batch label time"],
        valid: Bool[Tensor, "batch time"] | None = None,
    ) -> Losses:
        """Weighted terms (paper, Eqs. 8 to 12) of videos whose draws are made.

        Args:
            features: Of their first steps.
            labels: Of all steps; negative where none is known, which no term counts.
            boundaries: Of `strided_boundaries`.
            visible: Steps that may be seen.
            step: Of diffusion.
            noise: Standard normal.
            valid: False where a shorter video is padded; absent, none is.
        """
        settings, known = self.settings, labels >= 0
        one_hot = F.one_hot(labels.clamp(min=0), self.num_labels) * known[..., None]
        encoded = self.encode(features, visible, valid)
        data = rearrange(
            (2.0 * one_hot - 1) * settings.scale, "batch time label -> batch label time"
        )
        noisy = self._within_unit(diffuse(data, self.signal[step], noise))
        denoised = self.decoder(
            noisy,
            self.decoder.embed_steps(step),
            self.decoder.project(encoded.condition),
            None if valid is None else valid[:, None].float(),
        )
        hidden_only = settings.decoder_counts == "hidden"
        answers = {
            "encoder": (encoded.logits, known & encoded.named),
            "decoder": (denoised, known & ~visible if hidden_only else known),
        }
        losses: Losses = {}
        for part, (channels_first, counted) in answers.items():
            logits = rearrange(channels_first, "batch label time -> batch time label")
            weight, smoothing, boundary = (
                getattr(settings, f"{part}{name}_weight")
                for name in ("", "_smoothing", "_boundary")
            )
            if weight:
                entropy = self._cross_entropy(logits, labels, one_hot, counted)
                losses[f"{part}_frames"] = weight * entropy
            if smoothing:
                losses[f"{part}_smoothing"] = smoothing * smoothing_loss(logits, counted)
            if boundary:
                losses[f"{part}_boundary"] = boundary * boundary_loss(
                    logits, boundaries, counted, settings.boundary_through_both
                )
        hidden = known & ~visible
        return losses | self.more_losses(encoded, features, hidden)

    def _cross_entropy(
        self,
        logits: Float[Tensor, "batch time label"],
        labels: Int[Tensor, "batch time"],
        one_hot: Int[Tensor, "batch time label"],
        counted: Bool[Tensor, "batch time"],
    ) -> Float[Tensor, ""]:
        if self.settings.soft_labels:
            targets = soft_labels(one_hot.float(), self.settings.soft_labels)
            return soft_cross_entropy(logits, targets, counted)
        weights = self.label_weights if self.settings.class_weights else None
        return frame_cross_entropy(logits, labels, weights, counted)

    @torch.inference_mode()
    def predict(self, x: Observation) -> list[Prediction]:
        """Denoise what was seen and what is asked for; the answer is that of the config's seed.

        That is up to the horizon, or up to the end of the video where its length is told
        (`to_the_end`).
        """
        self._require_width(x)
        found: dict[int, Prediction] = {}
        for rows, seen, total in self._alike(x):
            features = self._rows(x.features, rows)[:, :seen]
            visible = torch.arange(total, device=features.device) < seen
            encoded = self.encode(features, visible.expand(len(rows), -1))
            draws: list[Tensor] = []
            if self.settings.answer_of == "encoder":
                probs = encoded.logits.softmax(1)
            else:
                projected = self.decoder.project(encoded.condition)
                probs = self._denoise(projected, self.settings.seed)
                draws = [
                    self._denoise(projected, self.settings.seed + 1 + n).argmax(1)
                    for n in range(x.num_samples)
                ]
            for j, row in enumerate(rows):
                sampled = torch.stack([draw[j] for draw in draws]) if draws else None
                steps = rearrange(probs[j], "label time -> time label")
                found[row] = self._prediction(x, row, seen, steps, sampled)
        return [found[i] for i in range(len(x))]

    def _require_width(self, x: Observation) -> None:
        width = x.features.shape[2]
        if width != self.settings.feature_dim:
            raise ValueError(
                f"features must be {self.settings.feature_dim} wide, got {width}; set feature_dim "
                "to the width of your features."
            )

    @staticmethod
    def _rows(features: Float[Tensor, "batch time feature"], rows: list[int]) -> Tensor:
        """Some rows; a view where they are neighbours, for features are large."""
        first, last = rows[0], rows[-1]
        return features[first : last + 1] if last - first + 1 == len(rows) else features[rows]

    def _alike(self, x: Observation) -> Iterator[tuple[list[int], int, int]]:
        """Rows of one length seen and one length to name, as many as are denoised at once."""
        alike: dict[tuple[int, int], list[int]] = defaultdict(list)
        for i, valid in enumerate(x.valid):
            seen, observed, horizon = int(valid.sum()), x.frames_observed(i), int(x.horizon[i])
            total = -(-(observed + horizon - x.first_frame(i)) // x.stride)
            if self.settings.to_the_end and x.video_length is not None:
                # From every offset as many steps as from the first: so they all have one length,
                # as in the released test.
                total = max(total, -(-int(x.video_length[i]) // x.stride))
            alike[seen, max(seen, total) if horizon else seen].append(i)
        for (seen, total), rows in alike.items():
            at_once = max(1, STEPS_AT_ONCE // total)
            for a in range(0, len(rows), at_once):
                yield rows[a : a + at_once], seen, total

    def denoise(
        self,
        condition: Float[Tensor, "batch condition time"],
        seed: int,
    ) -> Float[Tensor, "batch label time"]:
        """Probabilities of the labels of all steps, from the noise of a seed.

        Every row starts from the same noise.
        """
        return self._denoise(self.decoder.project(condition), seed)

    def _denoise(
        self, projected: list[Float[Tensor, "batch channel time"]], seed: int
    ) -> Float[Tensor, "batch label time"]:
        time = projected[0].shape[2]
        device = projected[0].device
        noises = standard_noise((1, self.num_labels, time), seed, device)
        return self.denoise_from(projected, noises)

    @torch.no_grad()
    def denoise_from(
        self,
        projected: list[Float[Tensor, "batch channel time"]],
        noises: Iterator[Float[Tensor, "1 label time"]],
    ) -> Float[Tensor, "batch label time"]:
        """Denoise from a stream of noise: the first state, then the noise of every step."""
        settings, scale = self.settings, self.settings.scale
        steps = ddim_steps(settings.num_steps, settings.inference_steps)
        device = projected[0].device
        embedded = self.decoder.embed_steps(torch.tensor(steps, device=device))
        signal = self.signal.tolist()
        state = next(noises).expand(len(projected[0]), -1, -1)
        for i, (step, following) in enumerate(zip(steps, [*steps[1:], None], strict=True)):
            logits = self.decoder(self._within_unit(state), embedded[i, None], projected)
            probs: Tensor = logits.softmax(1)
            if following is not None:
                data = (2 * probs - 1) * scale
                args = (signal[step], signal[following], settings.eta, next(noises))
                state = ddim_step(state, data, *args)
        return probs

    def _within_unit(
        self, state: Float[Tensor, "batch label time"]
    ) -> Float[Tensor, "batch label time"]:
        """A state, cut at the scale and mapped to [0, 1], as the denoiser reads it."""
        scale = self.settings.scale
        return ((state.clamp(-scale, scale) / scale + 1) / 2).float()

    def _prediction(
        self,
        x: Observation,
        i: int,
        seen: int,
        steps: Float[Tensor, "time label"],
        sampled: Int[Tensor, "sample time"] | None,
    ) -> Prediction:
        observed, horizon, first = x.frames_observed(i), int(x.horizon[i]), x.first_frame(i)
        future, samples = None, None
        if horizon:
            held = held_steps(len(steps), x.stride, observed + horizon, first)[observed:]
            future = steps[held]
            samples = None if sampled is None else sampled[:, held]
        return Prediction(
            taxonomy=self.taxonomy,
            rate=x.rate,
            observed=observed,
            past=steps[:seen],
            future=future,
            samples=samples,
        )
