"""Datasets: their files in, annotated videos out."""

from actioncast.data.base import Dataset, LabelInput, Split, Video, inner_split
from actioncast.data.frame_labels import open_frame_labels

__all__ = ["Dataset", "LabelInput", "Split", "Video", "inner_split", "open_frame_labels"]
