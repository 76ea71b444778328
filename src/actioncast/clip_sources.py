"""What is known of a clip, put together as a training asks: history, features, objects, questions.

The first source gives `Observation.features`, each other one a modality of its own name.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from jaxtyping import Float32

from actioncast.clip_config import ClipTrainConfig
from actioncast.clip_frames import ClipWindows, FrozenFrames, RawFrames
from actioncast.data.action_history import ActionHistory
from actioncast.data.clip_features import RulstmFeatures, open_clip_features
from actioncast.data.clip_samples import TokenSource
from actioncast.data.clip_sequences import ClipSequences, ObservedSegments
from actioncast.data.clips import ActionClip, ClipDataset
from actioncast.data.epic_kitchens import class_synonyms
from actioncast.data.feature_steps import FeatureSteps
from actioncast.data.history_steps import HistorySteps
from actioncast.data.visor import VisorObjects, read_visor
from actioncast.questions import (
    LeakChecker,
    QuestionBank,
    QuestionFile,
    QuestionMode,
    QuestionPair,
    read_questions,
)
from actioncast.questions.templates import chosen
from actioncast.text_encoders import TextEncoder, text_encoder
from actioncast.video.backbones import build_backbone
from actioncast.video.base import BackboneConfig

PARAPHRASES = 8
"""Ways to ask about one action: few enough to encode each once, enough to be no code for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Everything that a model is shown of a clip, and how a passport says it."""

    first: TokenSource
    others: tuple[TokenSource, ...] = ()
    rate: float = 1.0
    """Steps per second of the first."""
    input: str
    """What the model sees."""
    causal: str
    """yes, no or unknown: whether a step of the first source sees what comes after it."""
    questions: str = ""
    """Whose actions the questions are about, who made and who reads them; empty without any."""
    sequences: ClipSequences | None = None
    """Which actions come after which, where those are asked for; no model is shown them."""

    def asked(self, dataset: ClipDataset, part: str) -> tuple[ActionClip, ...]:
        """The clips of a part that a model is asked about."""
        return dataset.part(part) if self.sequences is None else self.sequences.asked(part)

    @property
    def every(self) -> tuple[TokenSource, ...]:
        """The first and the others."""
        return (self.first, *self.others)


def sources(
    config: ClipTrainConfig, dataset: ClipDataset, folder: Path, parts: Sequence[str] = ()
) -> Sources:
    """What a config shows of the clips of a data set.

    Args:
        config: Says which sources.
        dataset: The annotation.
        folder: Where it lies; paths of a config are relative to it.
        parts: Whose clips will be read; absent, those of all parts.

    Raises:
        ValueError, FileNotFoundError: A file is missing or does not fit the data.
    """
    parts = tuple(parts) or tuple(dataset.clips)
    sequences = None
    if config.task == "coming_actions":
        sequences = ClipSequences(dataset, config.coming())
    first, said, causal = _first(config, dataset, folder, parts, sequences)
    others: list[TokenSource] = []
    if config.objects:
        file = folder / config.object_file
        if not file.is_file():
            raise FileNotFoundError(
                f"the objects of VISOR were looked for in {file} and are not there; say "
                "--object-file PATH, relative to the data set, or train without --objects."
            )
        annotation = read_visor(file, len(dataset.taxonomy.heads["noun"]))
        others.append(VisorObjects(annotation, config.protocol(), config.visor))
        said += (
            f"; at most {config.visor.max_objects} objects of VISOR, drawn by people, seen in the "
            f"{config.visor.window:g} s before"
        )
    asked = ""
    if config.questions is not QuestionMode.NONE:
        questions = QuestionTokens(config, dataset, folder, parts)
        others.append(questions)
        asked = questions.sentence
    rate = config.history.rate or 1.0
    if config.input != "history":
        rate = 1.0 if config.task == "recognition" else config.num_frames / config.span
    if sequences is not None and config.input == "features":
        rate = config.feature_rate
    return Sources(
        first=first,
        others=tuple(others),
        rate=rate,
        input=said,
        causal=causal,
        questions=asked,
        sequences=sequences,
    )


def _first(
    config: ClipTrainConfig,
    dataset: ClipDataset,
    folder: Path,
    parts: Sequence[str],
    sequences: ClipSequences | None,
) -> tuple[TokenSource, str, str]:
    if config.input == "history":
        if sequences is not None:
            said = f"verbs and nouns of the {config.num_observed} actions observed, by people"
            return ObservedSegments(sequences), said, "yes"
        ahead = config.protocol().anticipation_time
        told, said = config.history, config.history.sentence()
        if told.rate:
            return HistorySteps(dataset, ahead, told), said, "yes"
        return ActionHistory(dataset, ahead, told), said, "yes"
    first: TokenSource
    if config.input == "frames":
        windows = ClipWindows(dataset, config.protocol())
        videos = folder / config.videos
        if config.backbone.name:
            first = FrozenFrames(videos, windows, config.backbone, config.frame_cache)
            return first, f"frames, seen by {config.backbone.name}, frozen", "yes"
        own: BackboneConfig = cast(Any, config.model).backbone
        # Built for what it wants its frames to be; the model builds its own.
        first = RawFrames(videos, windows, build_backbone(own).framing, config.num_frames)
        return first, f"frames, seen by {own.name}", "yes"
    path = folder / config.features
    if path.suffix == ".lmdb" or (path / "data.mdb").is_file():
        if config.every_step or sequences is not None:
            raise ValueError(
                f"every step is read of .npy files, one a video, got the LMDB {path}; write those."
            )
        first = RulstmFeatures(path, config.protocol())
    else:
        files = open_clip_features(
            path, dataset, config.protocol(), config.feature_rate, parts=parts
        )
        first = files
        if config.every_step or sequences is not None:
            first = FeatureSteps(files, dataset, config.span, lasts=sequences is not None)
    return first, f"features, {first.width} wide", "unknown"


class QuestionTokens:
    """The questions about each clip as tokens of a text encoder (`clip_samples.TokenSource`).

    Both questions stand in one row: the tokens of the verb's, then those of the noun's; or those of
    both read as one text. Every distinct text is encoded once, when this is made.
    """

    name = "questions"

    def __init__(
        self,
        config: ClipTrainConfig,
        dataset: ClipDataset,
        folder: Path,
        parts: Sequence[str],
        encoder: TextEncoder | None = None,
    ) -> None:
        cache = Path(config.text_cache) if config.text_cache else None
        self.encoder = encoder or text_encoder(config.text_encoder, cache)
        self.width = self.encoder.width
        self.together = config.questions_together
        clips = [clip for part in parts for clip in dataset.part(part)]
        checker = LeakChecker(dataset.taxonomy, _synonyms(folder))
        if config.question_file:
            self.pairs, source = _from_files(config, dataset, parts, checker)
        else:
            self.pairs, source = _from_templates(config, dataset, clips, checker)
        texts = dict.fromkeys(text for pair in self.pairs.values() for text in self._texts(pair))
        self.states = dict(zip(texts, self.encoder.encode(list(texts)), strict=True))
        way = "as one text" if self.together else "one after the other"
        self.sentence = (
            f"{config.questions.value}: {config.questions.sentence}; made by {source}; read by "
            f"{self.encoder.name}, {way}"
        )

    def read(self, clip: ActionClip) -> Float32[np.ndarray, "token feature"]:
        """The tokens of both questions.

        Raises:
            ValueError: The clip was not among those that questions were made for.
        """
        if clip.id not in self.pairs:
            raise ValueError(f"clip {clip.id} has no questions; they were made for other parts.")
        return np.concatenate([self.states[text] for text in self._texts(self.pairs[clip.id])])

    def _texts(self, pair: QuestionPair) -> tuple[str, ...]:
        return (f"{pair.verb} {pair.noun}",) if self.together else (pair.verb, pair.noun)


def _from_templates(
    config: ClipTrainConfig,
    dataset: ClipDataset,
    clips: Iterable[ActionClip],
    checker: LeakChecker,
) -> tuple[dict[str, QuestionPair], str]:
    bank = QuestionBank(dataset.taxonomy, checker, seed=config.question_seed)
    if config.questions is QuestionMode.GENERIC:
        return {clip.id: bank.generic() for clip in clips}, "nobody: they are always the same"
    history = ActionHistory(dataset, config.protocol().anticipation_time, config.history)
    known: dict[tuple[int, int, int], QuestionPair] = {}
    found: dict[str, QuestionPair] = {}
    for clip in clips:
        about = _about(clip, history, oracle=config.questions.is_oracle)
        if about is None:
            found[clip.id] = bank.generic()
            continue
        way = chosen(PARAPHRASES, config.question_seed, clip.id)
        if (*about, way) not in known:
            known[*about, way] = bank.pair(*about, str(way))
        found[clip.id] = known[*about, way]
    return found, f"templates, seed {config.question_seed}"


def _about(clip: ActionClip, history: ActionHistory, *, oracle: bool) -> tuple[int, int] | None:
    """The action that is asked about: the clip's own, or the one observed last before it."""
    if oracle:
        return clip.verb, clip.noun
    seen = history.observed(clip)
    return (int(seen.verbs[-1]), int(seen.nouns[-1])) if len(seen) else None


