"""Who plays when there is no provider? A small beat maker that renders demo takes from prompts.

Conventions: tempo in beats per minute, keys as "A minor", four beats a bar and four steps a beat; a take is rendered from its own
seed alone, so that the same plan gives byte-identical files. Siblings are takes of one prompt with different seeds.

Belongs here: styles, the plan of a demo, its files and its `generations.jsonl`. Does not: the sound of a note (`instruments.py`),
hearing any of it.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from keeptake import instruments
from keeptake.instruments import SAMPLE_RATE_HZ

NOTES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
STEPS_A_BAR = 16
TAKE_S = 21  # to the nearest two bars
FORMATS = ("wav", "flac", "mp3", "flac", "wav", "flac", "wav", "flac")  # MP3 costs 15 times FLAC; OGG draws a random serial
DEFECTS = ("clipped", "off-tempo", "truncated", "silent", "html", "antiphase", "unasked-voice", "too-loud-offset")
DEFECT_EVERY = 7  # of the takes, so that a demo of 60 shows each of the eight once
FEWEST_FOR_A_COPY = 20  # takes: a smaller demo is for a test, whose takes all differ
FIRST_CAPTURE = datetime(2026, 1, 5, 9, tzinfo=UTC)
MODELS = {"suno": "sonic-v5", "udio": "udio-1.5", "musicgen": "facebook/musicgen-medium"}

Note = Callable[[float, float], np.ndarray]


@dataclass(frozen=True)
class Style:
    """How a genre is played: patterns of 16 steps ("x" a hit, "o" an open one)."""

    tempo_bpm: tuple[int, int]
    kick: str
    snare: str
    hat: str
    bass: str
    chords: Note
    bass_sound: Note
    has_clap: bool = False
    swing: float = 0.0  # share of a step by which every second one comes late


_FOUR, _BACK, _EIGHTHS = "x...x...x...x...", "....x.......x...", "x.x.x.x.x.x.x.x."
STYLES = {
    "trap": Style(
        tempo_bpm=(130, 150),
        kick="x.....x...x.....",
        snare="........x.......",
        hat="x.x.x.xxx.x.x.xx",
        bass="x.....x...x.....",
        chords=instruments.pluck,
        bass_sound=instruments.sub_bass,
        has_clap=True,
    ),
    "house": Style(
        tempo_bpm=(118, 128),
        kick=_FOUR,
        snare=_BACK,
        hat="x.o.x.o.x.o.x.o.",
        bass=_EIGHTHS,
        chords=instruments.pad,
        bass_sound=instruments.reese_bass,
        has_clap=True,
    ),
    "techno": Style(
        tempo_bpm=(128, 138),
        kick=_FOUR,
        snare=_BACK,
        hat="x.o.x.o.x.o.x.o.",
        bass="x.xxx.xxx.xxx.xx",
        chords=instruments.pluck,
        bass_sound=instruments.reese_bass,
        has_clap=True,
    ),
    "lofi": Style(
        tempo_bpm=(72, 92),
        kick="x......x..x.....",
        snare=_BACK,
        hat=_EIGHTHS,
        bass="x.......x.....x.",
        chords=instruments.electric_piano,
        bass_sound=instruments.sub_bass,
        swing=0.3,
    ),
    "boom bap": Style(
        tempo_bpm=(84, 98),
        kick="x..x......x.....",
        snare=_BACK,
        hat=_EIGHTHS,
        bass="x..x......x.....",
        chords=instruments.electric_piano,
        bass_sound=instruments.sub_bass,
        swing=0.2,
    ),
    "synthwave": Style(
        tempo_bpm=(96, 116),
        kick=_FOUR,
        snare=_BACK,
        hat=_EIGHTHS,
        bass=_EIGHTHS,
        chords=instruments.pad,
        bass_sound=instruments.reese_bass,
    ),
    "drum and bass": Style(
        tempo_bpm=(168, 176),
        kick="x.........x.....",
        snare=_BACK,
        hat=_EIGHTHS,
        bass="x.....x...x.....",
        chords=instruments.pad,
        bass_sound=instruments.reese_bass,
    ),
    "disco": Style(
        tempo_bpm=(110, 122),
        kick=_FOUR,
        snare=_BACK,
        hat="x.o.x.o.x.o.x.o.",
        bass="x.xxx.x.x.xxx.x.",
        chords=instruments.electric_piano,
        bass_sound=instruments.reese_bass,
        has_clap=True,
    ),
    "pop": Style(
        tempo_bpm=(100, 124),
        kick="x...x..xx...x...",
        snare=_BACK,
        hat="x.x.x.x.x.x.x.o.",
        bass=_FOUR,
        chords=instruments.electric_piano,
        bass_sound=instruments.reese_bass,
    ),
}
MOODS = ("dark", "warm", "dreamy", "uplifting", "melancholic", "chill")


@dataclass(frozen=True)
class Take:
    """A take to render, with the truth about it: what was asked stands in `prompt`, `asked_bpm` and `key`."""

    number: int
    prompt: str
    genre: str
    mood: str
    asked_bpm: int
    tempo_bpm: float
    key: str
    has_voice: bool
    bars: int
    seed: int
    format: str
    provider: str
    user: str
    defect: str | None
    feedback: Mapping[str, Any] | None

    @property
    def generation_id(self) -> str:
        """Identifier in the manifest."""
        return f"demo_{self.number:04d}_{self.seed:08x}"

    @property
    def duration_s(self) -> float:
        """Whole bars, in seconds."""
        return self.bars * 4 * 60 / self.tempo_bpm

    @property
    def file_name(self) -> str:
        """Name of the audio file beside the manifest."""
        return f"{self.generation_id}.{self.format}"


def make_demo(folder: Path, *, count: int = 60, seed: int = 1) -> Path:
    """Render takes into a folder, with the `generations.jsonl` of a provider beside them.

    The manifest is written last and moved into place, so that a watcher never sees takes whose audio is still being written.

    Parameters
    ----------
    folder : Path
        Made if it is missing; files of an earlier demo with the same seed are written anew, identically.
    count : int
        Number of takes (> 0).
    seed : int
        Of everything that is drawn.

    Returns
    -------
    Path
        The manifest.
    """
    folder.mkdir(parents=True, exist_ok=True)
    takes = plan_demo(count, seed=seed)
    for take in takes:
        write_audio(take, folder)
    manifest, aside = folder / "generations.jsonl", folder / "generations.jsonl.part"
    aside.write_text("".join(json.dumps(record_of(take)) + "\n" for take in takes))
    return aside.replace(manifest)


def plan_demo(count: int, *, seed: int) -> list[Take]:
    """Decide on the takes of a demo, the defective ones and the siblings among them; the last of many is an earlier one again.

    Raises
    ------
    ValueError
        If `count` is not positive.
    """
    if count < 1:
        raise ValueError(f"a demo has at least one take, got {count}")
    rng = np.random.default_rng(seed)
    takes: list[Take] = []
    genres = list(STYLES)
    for index in range(count):  # more prompts than takes: siblings share one
        genre = genres[index % len(genres)]
        for sibling in range((1, 2, 1, 3)[index % 4]):
            if len(takes) == count:
                return [*takes[:-1], _again(takes)] if count >= FEWEST_FOR_A_COPY else takes
            if sibling == 0:
                asked = _ask(genre, rng)
            takes.append(_take(asked, len(takes), rng))
    return takes


def _again(takes: list[Take]) -> Take:
    """In place of the last take: the first sound one in a lossless format, delivered once more as an MP3."""
    first = next(take for take in takes if take.defect is None and take.format != "mp3")
    return replace(first, number=takes[-1].number, user=takes[-1].user, feedback=takes[-1].feedback, format="mp3")


def _ask(genre: str, rng: np.random.Generator) -> Take:
    """Invent a prompt: a take without a seed of its own yet."""
    tempo_bpm = int(rng.integers(*STYLES[genre].tempo_bpm, endpoint=True))
    scale = "minor" if rng.random() < 0.6 else "major"
    key, mood, has_voice = f"{rng.choice(NOTES)} {scale}", str(rng.choice(MOODS)), bool(rng.random() < 0.35)
    provider = str(rng.choice(list(MODELS)))
    singing = "with a singer" if has_voice else "no vocals"
    return Take(
        number=0,
        prompt=f"{mood} {genre} beat {tempo_bpm} bpm in {key}, {singing}",
        genre=genre,
        mood=mood,
        asked_bpm=tempo_bpm,
        tempo_bpm=tempo_bpm,
        key=key,
        has_voice=has_voice,
        bars=2 * round(TAKE_S / (8 * 60 / tempo_bpm)),
        seed=0,
        format="wav",
        provider=provider,
        user="",
        defect=None,
        feedback=None,
    )


def _take(asked: Take, number: int, rng: np.random.Generator) -> Take:
    defect = DEFECTS[number // DEFECT_EVERY % len(DEFECTS)] if number % DEFECT_EVERY == DEFECT_EVERY - 2 else None
    user = f"user{int(rng.zipf(1.6)) % 12 + 1}"
    take = replace(
        asked, number=number, seed=int(rng.integers(2**32)), format=FORMATS[number % len(FORMATS)], user=user, defect=defect
    )
    if defect == "off-tempo":
        take = replace(take, tempo_bpm=round(asked.asked_bpm * 1.22))
    if defect == "unasked-voice":
        take = replace(take, has_voice=True, prompt=asked.prompt.replace("with a singer", "no vocals"))
    if defect == "truncated":
        take = replace(take, format="flac")  # a cut MP3 is a shorter MP3
    if defect == "html":
        take = replace(take, format="mp3")
    return replace(take, feedback=_feedback(rng, is_weak=defect is not None))


def _feedback(rng: np.random.Generator, *, is_weak: bool) -> dict[str, Any] | None:
    drawn = rng.random()
    if drawn < 0.25:
        return None
    if is_weak:
        return {"liked": False, "rating": int(rng.integers(1, 3)), "used": False}
    if drawn < 0.75:
        return {"liked": True, "rating": int(rng.integers(4, 6)), "used": True, "feedback": "this one stays"}
    return {"liked": bool(drawn < 0.9), "rating": int(rng.integers(2, 5))}


def record_of(take: Take) -> dict[str, Any]:
    """Write the record that a provider's backend would send for a take."""
    asks_for_voice = "with a singer" in take.prompt
    return {
        "userId": take.user,
        "generationId": take.generation_id,
        "userPrompt": take.prompt,
        "aiEnhancedPrompt": f"{take.mood}, {take.genre}, {take.asked_bpm} BPM, {take.key} - {take.prompt}",
        "generationParams": {
            "genre": take.genre,
            "bpm": take.asked_bpm,
            "key": take.key,
            "mood": take.mood,
            "duration": round(take.duration_s),
            "model": MODELS[take.provider],
            "provider": take.provider,
            "instrumental": not asks_for_voice,
        },
        "audioUrl": take.file_name,
        "duration": round(take.duration_s, 3),
        "format": take.format,
        "provider": take.provider,
        "modelUsed": MODELS[take.provider],
        "createdAt": (FIRST_CAPTURE + timedelta(minutes=7 * take.number)).isoformat().replace("+00:00", "Z"),
        "userFeedback": take.feedback,
    }


