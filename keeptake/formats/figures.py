"""Pictures of a dataset, as PNG: for its card and for the graph's UI.

Conventions: each function takes plain sequences (None where a value is unknown) and returns PNG bytes; matplotlib is imported
when the first picture is drawn, draws without a display, and writes equal bytes for equal values. One colour means takes, one
accent means what was left out; labels name quantity and unit, bars carry their counts.

Belongs here: drawing. Does not: what is counted (the callers'), pictures of single takes (`keeptake/audio/plot.py`).
"""

import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from keeptake.audio.thumbnail import with_palette

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Number = float | int | None

INK, GRID, TAKES, ACCENT, QUIET = "#1f2933", "#d9dee4", "#2a7f9e", "#d9653b", "#a8b4bf"
SPLIT_COLOURS = {"train": TAKES, "valid": "#e0a93b", "test": ACCENT}
DPI = 130
PALETTE = 64  # colours of a picture, anti-aliased letters among them: a third of the bytes of all colours
MOST_BARS = 12
MOST_LETTERS = 32  # of a row's name
LETTERS_AN_INCH = 7  # of a title, which begins beside the rows' names
FIFTHS = ("C", "G", "D", "A", "E", "B", "F#", "Db", "Ab", "Eb", "Bb", "F")
_ENHARMONIC = {"C#": "Db", "D#": "Eb", "Gb": "F#", "G#": "Ab", "A#": "Bb", "Cb": "B", "E#": "F", "Fb": "E", "B#": "C"}


def binned(scores: Sequence[Number], bins: int = 20) -> list[int]:
    """Count scores in equal bins of [0, 1]."""
    return [int(count) for count in np.histogram(_known(scores), bins=bins, range=(0.0, 1.0))[0]]


def score_bars(counts: Sequence[int], *, threshold: float | None = None, kept: Sequence[int] | None = None) -> bytes:
    """Draw a histogram of scores that was counted before."""

    def draw(axes: "Axes") -> None:
        edges = np.arange(len(counts)) / len(counts)
        width = 1 / len(counts)
        front = kept if kept is not None else counts
        if kept is not None:
            axes.bar(edges, counts, width, align="edge", color=QUIET, label="all scored takes", edgecolor="white", linewidth=0.6)
        label = "in the dataset" if kept is not None else None
        axes.bar(edges, front, width, align="edge", color=TAKES, label=label, edgecolor="white", linewidth=0.6)
        if threshold is not None:
            axes.axvline(threshold, color=ACCENT, linewidth=1.6, label=f"asked: {threshold:g}")
        axes.set(xlim=(0, 1), xlabel="quality score", ylabel="takes")
        if kept is not None or threshold is not None:
            axes.legend(frameon=False, fontsize=8)

    return _picture(draw, title="Quality score")


def tempo_histogram(tempi_bpm: Sequence[Number]) -> bytes:
    """Draw how the tempi of takes are distributed."""

    def draw(axes: "Axes") -> None:
        axes.hist(_known(tempi_bpm), bins=list(range(40, 224, 4)), color=TAKES, edgecolor="white", linewidth=0.6)
        axes.set(xlim=(40, 220), xlabel="tempo (BPM)", ylabel="takes")

    unknown = len(tempi_bpm) - _known(tempi_bpm).size
    return _picture(draw, title=_title("Tempo of takes", {"unknown": unknown}))


def duration_histogram(durations_s: Sequence[Number]) -> bytes:
    """Draw how long clips are."""

    def draw(axes: "Axes") -> None:
        known = _known(durations_s)
        top = max(30.0, float(known.max(initial=0.0)))
        axes.hist(known, bins=np.linspace(0, top, 31).tolist(), color=TAKES, edgecolor="white", linewidth=0.6)
        axes.set(xlim=(0, top), xlabel="duration (s)", ylabel="clips")

    hours = float(_known(durations_s).sum()) / 3600
    return _picture(
        draw, title=f"Duration: {hours:.1f} hours in all" if hours >= 1 else f"Duration: {hours * 60:.0f} minutes in all"
    )


def adherence_histogram(adherence: Sequence[Number]) -> bytes:
    """Draw how far takes follow their prompts."""

    def draw(axes: "Axes") -> None:
        axes.hist(_known(adherence), bins=np.linspace(0, 1, 21).tolist(), color=TAKES, edgecolor="white", linewidth=0.6)
        axes.set(xlim=(0, 1), xlabel="agreement of prompt and audio", ylabel="takes")

    unknown = len(adherence) - _known(adherence).size
    return _picture(draw, title=_title("Prompt adherence of takes", {"that could not be judged": unknown}))


