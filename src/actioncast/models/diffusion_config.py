"""The values that DiffAct and ActFusion share."""

from dataclasses import dataclass, field
from typing import Literal

from actioncast.layers.frame_masks import Masking


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffusionConfig:
    """Sizes and options of a diffusion segmenter; the defaults are those of 50 Salads."""

    feature_dim: int = 2048
    """Width of a feature vector."""
    encoder_layers: int = 10
    """Layers that read the frames; the i-th reaches 2^i steps a tap."""
    encoder_dim: int = 64
    """Channels of the encoder."""
    encoder_taps: int = 5
    """Neighbours that a step of the encoder looks at, itself included; odd."""
    decoder_layers: int = 8
    """Layers that denoise."""
    decoder_dim: int = 24
    """Channels of the denoiser."""
    decoder_taps: int = 7
    """Neighbours that a step of the denoiser looks at, itself included; odd."""
    step_dim: int = 512
    """Width of the embedding of a diffusion step; even."""
    condition_layers: tuple[int, ...] = (5, 7, 9)
    """Encoder layers, counted from 0, whose outputs condition the denoiser."""
    condition_features: bool = False
    """Whether the features themselves condition it too."""
    condition_predictions: bool = False
    """Whether the encoder's own answer conditions it too."""
    dropout: float = 0.5
    """Probability of dropping an activation in the encoder."""
    channel_dropout: float = 0.5
    """Probability of dropping a feature channel of a video."""
    frame_dropout: float = 0.5
    """Probability of dropping all features of a step."""
    decoder_dropout: float = 0.1
    """Probability of dropping an activation, or the condition, in the denoiser."""
    masking: Masking = field(default_factory=Masking)
    """Which frames of a training video are hidden."""
    num_steps: int = 1000
    """Steps of diffusion that training draws from."""
    inference_steps: int = 25
    """Steps of denoising that make an answer."""
    eta: float = 1.0
    """Noise drawn while denoising: 0 is deterministic, 1 is what is released."""
    scale: float = 1.0
    """Labels are diffused as -scale and +scale."""
    encoder_weight: float = 0.5
    """Weight of the encoder's cross entropy."""
    encoder_smoothing_weight: float = 0.1
    """Weight of the encoder's smoothing loss."""
    encoder_boundary_weight: float = 0.0
    """Weight of the encoder's boundary loss."""
    decoder_weight: float = 0.5
    """Weight of the denoiser's cross entropy."""
    decoder_smoothing_weight: float = 0.1
    """Weight of the denoiser's smoothing loss."""
    decoder_boundary_weight: float = 0.1
    """Weight of the denoiser's boundary loss."""
    decoder_counts: Literal["all", "hidden"] = "all"
    """Steps whose denoiser losses count: all, or those that were hidden."""
    boundary_sigma: float = 20.0
    """Deviation of the smoothed boundary, in frames of the video."""
    boundary_through_both: bool = False
    """Whether the boundary loss moves both neighbours, as printed, or the later, as released."""
    class_weights: bool = False
    """Whether an action counts the more the rarer it is in training; for hard labels."""
    soft_labels: float = 0.0
    """Deviation, in steps, by which training labels are smoothed in time; 0 keeps them hard."""
    to_the_end: bool = True
    """Whether the whole rest of a video is denoised where a protocol tells its length, as
    published; otherwise the horizon alone."""
    answer_of: Literal["denoiser", "encoder"] = "denoiser"
    """Whose answer counts: what is denoised, or what the encoder names on the way (a mode of the
    released test); the encoder draws no futures."""
    seed: int = 0
    """Seed of the noise at inference."""

    def __post_init__(self) -> None:
        self._check_sizes()
        for name in ("dropout", "channel_dropout", "frame_dropout", "decoder_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}.")
        if not 0 <= self.eta <= 1 or not self.scale > 0:
            raise ValueError(
                f"eta must be within [0, 1] and scale positive, got {self.eta} and {self.scale}."
            )
        if self.class_weights and self.soft_labels:
            raise ValueError(
                "class_weights weigh hard labels, and soft_labels has none (the released code then "
                "leaves the weights out without a word); set one of them."
            )
        for name in self.__dataclass_fields__:
            if name.endswith(("_weight", "_sigma")) and getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}.")

    def _check_sizes(self) -> None:
        for name in (
            "feature_dim",
            "encoder_layers",
            "encoder_dim",
            "encoder_taps",
            "decoder_layers",
            "decoder_dim",
            "decoder_taps",
            "inference_steps",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        for name in ("encoder_taps", "decoder_taps"):
            if not getattr(self, name) % 2:
                raise ValueError(
                    f"{name} must be odd, got {getattr(self, name)}: a step has as many neighbours "
                    "before it as after it."
                )
        if self.step_dim < 4 or self.step_dim % 2:
            raise ValueError(f"step_dim must be even and at least 4, got {self.step_dim}.")
        if self.inference_steps > self.num_steps:
            raise ValueError(
                f"inference_steps must be at most num_steps, got {self.inference_steps} and "
                f"{self.num_steps}."
            )
        if not all(0 <= layer < self.encoder_layers for layer in self.condition_layers):
            raise ValueError(
                f"condition_layers must be layers of the encoder, 0 to {self.encoder_layers - 1}, "
                f"got {self.condition_layers}."
            )
        if list(self.condition_layers) != sorted(set(self.condition_layers)):
            raise ValueError(
                f"condition_layers must be in order, each once, got {self.condition_layers}."
            )
        if not (self.condition_layers or self.condition_features or self.condition_predictions):
            raise ValueError(
                "something must condition the denoiser; name condition_layers, or set "
                "condition_features or condition_predictions."
            )

    def condition_dim(self, num_labels: int) -> int:
        """Channels of what conditions the denoiser."""
        return (
            len(self.condition_layers) * self.encoder_dim
            + self.condition_features * self.feature_dim
            + self.condition_predictions * num_labels
        )
