"""What does an analysis say? The typed record of every part: its values, their ranges and what each one means.

Conventions: a part's values are plain JSON as the part's own module makes them, and these types describe them; a value that is
never null does not allow it. Units are in the names. The data dictionary is written from here, and tests hold analyses against
it. Nothing is checked while hearing: a share of 1.0000001 must not lose a take. To read a stored part, or get its JSON Schema::

    Rhythm.model_validate_json(result), Rhythm.model_json_schema()

Belongs here: names, ranges and meanings. Does not: how anything is measured (the part's own module says that, with its source).
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0)]
Hertz = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]


class Values(BaseModel):
    """What a part says, and nothing else."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Span(Values):
    """A piece of the take with a name."""

    start_s: Seconds
    end_s: Seconds
    label: str


class Copy(Values):
    """A piece that was pasted again."""

    start_s: Seconds
    end_s: Seconds
    lag_s: Seconds


class Rhythm(Values):
    """Null for what has no pulse."""

    tempo_bpm: float = Field(gt=0, description="slope of the line through the beats")
    tempo_candidates_bpm: list[tuple[float, Share]] = Field(description="tempo and its probability, likeliest first")
    tempo_confidence: Share = Field(description="probability of the tempo")
    rhythm_confidence: Share = Field(description="pulse clarity")
    tempo_stability: Share = Field(description="how near the beats lie to their line")
    beats_s: list[Seconds] = Field(description="times of the beats")
    beats_per_bar: int | None = Field(description="3 or 4; null without evidence")
    downbeats_s: list[Seconds] = Field(description="first beats of bars; empty without evidence")
    swing_ratio: float | None = Field(gt=0, description="long eighth over short eighth; null without evidence")
    onset_rate_hz: Hertz = Field(description="onsets a second")
    has_tempo_change: bool = Field(description="more than one tempo")
    danceability: float | None = Field(ge=0, le=3, description="inverse of the level's scaling exponent")


class Tonal(Values):
    """Null for what has no key: noise, drums, a single pitch."""

    key: str = Field(description="as 'A minor', 'F# minor', 'Eb major'")
    camelot: str = Field(description="the key's code on the Camelot wheel, 1A to 12B")
    key_confidence: Share = Field(description="margin over the second key")
    key_second: str = Field(description="next likeliest key")
    key_correlation: float = Field(ge=-1, le=1, description="with the key's profile")
    tuning_cents: float = Field(ge=-50, le=50, description="against A4 = 440 Hz")
    tuning_coherence: Share = Field(description="how far the peaks agree on the tuning")
    chroma: list[Share] = Field(min_length=12, max_length=12, description="weight of C, C#, ... B, the strongest 1")
    chords: list[Span] = Field(description="triads over time, 'A:min', 'F#:maj', 'N' for none")


class Spectrum(Values):
    """Means over the frames that sound."""

    spectral_centroid_hz: Hertz = Field(description="centre of gravity of the magnitudes")
    spectral_bandwidth_hz: Hertz = Field(description="deviation around the centroid")
    spectral_rolloff_hz: Hertz = Field(description="85 % of the magnitude lies below")
    spectral_flatness: Share = Field(description="1 for white noise, towards 0 for tones")
    zero_crossing_rate: Share = Field(description="changes of sign a sample")
    mfcc_mean: list[float] = Field(min_length=20, max_length=20, description="mel cepstrum")
    mfcc_deviation: list[float] = Field(min_length=20, max_length=20, description="its standard deviation over time")
    rms_energy: float | None = Field(ge=0, description="mean root mean square of a frame, full scale 1; null below a frame")
    low_energy_share: Share | None = Field(description="share of frames below that mean")
    bandwidth_limit_hz: Hertz | None = Field(description="where a codec or a model cut the top, else half the rate")
    hum_hz: float | None = Field(description="50 or 60, null without mains hum")
    hum_level_dbfs: float | None = Field(description="level of the hum")
    has_hum: bool = Field(description="hum at -70 dBFS or more")


