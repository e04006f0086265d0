"""What of a text may leave? Personal data out of published text, users behind keyed pseudonyms.

Conventions: what is taken out leaves a mark in angle brackets, so that a reader sees that something was there, and is counted by
kind. The patterns prefer to take too much: a prompt without a number is still a prompt. Belongs here: text and names that are
published. Does not: who may be published at all (consent is a rule of `select.py`).

References
----------
.. [1] RFC 5321 and 5322 (addresses), ITU-T E.164 (at most 15 digits of a telephone number).
"""

import hashlib
import hmac
import re
from collections import Counter
from typing import Any
from urllib.parse import urlsplit, urlunsplit

SCRUB_VERSION = "1"
# None tries a run of letters again from its middle: a legal prompt of "a.a.a" took five seconds, and a take may hold a hundred.
_URL_WITH_USER = re.compile(r"\b[a-z][a-z0-9+.-]{0,30}://[^\s/@]+@[^\s]+", re.IGNORECASE)
_EMAIL = re.compile(r"(?<![\w.!#$%&'*+/=?^`{|}~-])[\w.!#$%&'*+/=?^`{|}~-]++@[\w-]+(?:\.[\w-]+)+", re.UNICODE)
_SPELLED_EMAIL = re.compile(
    r"(?<![\w.+-])[\w.+-]++\s*[\[(]\s*at\s*[\])]\s*[\w-]+(?:\s*(?:[\[(]\s*dot\s*[\])]|\.)\s*[\w-]+)+", re.IGNORECASE
)
# With a prefix (+, 0 or a bracket) eight digits in any grouping; without one nine in a row, or the North American 3-3-4: prompts
# hold lists of tempi and spans of years, which look like telephone numbers otherwise.
_PHONE = re.compile(r"(?<![\w.])(?:(?:\+\s?|0|\(\+?)\d(?:[\s().\-/]{0,2}\d){6,14}|\d{9,15}|\d{3}[\s.\-]\d{3}[\s.\-]\d{4})(?!\w)")
_KINDS = (("url", _URL_WITH_USER), ("email", _EMAIL), ("email", _SPELLED_EMAIL), ("phone", _PHONE))


def scrub(text: str, found: Counter[str] | None = None) -> str:
    """Take e-mail addresses, telephone numbers and URLs with user names out of a text.

    Parameters
    ----------
    text : str
        Anything that a user wrote.
    found : Counter, optional
        Counts what was taken out, by kind.

    >>> scrub("call +49 170 1234567 for a 140 bpm beat")
    'call <phone> for a 140 bpm beat'
    """
    for kind, pattern in _KINDS:
        text, times = pattern.subn(f"<{kind}>", text)
        if times and found is not None:
            found[kind] += times
    return text


def scrub_values(value: Any, found: Counter[str] | None = None) -> Any:  # noqa: ANN401 -- any JSON value in, the same out
    """Scrub every text inside a JSON value, names of fields included."""
    if isinstance(value, str):
        return scrub(value, found)
    if isinstance(value, list):
        return [scrub_values(inner, found) for inner in value]
    if isinstance(value, dict):
        return {scrub(name, found): scrub_values(inner, found) for name, inner in value.items()}
    return value


def pseudonym(user_id: str, key: str) -> str:
    """Name a user by a keyed hash: equal for equal users of one installation, and nobody without the key can go back."""
    return hmac.new(key.encode(), user_id.encode(), hashlib.sha256).hexdigest()[:16]


def bare_url(url: str) -> str:
    """Address of a file without its user, query and fragment, which may carry a signature or a name.

    >>> bare_url("https://me:secret@cdn.example.com/a.mp3?sig=1#t")
    'https://cdn.example.com/a.mp3'
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
