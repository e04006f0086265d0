"""Models that turn audio or text into vectors, and the space they lie in."""

# Here, where the HTTP API and the command line read them without loading numpy.
DEFAULT_MODEL = "musicnn-msd"
PROMPTS = "prompts"
