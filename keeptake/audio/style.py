"""What kind of music is it? Tags of the music taggers, and the genre, mood and instruments that they speak of.

Conventions: probabilities are the networks' own, averaged over the take, in [0, 1]; a genre or mood is null where no tag that
stands for it is likely enough. Listeners' tags are what the taggers learnt: they lean to "rock" and "electronic", and to what was
tagged in 2008.

Belongs here: the mapping. Does not: the networks; what the prompt asked for (compared in curation).

References
----------
.. [1] Bertin-Mahieux, T. et al. (2011), "The Million Song Dataset", ISMIR: genres and moods.
.. [2] Law, E. et al. (2009), "Evaluation of algorithms using games: the case of music tagging", ISMIR: instruments.
"""

from collections.abc import Mapping, Sequence

import numpy as np

# Each genre by the tags that stand for it; the likeliest tag speaks for the family.
GENRES: dict[str, tuple[str, ...]] = {
    "ambient": ("ambient",),
    "blues": ("blues",),
    "country": ("country",),
    "dance": ("dance", "House"),
    "electronic": ("electronic", "electronica", "electro"),
    "folk": ("folk", "acoustic"),
    "funk": ("funk",),
    "hip-hop": ("Hip-Hop",),
    "indie": ("indie", "indie rock", "indie pop", "alternative"),
    "jazz": ("jazz",),
    "metal": ("metal", "heavy metal"),
    "pop": ("pop", "easy listening"),
    "punk": ("punk",),
    "rnb": ("rnb",),
    "rock": ("rock", "alternative rock", "classic rock", "hard rock", "Progressive rock"),
    "soul": ("soul",),
}
MOODS: dict[str, tuple[str, ...]] = {
    "calm": ("chillout", "chill", "Mellow"),
    "happy": ("happy",),
    "party": ("party",),
    "sad": ("sad",),
    "sentimental": ("beautiful",),
}
INSTRUMENTS: dict[str, tuple[str, ...]] = {
    "cello": ("cello",),
    "choir": ("choir", "choral"),
    "drums": ("drums", "beat", "beats"),
    "flute": ("flute",),
    "guitar": ("guitar",),
    "harp": ("harp",),
    "harpsichord": ("harpsichord",),
    "piano": ("piano",),
    "sitar": ("sitar",),
    "strings": ("strings",),
    "synthesizer": ("synth",),
    "violin": ("violin",),
}

# The taggers' outputs are as rare as the tags: at these levels a tag is several times likelier than on average in training.
LEAST_GENRE = 0.15
LEAST_MOOD = 0.10
LEAST_INSTRUMENT = 0.20


def style(tags_probability: Mapping[str, float], *, instrument_tags: Mapping[str, float]) -> dict[str, object]:
    """Map tags to genre, mood and instruments.

    Parameters
    ----------
    tags_probability : mapping of float
        By tag, of the tagger that knows genres and moods [1]_.
    instrument_tags : mapping of float
        By tag, of the tagger that knows instruments [2]_.

    Returns
    -------
    dict
        `tags` (both taggers' probabilities, the genre tagger's where both know a tag), `genre` and `mood` with
        `genre_probability` and `mood_probability` (None where nothing is likely enough), `instruments` (likeliest first).
    """
    genre, genre_probability = _likeliest(GENRES, tags_probability, LEAST_GENRE)
    mood, mood_probability = _likeliest(MOODS, tags_probability, LEAST_MOOD)
    heard = _families(INSTRUMENTS, instrument_tags)
    return {
        "tags": {**instrument_tags, **tags_probability},
        "genre": genre,
        "genre_probability": genre_probability,
        "mood": mood,
        "mood_probability": mood_probability,
        "instruments": [name for name in sorted(heard, key=lambda name: -heard[name]) if heard[name] >= LEAST_INSTRUMENT],
    }


def mean_tags(tags_probability: np.ndarray, tags: Sequence[str]) -> dict[str, float]:
    """Average of each tag over the patches, shape (patches, tags), by name."""
    return dict(zip(tags, map(float, tags_probability.mean(axis=0)), strict=True))


def _families(families: Mapping[str, tuple[str, ...]], tags: Mapping[str, float]) -> dict[str, float]:
    return {name: max(tags.get(tag, 0.0) for tag in members) for name, members in families.items()}


def _likeliest(
    families: Mapping[str, tuple[str, ...]], tags: Mapping[str, float], least: float
) -> tuple[str | None, float | None]:
    probability = _families(families, tags)
    best = max(probability, key=lambda name: probability[name])
    return (best, probability[best]) if probability[best] >= least else (None, None)
