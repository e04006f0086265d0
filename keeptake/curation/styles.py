"""People's words for genres and moods, as families of the music taggers' tags.

Conventions: families are those of `audio/style.py`; a word may mean several ("synthpop": electronic or pop), and one that no tag
of ours stands for means none: "orchestral" is then not judged rather than called wrong. Belongs here: the vocabulary. Does not:
what was heard, verdicts (`adherence.py`).
"""

import re
from collections.abc import Iterable, Mapping

GENRE_WORDS: Mapping[str, tuple[str, ...]] = {
    "ambient": ("ambient", "drone", "downtempo", "chillout", "new age", "meditation", "soundscape", "lofi ambient"),
    "blues": ("blues", "bluesy"),
    "country": ("country", "americana", "bluegrass", "honky tonk"),
    "dance": (
        *("dance", "house", "disco", "techno", "trance", "edm", "eurodance", "garage", "club", "reggaeton", "hardstyle", "rave"),
        *("afrobeat", "afrobeats", "amapiano"),
    ),
    "electronic": (
        *(
            "electronic",
            "electronica",
            "electro",
            "edm",
            "techno",
            "house",
            "trance",
            "dubstep",
            "dnb",
            "drum and bass",
            "jungle",
        ),
        *(
            "drum & bass",
            "synthwave",
            "synthpop",
            "synth pop",
            "vaporwave",
            "idm",
            "glitch",
            "breakbeat",
            "chiptune",
            "lofi",
            "lo fi",
        ),
        *("trap", "phonk", "future bass", "hardstyle", "loop"),
    ),
    "folk": ("folk", "acoustic", "singer songwriter", "celtic", "bluegrass", "campfire"),
    "funk": ("funk", "funky", "disco"),
    "hip-hop": (
        *("hip hop", "hiphop", "rap", "trap", "drill", "boom bap", "boombap", "phonk", "grime", "lofi", "lo fi", "chillhop"),
        "reggaeton",
    ),
    "indie": ("indie", "alternative", "shoegaze", "dream pop", "emo"),
    "jazz": ("jazz", "jazzy", "swing", "bebop", "bossa nova", "big band"),
    "metal": ("metal", "metalcore", "djent", "deathcore", "thrash"),
    "pop": ("pop", "synthpop", "synth pop", "k pop", "kpop", "j pop", "dance pop", "easy listening", "ballad"),
    "punk": ("punk", "hardcore punk", "ska"),
    "rnb": ("rnb", "r b", "r n b", "rhythm and blues", "neo soul", "new jack swing"),
    "rock": ("rock", "grunge", "hard rock", "garage rock", "surf"),
    "soul": ("soul", "motown", "gospel", "neo soul"),
}
MOOD_WORDS: Mapping[str, tuple[str, ...]] = {
    "calm": (
        "calm",
        "chill",
        "chilled",
        "relaxed",
        "relaxing",
        "mellow",
        "peaceful",
        "soothing",
        "dreamy",
        "gentle",
        "serene",
        "soft",
    ),
    "happy": ("happy", "joyful", "cheerful", "uplifting", "upbeat", "playful", "bright", "sunny"),
    "party": ("party", "energetic", "euphoric", "festive", "hype", "danceable"),
    "sad": ("sad", "melancholic", "melancholy", "somber", "sorrowful", "heartbroken", "gloomy", "bittersweet"),
    "sentimental": ("sentimental", "romantic", "beautiful", "emotional", "nostalgic", "tender", "heartfelt"),
}

# Which families listeners' tags mix up with each other.
_NEIGHBOURS = (
    *(("electronic", "dance"), ("electronic", "ambient"), ("electronic", "pop"), ("electronic", "hip-hop"), ("dance", "pop")),
    *(("rock", "metal"), ("rock", "punk"), ("rock", "indie"), ("rock", "blues"), ("indie", "pop"), ("indie", "folk")),
    *(
        ("folk", "country"),
        ("soul", "rnb"),
        ("soul", "funk"),
        ("rnb", "hip-hop"),
        ("jazz", "blues"),
        ("jazz", "soul"),
        ("funk", "dance"),
    ),
)


def genres_of(text: str) -> list[str]:
    """Families that a genre's words mean.

    >>> genres_of("dark Trap / soul"), genres_of("orchestral")
    (['electronic', 'hip-hop', 'soul'], [])
    """
    return _meant(text, GENRE_WORDS)


def moods_of(text: str) -> list[str]:
    """Families that a mood's words mean.

    >>> moods_of("melancholic"), moods_of("aggressive")
    (['sad'], [])
    """
    return _meant(text, MOOD_WORDS)


def related_to(genres: Iterable[str]) -> list[str]:
    """Families next to these.

    >>> related_to(["metal"])
    ['rock']
    """
    given = set(genres)
    return sorted({other for pair in _NEIGHBOURS for one, other in (pair, pair[::-1]) if one in given} - given)


def _meant(text: str, families: Mapping[str, tuple[str, ...]]) -> list[str]:
    words = f" {re.sub(r'[^a-z0-9&]+', ' ', text.lower()).strip()} "
    return sorted(family for family, spoken in families.items() if any(f" {word} " in words for word in spoken))
