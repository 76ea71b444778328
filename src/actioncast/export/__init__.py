"""Recurrent models as graphs that run without PyTorch: state in, state out, one frame at a time."""
