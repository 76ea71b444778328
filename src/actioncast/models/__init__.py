"""Every model, by name. To add one: write its file, add a line here."""

from collections.abc import Mapping

from actioncast.models.actfusion import ActFusionConfig
from actioncast.models.actionllm_config import ActionLLMConfig
from actioncast.models.baselines import (
    NearestNeighbourConfig,
    NGramConfig,
    RepeatLastActionConfig,
)
from actioncast.models.clam_config import ClamConfig
from actioncast.models.diffact import DiffActConfig
from actioncast.models.frame_classifier import FrameClassifierConfig
from actioncast.models.futr import FUTRConfig
from actioncast.models.mamba_vl import MambaVLConfig
from actioncast.models.mm_ant_config import MMAntConfig
from actioncast.models.next_action_baselines import ClassFrequencyConfig, PairNGramConfig
from actioncast.models.online_baselines import OnlineGRUConfig, WindowTransformerConfig
from actioncast.models.semi_markov import SemiMarkovConfig

ModelConfig = (
    RepeatLastActionConfig
    | NGramConfig
    | NearestNeighbourConfig
    | SemiMarkovConfig
    | ClassFrequencyConfig
    | PairNGramConfig
    | FUTRConfig
    | DiffActConfig
    | ActFusionConfig
    | ActionLLMConfig
    | MMAntConfig
    | MambaVLConfig
    | ClamConfig
    | OnlineGRUConfig
    | WindowTransformerConfig
    | FrameClassifierConfig
)
"""The config of any model."""

MODELS: Mapping[str, type[ModelConfig]] = {
    "repeat-last-action": RepeatLastActionConfig,
    "n-gram": NGramConfig,
    "nearest-neighbour": NearestNeighbourConfig,
    "semi-markov": SemiMarkovConfig,
    "class-frequency": ClassFrequencyConfig,
    "pair-n-gram": PairNGramConfig,
    "futr": FUTRConfig,
    "diffact": DiffActConfig,
    "actfusion": ActFusionConfig,
    "actionllm": ActionLLMConfig,
    "mm-ant": MMAntConfig,
    "mamba-vl": MambaVLConfig,
    "clam": ClamConfig,
    "online-gru": OnlineGRUConfig,
    "window-transformer": WindowTransformerConfig,
    "frame-classifier": FrameClassifierConfig,
}

__all__ = ["MODELS", "ModelConfig"]
