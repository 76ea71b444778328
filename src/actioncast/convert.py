"""Official checkpoints in: their tensors, our names, our folder."""

from pathlib import Path

from actioncast import __version__
from actioncast.checkpoint import load_weights, read_official, save_checkpoint
from actioncast.data.frame_labels import read_mapping
from actioncast.models.futr_official import futr_from_official
from actioncast.timeline import LabelSpace, Taxonomy
from actioncast.training import TrainConfig, commit, training_facts


def convert_futr(
    checkpoint: Path,
    folder: Path,
    *,
    mapping: Path | None = None,
    num_heads: int = 8,
    stride: int = 3,
    rate: float = 15.0,
    dataset: str = "",
    split: str = "",
    trust: bool = False,
) -> Path:
    """Turn a released FUTR checkpoint into ours.

    Args:
        checkpoint: The file, with or without the `module.` prefix of DataParallel.
        folder: Where to write.
        mapping: mapping.txt with the names of its labels, in its order.
        num_heads: Attention heads, which tensors do not tell.
        stride: Every how many frames it reads one.
        rate: Frames per second of its data.
        dataset: Data set it was trained on.
        split: Split it was trained on.
        trust: Unpickle whatever the file holds.

    Raises:
        ValueError, FileNotFoundError: The file is no FUTR checkpoint, or the labels do not fit.
    """
    config, weights = futr_from_official(read_official(checkpoint, trust), num_heads)
    num_labels = len(weights["past_head.weight"])
    names = tuple(f"action_{i}" for i in range(num_labels))
    labels = LabelSpace(names) if mapping is None else read_mapping(mapping)
    if len(labels) != num_labels:
        raise ValueError(
            f"{mapping} names {len(labels)} labels, the checkpoint {num_labels}; give the mapping "
            "of the data set it was trained on."
        )
    model = config.build(Taxonomy({"action": labels}))
    model.load_state_dict(weights)
    training = TrainConfig(model=config, dataset=dataset, stride=stride, selection="test")
    run = {
        "recipe": f"converted from {checkpoint.name}",
        "training": training_facts(training),
        "dataset": dataset,
        "data": "",
        "fingerprint": "",
        "rate": rate,
        "split": split,
        "held_out": [],
        "version": __version__,
        "commit": commit(),
    }
    save_checkpoint(folder, "futr", model, config, run)
    load_weights(model, folder / "model.safetensors")
    return folder
