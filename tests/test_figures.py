"""What the pictures of a dataset say in words: what they count, and what is not in them."""

import pytest

from keeptake.formats import figures


@pytest.fixture
def title(monkeypatch):
    """The title that a function of `figures` gives to its picture."""
    monkeypatch.setattr(figures, "_picture", lambda draw, *, title, **_: title)
    return lambda function, *values, **more: function(*values, **more)


def test_clips_without_a_tempo_and_of_rarer_genres_are_counted(title):
    """Both were dropped unsaid: a picture of 212 clips showed 187."""
    genres = [f"genre {number:02}" for number in range(14) for _ in range(20 - number)] + [None]
    tempi = [120.0] * (len(genres) - 3) + [None, None, None]
    assert title(figures.genre_by_tempo, genres, tempi) == "Clips by genre × tempo (3 without a tempo, 13 of 2 rarer genres)"
    assert title(figures.genre_by_tempo, ["trap"], [120.0]) == "Clips by genre × tempo"


def test_tempo_and_key_count_what_is_unknown(title):
    """The histogram of tempi hid its unknown ones beside a key wheel that said "(22 unknown)"."""
    assert title(figures.tempo_histogram, [120.0, None, float("nan")]) == "Tempo of takes (2 unknown)"
    assert title(figures.key_wheel, ["A minor", None]) == "Key of takes (1 unknown)"
    assert title(figures.adherence_histogram, [0.5, None]) == "Prompt adherence of takes (1 that could not be judged)"


def test_a_scatter_that_is_cut_says_of_how_many(title):
    points = ([100.0, 90.0], [100.0, None], ["exact", "wrong"])
    assert title(figures.asked_against_heard, *points) == "Tempo asked against heard"
    assert title(figures.asked_against_heard, *points, of=1) == "Tempo asked against heard"
    assert title(figures.asked_against_heard, *points, of=7_000) == "Tempo asked against heard (1 of 7,000 takes)"


def test_the_shares_that_were_asked_for_change_the_bar(monkeypatch):
    clips = {"train": 8, "valid": 25, "test": 2}
    monkeypatch.setattr(figures, "_picture", lambda draw, **_: draw)
    bars = Bars()
    figures.split_bar(clips, {"train": 0.8, "valid": 0.1, "test": 0.1})(bars)
    assert bars.labels == ["train: 8 (23%, asked 80%)", "valid: 25 (71%, asked 10%)", "test: 2 (6%, asked 10%)"]
    assert bars.widths == pytest.approx([8 / 35, 0.8, 25 / 35, 0.1, 2 / 35, 0.1])


class Bars:
    """Axes that note which bars are drawn."""

    def __init__(self):
        self.labels, self.widths = [], []

    def barh(self, y, width, *, label=None, **_):
        self.widths.append(width)
        self.labels += [label] if label else []

    def set(self, **_):
        pass

    legend = set

    def axis(self, _):
        pass
