"""What did a person ask for? Tempo, key and vocals, read from the words of a prompt.

Conventions: tempo as a range in beats per minute, a single number being a range of no width; keys spelled as `audio/tonal.py`
spells them ("F# minor", "Eb major"); vocals True, False, or None where nothing is said. A wish that contradicts itself is no
wish: it is reported as a conflict and never guessed. Words are English, as the prompts of the providers are.

Belongs here: words to wishes. Does not: parameters, and whether a wish was granted (`adherence.py`).
"""

import re
from dataclasses import dataclass
from typing import Literal

from keeptake.audio.tonal import PITCH_CLASSES

TEMPO_RANGE_BPM = (30.0, 300.0)  # what a person means by a tempo: "8 bpm" and "1000 bpm" are typing errors or jokes
MAX_PROMPT = 4_000  # characters that are read: longer prompts are lyrics by then

_NATURAL = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_SIGN = {"#": 1, "♯": 1, "sharp": 1, "b": -1, "♭": -1, "flat": -1}
_MODE: dict[str, Literal["major", "minor"]] = {"major": "major", "maj": "major", "minor": "minor", "min": "minor"}

_NUMBER = r"(?<![\d.,])(\d{2,3}(?:[.,]\d{1,3})?)(?![.,]?\d)"
_RANGE = rf"{_NUMBER}(?:\s*(?:-|–|—|to|and)\s*{_NUMBER})?"
_BPM = r"(?:b\.?p\.?m(?:s\b|\b\.?)|beats?\s+(?:per|a|/)\s*min(?:ute)?s?\b)"
_TEMPO = (
    re.compile(rf"{_RANGE}\s*-?\s*{_BPM}", re.IGNORECASE),
    re.compile(
        rf"(?:\b{_BPM}|\btempo(?:\s+of)?|[♩♪]|\bquarter(?:\s+note)?)\s*(?:[:=~@]|is|at|around|about)*\s*{_RANGE}(?![A-Za-z])",
        re.IGNORECASE,
    ),
)

# The letter is upper case unless "in" or "key" announces it or whole words follow.
# An "a" that more words follow is an article: "in a minor way".
_SIGNED = r"\s*-?\s*(♯|♭|#|sharp\b|flat\b)"
_TONIC = rf"(?:{_SIGNED}|(b)(?=\s|m|-|$))?"
_KEY = (
    re.compile(
        rf"\b(?:in|key(?:\s+of|\s+signature)?)\s*[:=]?\s*(?:the\s+key\s+of\s+)?([A-G]){_TONIC}"
        r"\s*-?\s*(?:(major|minor|maj|min)\b|(m)(?![A-Za-z]))",
        re.IGNORECASE,
    ),
    re.compile(rf"(?<![A-Za-z#♯♭'’])([A-G]){_TONIC}\s*-?\s*(?:((?i:major|minor|maj|min))\b|(m)(?![A-Za-z]))"),
    # Lower case where it can be nothing else: "a minor" is an article before a word, "am" a verb, "ebm" a genre.
    re.compile(
        r"(?<![A-Za-z#♯♭'’])([b-g])(?:\s*-?\s*(♯|#|sharp\b|flat\b)|(b))?\s*-?\s*(?:(major|minor)\b|((?<=[#♯])m)(?![A-Za-z]))"
    ),
)
_MORE_WORDS = re.compile(r"\s+(?!(?:at|with|and|no|in|bpm|tempo|around|beat|track|instrumental|loop)\b)[A-Za-z]")
_WITHOUT_MODE = re.compile(rf"\b[Kk]ey(?:\s+of|\s*[:=])\s*([A-G])(?:{_SIGNED}|(b)(?![A-Za-z]))?(?![A-Za-z#♯♭])")

