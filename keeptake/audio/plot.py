"""What does an analysis look like? One picture: waveform with sections and beats, mel spectrogram, chroma, tempo.

Conventions: arrays and parts in, PNG bytes out; time in seconds runs along the one axis that all panels share. Drawn with
matplotlib's figure objects: no pyplot, no global state, safe in any worker.

Belongs here: the picture of one take. Does not: charts over many takes (`formats/figures.py`), where a picture is kept.
"""

import io
from collections.abc import Mapping
from textwrap import fill
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from keeptake.audio.analyze import Part
from keeptake.audio.frontend import LONG_HOP, SAMPLE_RATE_HZ, SHORT_HOP, Frontend
from keeptake.audio.thumbnail import DYNAMIC_RANGE_DB, QUIETEST_TOP_DB, mean_rows, with_palette
from keeptake.audio.tonal import PITCH_CLASSES, tonality

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Size(NamedTuple):
    """How large a picture is drawn."""

    width_in: float
    height_in: float
    dpi: int
    columns: int  # of the spectra: about as many as pixels across, or fewer to spare bytes
    every_note: int  # of the chroma's twelve is named: small letters would lie on each other
    colours: int | None  # of the palette; None: all


LARGE = Size(width_in=14, height_in=8.4, dpi=120, columns=1600, every_note=1, colours=None)
SMALL = Size(
    width_in=9.5, height_in=6.6, dpi=76, columns=220, every_note=2, colours=40
)  # for an event log, which keeps it for ever
LETTERS_AN_INCH, NO_BREAK = 10, "\u00a0"
MOST_BEATS_DRAWN = 400
TEMPO_SMOOTHING_BEATS = 5
SECTION_COLOURS = ("#4c78a8", "#f58518", "#54a24b", "#b279a2", "#e45756", "#72b7b2", "#eeca3b", "#9d755d")
MEL_TICKS_HZ = (128, 512, 2048, 8192)
INK, WAVE, BEAT, VOICE = "#222222", "#8a8f98", "#222222", "#d62755"


