"""What label arrays must be before they are scored: integers along one axis, in range."""

import numpy as np


def check_integers(labels: np.ndarray, name: str, video: int = 0) -> None:
    """Refuse labels that are not integers along one axis."""
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise ValueError(
            f"{name} labels (item {video}) must be integers along one axis, got {labels.dtype} of "
            f"shape {labels.shape}: map names to label ids first."
        )


def check_range(labels: np.ndarray, num_labels: int) -> None:
    """Refuse true labels outside 0 to `num_labels` - 1."""
    if labels.size and not 0 <= labels.min() <= labels.max() < num_labels:
        raise ValueError(
            f"true labels must lie in 0 to {num_labels - 1}, got {labels.min()} to {labels.max()}: "
            "use the ids of one vocabulary."
        )