def _from_files(
    config: ClipTrainConfig, dataset: ClipDataset, parts: Sequence[str], checker: LeakChecker
) -> tuple[dict[str, QuestionPair], str]:
    if len(parts) > 1 and "{part}" not in config.question_file:
        raise ValueError(
            f"question_file must hold {{part}}, which stands for {' and '.join(parts)}, got "
            f"{config.question_file}: each part has a file of its own."
        )
    found: dict[str, QuestionPair] = {}
    makers: list[str] = []
    for part in parts:
        path = Path(config.question_file.replace("{part}", part))
        clips = dataset.part(part)
        own = {clip.id: (clip.verb, clip.noun) for clip in clips}
        answers = own if config.questions.is_oracle else None
        file = read_questions(path, [clip.id for clip in clips], checker=checker, answers=answers)
        if file.mode is not config.questions:
            raise ValueError(
                f"{path} holds {file.mode} questions, got --questions {config.questions}; say "
                "what they are."
            )
        _require_ahead(path, file, config)
        found |= file.questions
        # Whoever wrote the file says what it was made from; nothing here can prove it.
        makers.append(f"{file.source} (a file, as it says)")
    return found, ", ".join(dict.fromkeys(makers))


def _require_ahead(path: Path, file: QuestionFile, config: ClipTrainConfig) -> None:
    """Refuse predicted questions that may tell what no model is shown."""
    if config.task != "next_action" or file.mode is not QuestionMode.PREDICTED:
        return
    least = config.anticipation_time + config.history.gap
    if file.ahead is None or file.ahead < least - 1e-9:
        said = "nothing of it" if file.ahead is None else f"{file.ahead:g} s"
        raise ValueError(
            f"{path}: predicted questions must come from what was observed {least:g} s before a "
            f"clip and earlier, got {said}; make them with --ahead {least:g}, or write "
            '"ahead" into a file that others made so.'
        )


def _synonyms(folder: Path) -> Mapping[str, Mapping[int, Sequence[str]]]:
    """What else each class is called; nothing where the class files are absent."""
    try:
        return class_synonyms(folder)
    except FileNotFoundError:
        return {}