def picture(heard: Frontend, parts: Mapping[str, Part], *, title: str, size: Size = LARGE) -> bytes:
    """Draw one take.

    Parameters
    ----------
    heard : Frontend
        Of the take; silence and very short ones are drawn too.
    parts : mapping of Part
        Its analysis; what is null or missing is left out of the picture.
    title : str
        Printed above, on the left.
    size : Size
        `LARGE`, or `SMALL`: that one takes at most 40 KB, whatever is heard.

    Returns
    -------
    bytes
        A PNG of 1,680 by 1,008 pixels, or of 722 by 501.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(size.width_in, size.height_in), dpi=size.dpi, facecolor="white", layout="constrained")
    waveform, mel, chroma, tempo = figure.subplots(4, 1, sharex=True, height_ratios=[1.5, 2.2, 1.4, 1.0])
    values = {name: part.values for name, part in parts.items()}
    _draw_waveform(waveform, heard, values, size.columns)
    _draw_mel(mel, heard, size.columns)
    _draw_chroma(chroma, heard, values.get("tonal", {}), size)
    _draw_tempo(tempo, values.get("rhythm", {}))
    tempo.set_xlim(0, max(heard.duration_s, SHORT_HOP / SAMPLE_RATE_HZ))
    tempo.set_xlabel("time (s)")
    for panel in (waveform, mel, chroma, tempo):
        panel.tick_params(labelsize=8, colors=INK)
        panel.spines[["top", "right"]].set_visible(False)
    figure.align_ylabels()
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold", color=INK, parse_math=False)
    waveform.set_title(fill(_summary(values), round(LETTERS_AN_INCH * size.width_in)), loc="left", fontsize=10, color=INK, pad=14)
    image = io.BytesIO()
    figure.savefig(image, format="png")
    return image.getvalue() if size.colours is None else with_palette(image.getvalue(), size.colours)


def _draw_waveform(axes: "Axes", heard: Frontend, values: Mapping[str, Mapping[str, Any]], columns: int) -> None:
    low, high, times_s = _envelope(heard.mono, columns)
    top = max(float(np.abs(heard.mono).max(initial=0)), 1e-3) * 1.05
    colours: dict[str, str] = {}
    for section in values.get("structure", {}).get("sections") or []:
        label = str(section["label"])
        colour = colours.setdefault(label, SECTION_COLOURS[len(colours) % len(SECTION_COLOURS)])
        axes.axvspan(section["start_s"], section["end_s"], color=colour, alpha=0.22, linewidth=0)
        axes.axvline(section["start_s"], color=colour, linewidth=1.2)
        middle_s = (section["start_s"] + section["end_s"]) / 2
        axes.text(middle_s, 1.01, label, transform=axes.get_xaxis_transform(), ha="center", va="bottom", fontsize=9, color=colour)
    axes.fill_between(times_s, low, high, color=WAVE, linewidth=0, zorder=2)
    rhythm = values.get("rhythm", {})
    downbeats_s = np.asarray(rhythm.get("downbeats_s") or [])
    beats_s = np.asarray(rhythm.get("beats_s") or [])
    if beats_s.size > MOST_BEATS_DRAWN:  # they would be one black bar
        beats_s = downbeats_s = beats_s[:0]
    axes.vlines(beats_s, -top, -0.82 * top, color=BEAT, linewidth=0.7, zorder=3)
    axes.vlines(downbeats_s, -top, -0.62 * top, color=BEAT, linewidth=1.3, zorder=3)
    for start_s, end_s in values.get("vocals", {}).get("vocal_segments_s") or []:
        axes.hlines(0.94 * top, start_s, end_s, color=VOICE, linewidth=4, zorder=3)
    axes.set_ylim(-top, top)
    axes.set_ylabel("waveform")


def _draw_mel(axes: "Axes", heard: Frontend, columns: int) -> None:
    power = mean_rows(heard.mel, min(columns, len(heard.mel)))
    decibels = 10 * np.log10(np.maximum(power, 1e-10))
    highest = max(float(decibels.max()), QUIETEST_TOP_DB)
    axes.imshow(
        decibels.T,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        cmap="magma",
        vmin=highest - DYNAMIC_RANGE_DB,
        vmax=highest,
        extent=(0, max(heard.duration_s, SHORT_HOP / SAMPLE_RATE_HZ), 0, power.shape[1]),
    )
    from librosa import hz_to_mel

    at = hz_to_mel(np.array(MEL_TICKS_HZ)) / hz_to_mel(SAMPLE_RATE_HZ / 2) * power.shape[1]
    axes.set_yticks(at, [f"{hz:,} Hz" for hz in MEL_TICKS_HZ])
    axes.set_ylabel("mel spectrogram")


def _draw_chroma(axes: "Axes", heard: Frontend, tonal: Mapping[str, Any], size: Size) -> None:
    _, _, chroma = tonality(heard.long, duration_s=heard.duration_s)
    axes.imshow(
        mean_rows(chroma, min(size.columns, len(chroma))).T,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        cmap="magma",
        vmin=0,
        vmax=1,
        extent=(-0.5 * LONG_HOP / SAMPLE_RATE_HZ, (len(chroma) - 0.5) * LONG_HOP / SAMPLE_RATE_HZ, -0.5, 11.5),
    )
    axes.set_yticks(range(0, 12, size.every_note), PITCH_CLASSES[:: size.every_note], fontsize=7)
    tonic = str(tonal.get("key", "")).split(" ")[0]
    for label in axes.get_yticklabels():
        label.set_fontweight("bold" if label.get_text() == tonic else "normal")
    axes.set_ylabel("chroma")


def _draw_tempo(axes: "Axes", rhythm: Mapping[str, Any]) -> None:
    axes.set_ylabel("tempo\n(BPM)")
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    beats_s = np.asarray(rhythm.get("beats_s") or [], dtype=float)
    if beats_s.size < 3:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "nothing periodic", transform=axes.transAxes, ha="center", va="center", color=WAVE)
        return
    local_bpm = 60 / _running_median(np.diff(beats_s), TEMPO_SMOOTHING_BEATS)
    axes.step(beats_s[1:], local_bpm, where="mid", color="#4c78a8", linewidth=1.4)
    tempo_bpm = float(rhythm["tempo_bpm"])
    axes.axhline(tempo_bpm, color=VOICE, linewidth=0.9, linestyle=(0, (4, 3)))
    reach_bpm = max(0.06 * tempo_bpm, 1.15 * float(np.abs(local_bpm - tempo_bpm).max()))
    axes.set_ylim(tempo_bpm - reach_bpm, tempo_bpm + reach_bpm)


def _summary(values: Mapping[str, Mapping[str, Any]]) -> str:
    """The findings in a line, those that there are."""
    rhythm, tonal, loudness, vocals = (values.get(name, {}) for name in ("rhythm", "tonal", "loudness", "vocals"))
    said = []
    if "tempo_bpm" in rhythm:
        bar = f", {rhythm['beats_per_bar']} in a bar" if rhythm.get("beats_per_bar") else ""
        said.append(f"{rhythm['tempo_bpm']:.2f} BPM{bar}")
    if "key" in tonal:
        said.append(str(tonal["key"]))
    if "loudness_lufs" in loudness:
        said.append(f"{loudness['loudness_lufs']:.1f} LUFS")
    if "vocals_probability" in vocals:
        said.append(f"vocals {vocals['vocals_probability']:.0%}")
    if values.get("style", {}).get("genre"):
        said.append(str(values["style"]["genre"]))
    if values.get("structure", {}).get("is_loop"):
        said.append(f"loop of {values['structure']['loop_bars']} bars")
    said += [
        flag.removeprefix("has_").removeprefix("is_").replace("_", " ")
        for flag, on in values.get("defects", {}).items()
        if on is True
    ]
    return "  ·  ".join(finding.replace(" ", NO_BREAK) for finding in said)


def _envelope(mono: np.ndarray, columns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lowest and highest sample of each column, and the columns' times in seconds."""
    step = max(1, mono.size // columns)
    whole = mono[: mono.size // step * step].reshape(-1, step)
    if whole.size == 0:
        return np.zeros(1), np.zeros(1), np.zeros(1)
    return whole.min(axis=1), whole.max(axis=1), (np.arange(len(whole)) + 0.5) * step / SAMPLE_RATE_HZ


def _running_median(values: np.ndarray, length: int) -> np.ndarray:
    padded = np.pad(values, length // 2, mode="edge")
    medians: np.ndarray = np.median(np.lib.stride_tricks.sliding_window_view(padded, length), axis=1)
    return medians