def write_audio(take: Take, folder: Path) -> Path:
    """Render a take into its file, with its defect."""
    path = folder / take.file_name
    if take.defect == "html":
        path.write_text("<!doctype html><title>403</title><h1>This link has expired</h1>\n" * 20)
        return path
    soundfile.write(path, render(take).T, SAMPLE_RATE_HZ, format=take.format.upper())
    if take.defect == "truncated":
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) * 2 // 5])
    return path


def render(take: Take) -> np.ndarray:
    """Play a take.

    Returns
    -------
    np.ndarray [shape=(2, n), float32]
        Stereo samples at `SAMPLE_RATE_HZ`, peak 0.9 unless its defect says otherwise.
    """
    rng = np.random.default_rng(take.seed)
    mix = np.zeros((2, round(take.duration_s * SAMPLE_RATE_HZ)))
    if take.defect != "silent":
        for at_s, sound, gain, pan in (*_drums(take, rng), *_harmony(take, rng), *_lead(take, rng)):
            _place(mix, sound, at_s, gain, pan)
        mix *= 0.9 / np.abs(mix).max()
    if take.defect == "clipped":
        mix = np.clip(6 * mix, -1, 1)
    elif take.defect == "antiphase":
        mix[1] = -mix[0]
    elif take.defect == "too-loud-offset":
        mix = np.clip(0.7 * mix + 0.25, -1, 1)
    return mix.astype(np.float32)


