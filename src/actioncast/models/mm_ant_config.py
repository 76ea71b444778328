"""Sizes and options of m&m-Ant, every choice that its summary leaves open among them."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from actioncast.layers.decoding import Fill
from actioncast.timeline import Taxonomy

if TYPE_CHECKING:
    from actioncast.models.mm_ant import MMAnt


@dataclass(frozen=True, slots=True, kw_only=True)
class MMAntConfig:
    """Sizes and options of m&m-Ant; the defaults are those of Breakfast."""

    feature_dim: int = 2048
    """Width of a feature vector."""
    hidden_dim: int = 128
    """Width of the transformer."""
    num_queries: int = 8
    """Most future actions that can be told, the end included."""
    num_encoder_layers: int = 2
    """Layers of the segmentation module, which reads the past (L_seg)."""
    num_anticipation_layers: int = 1
    """Layers of the anticipation module, which fuses and answers (L_ant)."""
    num_heads: int = 8
    """Attention heads of every layer."""
    feedforward_factor: int = 4
    """Inner width of a feed-forward block, in multiples of `hidden_dim`."""
    dropout: float = 0.1
    """Probability of dropping an activation or an attention weight in training."""
    max_positions: int = 2000
    """Longest observation, in steps; each has a learned position."""
    text: Literal["learned", "given", "captions", "none"] = "learned"
    """Who describes what is seen: a generator that learns to; whoever names the observed actions,
    which is an oracle where that is the truth; captions of files; or nobody, which leaves the
    uni-modal model."""
    described: Literal["fine", "coarse", "predicted"] = "fine"
    """Level of the labels that a description speaks: the finest of the hierarchy, the uppermost, or
    the one that is predicted, so that no other level is known of."""
    text_vectors: Literal["names", "table", "states"] = "names"
    """What a description becomes: the text encoder's vectors of the label names, weighed by how
    likely each is; a learned table in their place; or the generator's own states."""
    encoder: str = "hash:512"
    """Text encoder of the label names or captions: hash:512, minilm, a folder or a hub name, or
    vectors:FILE with vectors made elsewhere."""
    text_scale: Literal["unit", "as_is"] = "unit"
    """Whether each vector of the encoder is brought to a root mean square of 1, so that text is as
    loud as vision from the start, or taken as it is, as released."""
    text_dim: int = 0
    """Width of the text's vectors; that of the encoder, or of the captions, if 0."""
    generator: Literal["layer", "attention"] = "layer"
    """What the generator is made of: a transformer layer, or an attention alone, as released."""
    generator_reads: Literal["tokens", "segmentation"] = "tokens"
    """What it reads: embedded features, or what the segmentation module makes of them."""
    generator_hears_actions: bool = True
    """Whether it is told beside what the segmentation module answers."""
    generator_scope: Literal["video", "batch"] = "video"
    """What it looks at from each step: the steps of the same video, or, by the released code's
    mistake, the same step of the other videos of the batch."""
    fusion: Literal["concatenation", "decoder"] = "concatenation"
    """How text meets vision: joined as one sequence that looks at itself, or, as released, as what
    a decoder asks of the segmentation stream."""
    query_mode: Literal["learned", "pooled_text", "pooled_answers", "text"] = "learned"
    """Where the queries come from: learned, reading the joined sequence; the text averaged over as
    many windows, all zeros where there is none; of a decoder alone, its answers to every text token
    averaged over as many windows; or every text token as a query, as released last."""
    text_positions: Literal["sinusoid", "shared", "none"] = "sinusoid"
    """What a text token knows of its place: a sinusoid, the learned position of its step, or
    nothing."""
    token_positions: Literal["none", "sinusoid"] = "none"
    """Whether embedded features carry a sinusoid beside the positions inside every attention, as
    released last."""
    past_names_end: bool = False
    """Whether the past head has an output for the end, as released last, which no step ever is."""
    unused_parameters: bool = False
    """Whether to carry a generator that nothing uses, as released last."""
    fill: Fill = "last_action"
    """Who takes the frames that rounding leaves over, or all when the end comes first: an action
    before the end, or the last query, as the official code has it."""
    end_takes_time: bool = False
    """Whether the end has a duration: the share of the horizon after the end of the video, in which
    no action is named. Otherwise the actions fill the horizon."""
    seed: int = 0
    """Seed of sampled futures."""
    objective: Literal["sum", "gated"] = "sum"
    """How losses are combined: added, or, as released, mixed by how often frames are named right
    and by how far training has come. Without a generator there is nothing to mix."""
    past_weight: float = 1.0
    """Weight of the loss of the observed actions."""
    future_weight: float = 1.0
    """Weight of the loss of the future actions."""
    duration_weight: float = 1.0
    """Weight of the loss of their durations."""
    text_weight: float = 1.0
    """Weight of the generator's loss of described labels (L_ce)."""
    intra_weight: float = 1.0
    """Weight of the spread within a run of one described label (lambda 1)."""
    inter_weight: float = 1.0
    """Weight of the closeness of different runs of a video (lambda 2)."""
    consistency_of: Literal["states", "logits"] = "states"
    """What those two are of: the generator's states, or its logits, as released."""
    consistency_shared_by: Literal["video", "last_video"] = "video"
    """By how many runs the closeness is divided: each video's own, or, by the released code's
    mistake, those of the last video of the batch."""
    text_error: Literal["cross_entropy", "focal"] = "cross_entropy"
    """Error of described labels: cross entropy, or, as released, a focal one (gamma 2)."""
    averaged_over: Literal["labelled", "all"] = "labelled"
    """What cross entropies are averaged over: steps and queries with a label, or, as released,
    padding too."""
    change_weight: float = 1.0
    """Weight of the future's loss where the first future action is not the last seen; the released
    code has 10."""
    consistency_peak: int = 30
    """Epochs until consistency alone is left of the text's loss, in the gated objective."""
    consistency_end: int = 60
    """Epochs until it is gone again."""
    segmentation_epochs: int = 0
    """First epochs in which the past and the text alone are learned: the paper's first stage. By
    default all is learned together, as the released code has it."""

    def __post_init__(self) -> None:
        for name in (
            "feature_dim",
            "hidden_dim",
            "num_queries",
            "num_encoder_layers",
            "num_anticipation_layers",
            "num_heads",
            "feedforward_factor",
            "max_positions",
            "consistency_peak",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.hidden_dim % self.num_heads:
            raise ValueError(
                f"hidden_dim must be a multiple of num_heads, got {self.hidden_dim} and "
                f"{self.num_heads}."
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}.")
        for name in (
            "text_dim",
            "segmentation_epochs",
            "past_weight",
            "future_weight",
            "duration_weight",
            "text_weight",
            "intra_weight",
            "inter_weight",
            "change_weight",
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}.")
        if self.consistency_end <= self.consistency_peak:
            raise ValueError(
                "consistency_end must come after consistency_peak, got "
                f"{self.consistency_end} and {self.consistency_peak}."
            )
        if self.end_takes_time and self.fill == "last_query":
            raise ValueError(
                "end_takes_time must come with fill='last_action', got fill='last_query', under "
                "which the last query overwrites the end."
            )
        self._check_text()

    def _check_text(self) -> None:
        if self.text_vectors == "states" and self.text in ("given", "captions"):
            raise ValueError(
                f"text_vectors='states' must come with text='learned', got text={self.text!r}, "
                "which has no generator; take names or table."
            )
        if self.query_mode in ("pooled_answers", "text") and self.fusion != "decoder":
            raise ValueError(
                f"query_mode={self.query_mode!r} must come with fusion='decoder', got "
                f"{self.fusion!r}; take learned or pooled_text."
            )
        if self.text == "none":
            return
        if self.query_mode == "learned" and self.fusion == "decoder":
            raise ValueError(
                "fusion='decoder' asks by its text, got query_mode='learned', in which no text "
                "is read; take pooled_text, pooled_answers or text, or say text='none'."
            )

    def build(self, taxonomy: Taxonomy) -> "MMAnt":
        """Build the model for these labels; reads the text encoder where names are embedded."""
        from actioncast.models.mm_ant import MMAnt, name_vectors  # noqa: PLC0415

        return MMAnt(self, taxonomy, name_vectors(self, taxonomy))

    def build_unfilled(self, taxonomy: Taxonomy) -> "MMAnt":
        """Build the model for weights to come, which hold the vectors of the label names too.

        Where their width is not said the encoder is asked.
        """
        from actioncast.models.mm_ant import MMAnt  # noqa: PLC0415

        return MMAnt(self, taxonomy) if self.text_dim else self.build(taxonomy)


OFFICIAL = MMAntConfig(
    text="captions",
    text_dim=512,
    text_scale="as_is",
    fusion="decoder",
    query_mode="text",
    text_positions="none",
    token_positions="sinusoid",
    past_names_end=True,
    unused_parameters=True,
    generator="attention",
    generator_hears_actions=False,
    fill="last_query",
    objective="gated",
    consistency_of="logits",
    consistency_shared_by="last_video",
    text_error="focal",
    averaged_over="all",
    change_weight=10.0,
)
"""As released last: context from elsewhere asks a decoder, one answer for each of its vectors."""

RELEASED_LOSSES = MMAntConfig(
    objective="gated",
    consistency_of="logits",
    consistency_shared_by="last_video",
    text_error="focal",
    averaged_over="all",
    change_weight=10.0,
    fill="last_query",
    past_names_end=True,
    fusion="decoder",
    query_mode="pooled_text",
    text_positions="none",
)
"""What the earlier releases share, of the time of the paper: losses, decoder, heads."""

RELEASED_LEARNED = replace(
    RELEASED_LOSSES,
    generator="attention",
    generator_hears_actions=False,
    generator_scope="batch",
    text_vectors="states",
)
"""As released before the paper with a generator that learns: its states ask the decoder (G2)."""

RELEASED_GIVEN = replace(
    RELEASED_LOSSES,
    text="given",
    text_vectors="table",
    query_mode="pooled_answers",
    text_positions="sinusoid",
)
"""As released before the paper with true fine labels of what is seen: an oracle (G1)."""