class Loudness(Values):
    """ITU-R BS.1770 and EBU R128."""

    loudness_lufs: float = Field(description="integrated")
    loudness_range_lu: float | None = Field(ge=0, description="null below 3 s")
    loudness_max_short_term_lufs: float | None = Field(description="loudest 3 s; null below")
    true_peak_dbtp: float | None = Field(description="of the oversampled signal")
    sample_peak_dbfs: float | None = Field(description="of the samples")
    crest_factor_db: float | None = Field(description="sample peak over root mean square")
    plr_lu: float | None = Field(description="true peak minus loudness")
    dynamic_range: Share | None = Field(description="for the score: 0 at a peak-to-loudness ratio of 6 LU, 1 from 18 LU on")


class Defects(Values):
    """Facts about the file; what disqualifies a take is for a dataset's policy to say."""

    duration_s: Seconds = Field(description="as decoded")
    clipping_share: Share = Field(description="of the samples")
    no_clipping: Share = Field(description="for the score: 1 unclipped, 0 from 1 % of the samples on")
    silence_share: Share = Field(description="of windows of 50 ms that peak below -60 dBFS")
    dc_offset: float = Field(description="mean of the worst channel")
    stereo_correlation: float | None = Field(ge=-1, le=1, description="of the first two channels; null for mono")
    channel_difference_db: float | None = Field(description="level of the first channel over the second")
    start_level_db: float | None = Field(description="of the first 2 ms against the whole")
    end_level_db: float | None = Field(description="of the last 50 ms against the whole")
    click_count: Count = Field(description="clicks")
    clicks_per_min: float = Field(ge=0, description="clicks a minute")
    dropout_count: Count = Field(description="gaps within sound")
    has_clipping: bool = Field(description="one sample in a thousand or more")
    is_silent: bool = Field(description="95 % of it or more")
    has_dc_offset: bool = Field(description="0.01 of full scale or more")
    is_antiphase: bool = Field(description="channels correlate by less than -0.5")
    is_one_sided: bool = Field(description="channels differ by 30 dB or more")
    has_abrupt_start: bool = Field(description="begins at more than -12 dB of its level")
    has_abrupt_end: bool = Field(description="is cut off at more than -12 dB of its level")
    has_clicks: bool = Field(description="two clicks or more, and more than two a minute")
    has_dropouts: bool = Field(description="any dropout")


class Vocals(Values):
    """Null without the networks."""

    vocals_probability: Share = Field(description="that somebody sings, raps or speaks")
    has_vocals: bool = Field(description="a probability of one half or more")
    vocal_segments_s: list[tuple[Seconds, Seconds]] = Field(description="starts and ends; empty without vocals")
    vocal_share: Share = Field(description="of the duration")
    voiced_low_hz: Hertz | None = Field(description="percentile 5 of the voice's pitch; null with too little of it")
    voiced_median_hz: Hertz | None = Field(description="its median")
    voiced_high_hz: Hertz | None = Field(description="its percentile 95")
    voiced_s: Seconds = Field(description="time with a voice's pitch")


class Style(Values):
    """Null without the networks."""

    tags: dict[str, Share] = Field(description="probability of each tag of both taggers")
    genre: str | None = Field(description="null where none is likely enough")
    genre_probability: Share | None = Field(description="of its tags, the likeliest")
    mood: str | None = Field(description="null where none is likely enough")
    mood_probability: Share | None = Field(description="of its tags, the likeliest")
    instruments: list[str] = Field(description="likeliest first")


class Structure(Values):
    """Form of the take."""

    sections: list[Span] = Field(description="from start to end; the same letter where a section returns")
    is_loop: bool | None = Field(description="plays round; null without a pulse")
    loop_bars: int | None = Field(ge=1, description="length of the loop")
    seam_score: Share | None = Field(description="how well the end meets the beginning; null without a pulse")
    copied_spans: list[Copy] = Field(description="what equals, sample for sample, what sounded `lag_s` before it")
    copied_share: Share = Field(description="of the duration in such spans")


RECORDS: dict[str, type[Values]] = {
    "rhythm": Rhythm,
    "tonal": Tonal,
    "spectrum": Spectrum,
    "loudness": Loudness,
    "defects": Defects,
    "vocals": Vocals,
    "style": Style,
    "structure": Structure,
}