_VOICE = (
    r"(?:vocals?|vox|singers?|singing|sung|sings?|voices?|vocalists?|vocali[sz]ations?|lyrics?|rapping|rappers?|raps|choirs?|choral|"
    r"chorus\s+vocals|a\s?-?cappella|acapella|crooning|crooners?|duets?|verses\s+sung)"
)
_KIND = r"(?:(?:any|a|an|the|lead|backing|male|female|human|sung|main|spoken|rap|real|more|kind\s+of|sort\s+of|additional)\s+)*"
_LIST = r"(?:(?:[a-z]{1,15}\s*,\s*){0,4}[a-z]{1,15}\s*,?\s*n?or\s+)?"  # no drums, bass or vocals
_DENIED = r"[:=]\s*(?:none|no|off|false|0)\b"
_NO_VOICE = re.compile(
    r"\b(?:no|not?\s+any|without|minus|non|zero|never|lacks?|lacking|free\s+of|devoid\s+of|removed?|exclud(?:e|es|ing)|"
    r"ohne|sans|sin|sem|senza|"  # the words of other languages that stand before the English one
    rf"don'?t\s+(?:add|use|want))\b[\s\-]*{_LIST}{_KIND}{_VOICE}\b(?:\s*(?:,|n?or|and)\s*{_KIND}{_VOICE}\b)*"
    rf"|\b{_VOICE}[\s\-]*(?:free|less|off|removed)\b|\b{_VOICE}\s*{_DENIED}|\binstrumentals?\b",
    re.IGNORECASE,
)
_NOT_INSTRUMENTAL = re.compile(
    rf"\b(?:not|non|isn'?t|no)[\s\-]+(?:an?\s+)?instrumentals?\b|\binstrumentals?\s*{_DENIED}", re.IGNORECASE
)
_INSTRUMENTAL_PART = re.compile(
    r"\binstrumental\s+(?:breaks?|breakdowns?|intros?|outros?|interludes?|sections?|parts?|passages?|bridges?|hooks?|solos?|drops?)\b",
    re.IGNORECASE,
)
# A chopped or sampled voice, a vocoder's or a "vocal-like" lead may sound like one or not: neither wish is read from it.
_PERHAPS_VOICE = re.compile(
    rf"\b{_VOICE}[\s\-]*(?:chops?|chopped|samples?|cuts?|stabs?|like|fx|pads?|synths?|synth\s+pads?|textures?)\b"
    rf"|\b(?:chopped(?:\s+up)?|sampled|pitched|vocoded|vocoder|synth(?:esi[sz]ed)?)[\s\-]+{_VOICE}\b",
    re.IGNORECASE,
)
_SOME_VOICE = re.compile(rf"\b{_VOICE}\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Wish:
    """What the words of a prompt ask for; a wish that contradicts itself is named in `conflicts` and is None."""

    tempo_bpm: tuple[float, float] | None = None
    key: str | None = None
    has_vocals: bool | None = None
    conflicts: tuple[str, ...] = ()


def parse_prompt(text: str) -> Wish:
    """Read tempo, key and vocals from a prompt.

    Parameters
    ----------
    text : str
        As typed; what lies behind `MAX_PROMPT` characters is not read.

    Returns
    -------
    Wish

    Examples
    --------
    >>> parse_prompt("dark trap 140BPM in F# minor, no vocals")
    Wish(tempo_bpm=(140.0, 140.0), key='F# minor', has_vocals=False, conflicts=())
    >>> parse_prompt("slow ballad with a singer").has_vocals
    True
    """
    text = text[:MAX_PROMPT]
    tempi, keys, voices = _tempi(text), _keys(text), _voices(text)
    conflicts = tuple(name for name, found in (("tempo", tempi), ("key", keys), ("vocals", voices)) if len(found) > 1)
    return Wish(
        tempo_bpm=tempi.pop() if len(tempi) == 1 else None,
        key=keys.pop() if len(keys) == 1 else None,
        has_vocals=voices.pop() if len(voices) == 1 else None,
        conflicts=conflicts,
    )


def parse_key(text: str) -> str | None:
    """Read a parameter that holds a key and nothing else.

    >>> parse_key("F♯m"), parse_key("d flat Major"), parse_key("C"), parse_key("dorian")
    ('F# minor', 'C# major', 'C major', None)
    """
    found = re.fullmatch(rf"\s*([A-Ga-g])(?:{_SIGNED}|(b))?\s*[-_:]?\s*(?:(major|minor|maj|min)\.?|(m))?\s*", text, re.IGNORECASE)
    if found is None or found[5] == "M":
        return _name(found[1], found[2] or found[3], "major") if found else None
    return _name(found[1], found[2] or found[3], found[4] or found[5])


def _tempi(text: str) -> set[tuple[float, float]]:
    tempi = set()
    for pattern in _TEMPO:
        for match in pattern.finditer(text):
            ends = sorted(float(number.replace(",", ".")) for number in (match[1], match[2] or match[1]))
            if TEMPO_RANGE_BPM[0] <= ends[0] and ends[1] <= TEMPO_RANGE_BPM[1]:
                tempi.add((ends[0], ends[1]))
    return tempi


def _keys(text: str) -> set[str]:
    keys = set()
    for pattern in _KEY:
        for match in pattern.finditer(text):
            letter, mode = match[1], match[4] or match[5]
            is_announced = match.start() != match.start(1)
            is_article = letter in "Aa" and match[4] and not match[2] and not match[3] and _MORE_WORDS.match(text, match.end())
            if not (is_article and (letter == "a" or (match.start() == 0 and not is_announced))):
                keys.add(_name(letter, match[2] or match[3], mode))
    if not keys:
        keys = {_name(match[1], match[2] or match[3], "major") for match in _WITHOUT_MODE.finditer(text)}
    return keys


def _name(letter: str, sign: str | None, mode: str | None) -> str:
    pitch_class = (_NATURAL[letter.upper()] + (_SIGN[sign.lower()] if sign else 0)) % 12
    return f"{PITCH_CLASSES[pitch_class]} {'minor' if mode == 'm' else _MODE[(mode or 'major').lower()]}"


def _voices(text: str) -> set[bool]:
    voices = set()
    rest = _INSTRUMENTAL_PART.sub(" ", _PERHAPS_VOICE.sub(" ", text))
    if _NOT_INSTRUMENTAL.search(rest):
        voices.add(True)
        rest = _NOT_INSTRUMENTAL.sub(" ", rest)
    if _NO_VOICE.search(rest):
        voices.add(False)
        rest = _NO_VOICE.sub(" ", rest)
    if _SOME_VOICE.search(rest):
        voices.add(True)
    return voices