def category_bars(counts: Mapping[str, int], *, title: str, colour: str = TAKES) -> bytes:
    """Draw counts by name, the commonest on top, what is rare added up."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = ranked[:MOST_BARS] + ([("others", sum(count for _, count in ranked[MOST_BARS:]))] if len(ranked) > MOST_BARS else [])

    def draw(axes: "Axes") -> None:
        values = [count for _, count in shown]
        bars = axes.barh(range(len(shown)), values, color=colour, height=0.72)
        _name_rows(axes, range(len(shown)), [name for name, _ in shown])
        axes.bar_label(bars, [f"{value:,}" for value in values], padding=4, color=INK, fontsize=8)
        axes.invert_yaxis()
        axes.margins(x=0.14)
        axes.grid(False)
        axes.tick_params(length=0)
        axes.xaxis.set_visible(False)
        axes.spines["bottom"].set_visible(False)

    return _picture(draw, title=title, height_in=max(1.6, 0.6 + 0.3 * len(shown)))


def provider_bars(providers: Sequence[str]) -> bytes:
    """Draw takes by provider."""
    return category_bars(Counter(providers), title="Takes by provider")


def left_out_bars(reasons: Mapping[str, int]) -> bytes:
    """Draw what was left out, by the first rule that failed."""
    return category_bars(reasons, title="Takes left out, by the first rule that failed", colour=ACCENT)


def split_bar(clips: Mapping[str, int], asked: Mapping[str, float]) -> bytes:
    """Draw the splits as one bar of shares, below the one that was asked for.

    Parameters
    ----------
    clips : mapping of split to int
    asked : mapping of split to float, in [0, 1]
    """

    def draw(axes: "Axes") -> None:
        whole, start, start_asked = max(1, sum(clips.values())), 0.0, 0.0
        for split, colour in SPLIT_COLOURS.items():
            count, wanted = clips.get(split, 0), asked.get(split, 0.0)
            label = f"{split}: {count:,} ({count / whole:.0%}, asked {wanted:.0%})"
            axes.barh(0, count / whole, left=start, color=colour, height=0.5, label=label)
            axes.barh(-0.42, wanted, left=start_asked, color=colour, height=0.14, alpha=0.5)
            start, start_asked = start + count / whole, start_asked + wanted
        axes.set(xlim=(0, 1), ylim=(-0.5, 0.9))
        axes.legend(frameon=False, ncols=3, loc="upper left", fontsize=8, borderaxespad=0, handlelength=1, columnspacing=1.5)
        axes.axis("off")

    return _picture(draw, title="Clips by split, above what was asked for", height_in=1.6)


def genre_by_tempo(genres: Sequence[str | None], tempi_bpm: Sequence[Number]) -> bytes:
    """Draw how many clips there are of each genre at each tempo; the title counts those that are not in the picture."""
    known = [(genre or "unknown", tempo) for genre, tempo in zip(genres, tempi_bpm, strict=True) if tempo is not None]
    names = [name for name, _ in sorted(Counter(name for name, _ in known).items(), key=lambda item: (-item[1], item[0]))]
    names, rarer = names[:MOST_BARS], names[MOST_BARS:]
    left = {
        "without a tempo": len(genres) - len(known),
        f"of {len(rarer):,} rarer genres": sum(name in rarer for name, _ in known),
    }
    edges = np.arange(50, 211, 10)
    counts = np.zeros((max(1, len(names)), len(edges) - 1))
    for name, tempo in known:
        if name in names:
            counts[names.index(name), int(np.clip((tempo - edges[0]) // 10, 0, counts.shape[1] - 1))] += 1

    def draw(axes: "Axes") -> None:
        axes.pcolormesh(edges, np.arange(len(counts) + 1), counts, cmap="YlGnBu", edgecolors="white", linewidth=1.2)
        for (at, column), count in np.ndenumerate(counts):
            if count:
                dark = count > 0.6 * counts.max()
                axes.text(
                    float(edges[column] + 5),
                    at + 0.5,
                    f"{count:.0f}",
                    ha="center",
                    va="center",
                    fontsize=7,
                    color="white" if dark else INK,
                )
        _name_rows(axes, np.arange(len(names)) + 0.5, names)
        axes.set_xticks(edges[::2])
        axes.invert_yaxis()
        axes.grid(False)
        axes.tick_params(length=0)
        axes.set_xlabel("tempo (BPM)")

    return _picture(draw, title=_title("Clips by genre × tempo", left), height_in=max(1.8, 1.0 + 0.3 * len(counts)))


def asked_against_heard(
    asked_bpm: Sequence[Number], heard_bpm: Sequence[Number], verdicts: Sequence[str], *, of: int | None = None
) -> bytes:
    """Draw the tempo that was asked for against the tempo that is heard, with the lines of as asked, half and double.

    Parameters
    ----------
    asked_bpm, heard_bpm : sequences of float or None
    verdicts : sequence of str
        `exact`, `half`, `double` or `wrong`; the two octaves share a colour.
    of : int, optional
        Takes that there are in all, where not all are given.
    """
    kinds = {"exact": (TAKES, ["exact"]), "half or double": ("#e0a93b", ["half", "double"]), "wrong": (ACCENT, ["wrong"])}
    points = [
        (asked, heard, verdict)
        for asked, heard, verdict in zip(asked_bpm, heard_bpm, verdicts, strict=True)
        if asked is not None and heard is not None
    ]

    def draw(axes: "Axes") -> None:
        most = max([200.0, *(float(value) for asked, heard, _ in points for value in (asked, heard))])
        for factor, name in ((0.5, "half"), (1.0, "as asked"), (2.0, "double")):
            axes.plot([0, most], [0, most * factor], color=GRID, linewidth=1, zorder=1)
            at = 0.86 * most / max(1.0, factor)  # above the line there is room to the left
            axes.annotate(
                name, (at, at * factor), (-3, 1), textcoords="offset points", ha="right", fontsize=7, color=INK, alpha=0.7
            )
        for kind, (colour, said) in kinds.items():
            of = [(asked, heard) for asked, heard, verdict in points if verdict in said]
            label = f"{kind} ({len(of)})"
            axes.scatter(
                [asked for asked, _ in of],
                [heard for _, heard in of],
                s=18,
                color=colour,
                alpha=0.6,
                linewidth=0,
                label=label,
                zorder=2,
            )
        axes.set(xlim=(0, 1.03 * most), ylim=(0, 1.03 * most))
        axes.set_xlabel("asked (BPM)", color=INK, fontsize=8)
        axes.set_ylabel("heard (BPM)", color=INK, fontsize=8)
        axes.legend(fontsize=8, frameon=False, loc="upper left")

    cut = f" ({len(points):,} of {of:,} takes)" if of is not None and of > len(points) else ""
    return _picture(draw, title=f"Tempo asked against heard{cut}", width_in=4.6, height_in=4.4)


def key_wheel(keys: Sequence[str | None]) -> bytes:
    """Draw the keys of takes round the circle of fifths: major outside, the relative minor inside."""
    counts: Counter[tuple[str, bool]] = Counter()
    for key in keys:
        if key:
            tonic, _, mode = key.partition(" ")
            tonic = tonic[:1].upper() + tonic[1:].replace("♯", "#").replace("♭", "b")
            counts[_ENHARMONIC.get(tonic, tonic), mode.lower().startswith("min")] += 1

    def draw(axes: "Axes") -> None:
        most = max([1, *counts.values()])
        angles = np.arange(12) * np.pi / 6
        axes.set_theta_zero_location("N")  # type: ignore[attr-defined]  # a polar axes, which the stubs do not tell apart
        axes.set_theta_direction(-1)  # type: ignore[attr-defined]
        for place, tonic in enumerate(FIFTHS):
            relative = FIFTHS[(place + 3) % 12]
            for minor, name, base in ((False, tonic, 1.15), (True, relative, 0.35)):
                count = counts[name, minor]
                shade = 0.12 + 0.88 * count / most if count else 0.0
                axes.bar(angles[place], 0.75, 0.5, bottom=base, color=ACCENT if minor else TAKES, alpha=shade, edgecolor="none")
                axes.bar(angles[place], 0.75, 0.5, bottom=base, fill=False, edgecolor=GRID, linewidth=0.8)
                bright = "white" if shade > 0.7 else INK
                text = f"{name}{'m' if minor else ''}\n{count}" if count else f"{name}{'m' if minor else ''}"
                axes.text(angles[place], base + 0.38, text, ha="center", va="center", fontsize=7.5, color=bright)
        axes.set_ylim(0, 1.95)
        axes.axis("off")

    unknown = sum(1 for key in keys if not key)
    return _picture(draw, title=_title("Key of takes", {"unknown": unknown}), width_in=4.6, height_in=4.8, polar=True)


def _title(title: str, left: Mapping[str, int]) -> str:
    """Write a title that counts what is not in the picture, by why."""
    said = ", ".join(f"{count:,} {why}" for why, count in left.items() if count)
    return f"{title} ({said})" if said else title


def _name_rows(axes: "Axes", places: Sequence[float] | np.ndarray, names: Sequence[str]) -> None:
    """Write names that strangers chose: cut, or no room is left for the picture, and with dollar signs that begin no formula."""
    cut = [name if len(name) <= MOST_LETTERS else name[: MOST_LETTERS - 1] + "…" for name in names]
    axes.set_yticks(places, cut, parse_math=False)


def _known(values: Sequence[Number]) -> np.ndarray:
    return np.array([value for value in values if value is not None and np.isfinite(value)], dtype=float)


def _picture(
    draw: Callable[["Axes"], None], *, title: str, width_in: float = 6.4, height_in: float = 3.0, polar: bool = False
) -> bytes:
    """Make a figure without pyplot, which keeps state and a display, and return it as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes: Any = figure.add_subplot(projection="polar" if polar else None)
    place, said = "center" if polar else "left", fill(title, round(LETTERS_AN_INCH * width_in))
    axes.set_title(said, loc=place, color=INK, fontsize=11, fontweight="bold", pad=10)
    if not polar:
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color(QUIET)
        axes.grid(axis="y", color=GRID, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.tick_params(colors=INK, labelsize=8, length=0)
        axes.yaxis.get_major_locator().set_params(integer=True)
    draw(axes)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", metadata={"Software": None})
    return with_palette(drawn.getvalue(), PALETTE)
