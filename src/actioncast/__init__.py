"""Watches people act: what has been done, what comes next and for how long, and how sure it is."""

__version__ = "0.1.0"
