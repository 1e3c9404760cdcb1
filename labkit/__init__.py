"""labkit: the experiment itself is the record."""

__version__ = "0.1.0"