Played = tuple[float, np.ndarray, float, float]  # when in seconds, sound, gain, pan from -1 to 1


def _drums(take: Take, rng: np.random.Generator) -> Iterator[Played]:
    style, kick = STYLES[take.genre], instruments.kick()
    snare = instruments.clap(rng) if style.has_clap else instruments.snare(rng)
    closed, opened = instruments.hat(rng, 0.05), instruments.hat(rng, 0.22)
    for bar in range(take.bars):
        is_fill = bar % 4 == 3
        for step in range(STEPS_A_BAR):
            at_s, force = _step_s(take, bar, step), 0.85 + 0.15 * rng.random()
            if style.kick[step] == "x":
                yield at_s, kick, 0.9 * force, 0.0
            if style.snare[step] == "x" or (is_fill and step in (14, 15)):
                yield at_s, snare, 0.6 * force, 0.05
            if style.hat[step] in "xo":
                yield at_s, opened if style.hat[step] == "o" else closed, 0.22 * force, 0.3


def _harmony(take: Take, rng: np.random.Generator) -> Iterator[Played]:
    style, bar_s, beats_s = STYLES[take.genre], 240 / take.tempo_bpm, 60 / take.tempo_bpm
    chords = [(degree, [_pitch(take.key, degree + third, 57) for third in (0, 2, 4)]) for degree in _progression(take)]
    length_s = bar_s if style.chords is instruments.pad else 2 * beats_s
    stabs_s = [0.0] if style.chords is instruments.pad else [0.0, 2 * beats_s]
    sounds = {pitch: style.chords(pitch, length_s) for _, pitches in chords for pitch in pitches}
    basses = {degree: style.bass_sound(_pitch(take.key, degree, 33), 1.6 * beats_s / 2) for degree, _ in chords}
    for bar in range(take.bars):
        degree, pitches = chords[bar % len(chords)]
        for stab_s in stabs_s:
            for voice, pitch in enumerate(pitches):
                yield bar * bar_s + stab_s, sounds[pitch], 0.2, (voice - 1) * 0.4
        for step in range(STEPS_A_BAR):
            if style.bass[step] == "x":
                yield _step_s(take, bar, step), basses[degree], 0.42 * (0.9 + 0.1 * rng.random()), 0.0


