"""What prompts ask for, in the words that people use."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from keeptake.audio.tonal import PITCH_CLASSES
from keeptake.curation.prompts import Wish, parse_key, parse_prompt


@pytest.mark.parametrize(
    ("text", "tempo_bpm"),
    [
        ("dark trap 140BPM", (140, 140)),
        ("140 bpm", (140, 140)),
        ("lofi, 82.5 bpm, rain", (82.5, 82.5)),
        ("82,5 bpm", (82.5, 82.5)),
        ("house at 120-128 BPM", (120, 128)),
        ("128 – 120 bpm", (120, 128)),
        ("between 90 and 100 bpm", (90, 100)),
        ("90 to 100 beats per minute", (90, 100)),
        ("BPM: 174, liquid dnb", (174, 174)),
        ("bpm=96", (96, 96)),
        ("tempo: 72", (72, 72)),
        ("a tempo of 100", (100, 100)),
        ("♩=120", (120, 120)),
        ("around 75 b.p.m.", (75, 75)),
        ("140-bpm drill", (140, 140)),
        ("140 bpms", (140, 140)),
        ("140 bpm, yes 140BPM", (140, 140)),
        ("tempo: 140 bpm", (140, 140)),
        ("a 90s track", None),
        ("140 seconds long", None),
        ("1999 bpm", None),
        ("8 bpm", None),
        ("808s and 16 bars", None),
        ("120bpmish", None),
        ("mid-tempo 80s synth", None),
        ("up-tempo 1980 disco", None),
        ("", None),
    ],
)
def test_tempo(text, tempo_bpm):
    assert parse_prompt(text).tempo_bpm == tempo_bpm


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("in F# minor", "F# minor"),
        ("in F♯ Minor", "F# minor"),
        ("in F sharp minor", "F# minor"),
        ("E-flat major", "Eb major"),
        ("D♭ major", "C# major"),
        ("Bb minor blues", "Bb minor"),
        ("A# minor", "Bb minor"),
        ("Cb major", "B major"),
        ("in e minor", "E minor"),
        ("in a minor", "A minor"),
        ("dark trap A minor 140bpm", "A minor"),
        ("key: Dm", "D minor"),
        ("in the key of C", "C major"),
        ("in the key of Ab", "Ab major"),
        ("key of C#m", "C# minor"),
        ("Key: G", "G major"),
        ("trap beat, F#m, 140", "F# minor"),
        ("Am, 90 bpm", "A minor"),
        ("Gmin house", "G minor"),
        ("G maj", "G major"),
        ("D-minor", "D minor"),
        ("F# minor (yes, Gb minor)", "F# minor"),
        ("trap, c minor, 140", "C minor"),
        ("dark f#m drill", "F# minor"),
        ("bb minor blues", "Bb minor"),
        ("eb major", "Eb major"),
        ("a b-minor guitar loop", "B minor"),
        ("ebm, dark industrial", None),
        ("a minor, 90 bpm", None),
        ("in a minor key", None),
        ("in a major way", None),
        ("A minor detail", None),
        ("A minor", "A minor"),
        ("A minor, dark", "A minor"),
        ("a major hit", None),
        ("I am in love", None),
        ("vitamin B, plan C", None),
        ("Be minor", None),
        ("major key energy", None),
        ("4 min song", None),
        ("song of 3 min in Berlin", None),
        ("Dm me", "D minor"),
        ("", None),
    ],
)
def test_key(text, key):
    assert parse_prompt(text).key == key


@pytest.mark.parametrize(
    ("text", "has_vocals"),
    [
        ("no vocals", False),
        ("instrumental", False),
        ("Instrumental only, dreamy", False),
        ("without any vocals", False),
        ("without vocals or lyrics", False),
        ("no singing", False),
        ("no lead vocals", False),
        ("no drums or vocals", False),
        ("no drums, bass or vocals", False),
        ("no vocals, no lyrics, no rap", False),
        ("vocal-free", False),
        ("voiceless", False),
        ("non-vocal", False),
        ("don't add vocals", False),
        ("vocals: none", False),
        ("vocals = off", False),
        ("ohne vocals", False),
        ("instrumental: no", True),
        ("vocals: female", True),
        ("instrumental intro, then vocals", True),
        ("a long instrumental break", None),
        ("instrumental, no vocals, no voice", False),
        ("with a singer", True),
        ("with female vocals", True),
        ("with sung vocals", True),
        ("male singer, guitar", True),
        ("gospel choir", True),
        ("a cappella", True),
        ("acapella", True),
        ("she sings about rain", True),
        ("not instrumental", True),
        ("no drums, female vocals", True),
        ("no guitar but a singer", True),
        ("dark trap 140 bpm", None),
        ("vocal chops and pads", None),
        ("chopped vocals", None),
        ("trap beat", None),
        ("rapid arpeggios, invoice, chorus pedal", None),
        ("instruments: piano", None),
        ("", None),
    ],
)
def test_vocals(text, has_vocals):
    assert parse_prompt(text).has_vocals is has_vocals


@pytest.mark.parametrize(
    ("text", "conflict"),
    [
        ("140 bpm, then 90 bpm", "tempo"),
        ("starts in C major, ends in A minor", "key"),
        ("instrumental with a singer", "vocals"),
    ],
)
def test_a_wish_that_contradicts_itself_is_named_and_not_guessed(text, conflict):
    wish = parse_prompt(text)
    assert wish.conflicts == (conflict,)
    assert (wish.tempo_bpm, wish.key, wish.has_vocals) == (None, None, None)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("F# minor", "F# minor"),
        ("f#m", "F# minor"),
        ("FM", "F major"),
        ("Fm", "F minor"),
        ("bb", "Bb major"),
        ("b", "B major"),
        ("Bm", "B minor"),
        ("E-flat minor", "Eb minor"),
        ("A_min", "A minor"),
        ("c:maj", "C major"),
        ("H-moll", None),
        ("", None),
        ("in C", None),
        ("C mixolydian", None),
    ],
)
def test_key_parameter(text, key):
    assert parse_key(text) == key


WORDS = st.sampled_from(["dark", "trap", "warm pads", "loopable", "for studying", "808s", "at night"])


@settings(deadline=None)  # the clock of a busy machine proves nothing
@given(
    WORDS,
    WORDS,
    st.integers(40, 250),
    st.sampled_from(["{}bpm", "{} BPM", "bpm: {}", "{} beats per minute"]),
    st.sampled_from(PITCH_CLASSES),
    st.sampled_from(["minor", "major"]),
    st.sampled_from([("no vocals", False), ("with a singer", True), ("", None)]),
)
def test_what_is_put_into_a_prompt_comes_out(before, after, bpm, form, tonic, mode, voice):
    text = f"{before}, {form.format(bpm)} in {tonic} {mode} {voice[0]}, {after}"
    assert parse_prompt(text) == Wish((bpm, bpm), f"{tonic} {mode}", voice[1], ())


@settings(deadline=None)  # the clock of a busy machine proves nothing
@given(st.text(max_size=300))
@example("in " * 100)
@example("no " + "drums and " * 500)
@example("9" * 4000)
def test_any_text_is_read_without_failing(text):
    wish = parse_prompt(text)
    assert wish.key is None or wish.key.split()[0] in PITCH_CLASSES
    assert wish.tempo_bpm is None or 30 <= wish.tempo_bpm[0] <= wish.tempo_bpm[1] <= 300


@settings(deadline=None)  # the clock of a busy machine proves nothing
@given(st.text(max_size=40))
def test_any_key_parameter_is_read_without_failing(text):
    key = parse_key(text)
    assert key is None or key.split()[0] in PITCH_CLASSES
