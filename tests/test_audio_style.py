"""Genre, mood and instruments from tags."""

import numpy as np

from keeptake.audio.style import GENRES, INSTRUMENTS, MOODS, mean_tags, style
from keeptake.embedding.musicnn import TAGS


def test_every_tag_of_the_mapping_is_one_of_the_taggers():
    known = set(TAGS["MSD"])
    assert {tag for tags in (*GENRES.values(), *MOODS.values()) for tag in tags} <= known
    assert {tag for tags in INSTRUMENTS.values() for tag in tags} <= set(TAGS["MTT"])


def test_the_likeliest_tag_names_the_family():
    heard = style({"Hip-Hop": 0.5, "rock": 0.3, "chill": 0.2}, instrument_tags={"synth": 0.6, "beats": 0.4, "harp": 0.1})
    assert (heard["genre"], heard["genre_probability"]) == ("hip-hop", 0.5)
    assert (heard["mood"], heard["mood_probability"]) == ("calm", 0.2)
    assert heard["instruments"] == ["synthesizer", "drums"]
    assert heard["tags"]["Hip-Hop"] == 0.5


def test_nothing_likely_is_null():
    heard = style({"rock": 0.1, "happy": 0.05}, instrument_tags={"synth": 0.1})
    assert (heard["genre"], heard["genre_probability"], heard["mood"], heard["instruments"]) == (None, None, None, [])


def test_mean_over_patches():
    assert mean_tags(np.array([[0.0, 1.0], [0.5, 0.5]]), ("a", "b")) == {"a": 0.25, "b": 0.75}
