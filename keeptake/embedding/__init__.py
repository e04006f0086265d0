"""Models that turn audio or text into vectors, and the space they lie in."""

DEFAULT_MODEL = "musicnn-msd"  # here, where the HTTP API reads it without loading numpy