def _lead(take: Take, rng: np.random.Generator) -> Iterator[Played]:
    """Play a tune of chord tones, sung where the take has a voice, and again until the end."""
    beat_s, degrees = 60 / take.tempo_bpm, _progression(take)
    tune: list[tuple[float, np.ndarray]] = []
    for bar, chord in enumerate(degrees):
        beat = 0.0
        while beat < (4.0 if take.has_voice else 3.0):
            length = float(rng.choice([1.0, 1.5, 2.0] if take.has_voice else [0.5, 1.0, 1.5]))
            length = min(length, 4 - beat)
            pitch = _pitch(take.key, chord + int(rng.choice([0, 2, 4])), 60 if take.has_voice else 69)
            if take.has_voice:
                vowel = str(rng.choice(list(instruments.VOWELS)))
                tune.append((4.0 * bar + beat, instruments.voice(pitch, 0.95 * length * beat_s, vowel, rng)))
            elif rng.random() < 0.7:
                tune.append((4.0 * bar + beat, instruments.pluck(pitch, length * beat_s)))
            beat += length
    for first_bar in range(0 if take.has_voice else 4, take.bars, len(degrees)):
        for beat, sound in tune:
            yield (4 * first_bar + beat) * beat_s, sound, 0.5 if take.has_voice else 0.2, 0.0 if take.has_voice else -0.3


def _progression(take: Take) -> tuple[int, ...]:
    """Draw eight bars of chords that return to the tonic and end on the dominant.

    From the seed, not from the style: takes of one style that shared their chords were copies of each other to a fingerprint of
    harmony, siblings with other drums included.
    """
    rng = np.random.default_rng([take.seed, len(take.key)])
    others = (2, 3, 4, 5) if take.key.endswith("minor") else (1, 3, 4, 5)  # far from the keys next door
    drawn = [int(degree) for degree in rng.choice(others, 4)]
    return (0, drawn[0], 0, drawn[1], 0, drawn[2], drawn[3], 4)


def _pitch(key: str, degree: int, lowest: int) -> int:
    """MIDI pitch of a scale degree, the tonic being the first at or above `lowest`."""
    tonic, scale = key.split()
    octave, step = divmod(degree, 7)
    first = lowest + (NOTES.index(tonic) - lowest) % 12
    return first + 12 * octave + SCALES[scale][step]


def _step_s(take: Take, bar: int, step: int) -> float:
    late = STYLES[take.genre].swing if step % 2 else 0.0
    return (STEPS_A_BAR * bar + step + late) * 60 / take.tempo_bpm / 4


def _place(mix: np.ndarray, sound: np.ndarray, at_s: float, gain: float, pan: float) -> None:
    start = round(at_s * SAMPLE_RATE_HZ)
    heard = sound[: max(0, mix.shape[1] - start)]
    mix[0, start : start + heard.size] += gain * (1 - 0.5 * pan) * heard
    mix[1, start : start + heard.size] += gain * (1 + 0.5 * pan) * heard
