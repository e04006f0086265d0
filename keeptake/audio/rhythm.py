"""What is the rhythm of a clip? The one question that onsets, tempo, beats and meter answer together.

Conventions: `None` with a reason where nothing periodic is heard: no tempo is better than a wrong one.

Belongs here: the order of the steps and what is reported. Does not: any of the steps.

References
----------
.. [1] Lartillot, O., Eerola, T., Toiviainen, P. and Fornari, J. (2008), "Multi-feature modeling of pulse clarity: design,
   validation and optimization", ISMIR: the height of the onset envelope's autocorrelation.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from keeptake.audio import beats, meter, onsets, swing, tempo

Floats = NDArray[np.floating]

MIN_DURATION_S = 3.0
MIN_FLUX = 1.0  # mean of the onset envelope: a held tone stays below 0.3, the quietest music of the dev set at 4
MIN_CLARITY = 0.1  # noise of 3 s reaches 0.06, speech 0.05; the least of 84 files with a known tempo is 0.19
TIGHTNESSES = (beats.TIGHTNESS, 4 * beats.TIGHTNESS, 16 * beats.TIGHTNESS)
MAX_DISAGREEMENT = 0.005  # of beats with the envelope's periodicity: the grid's step and a little more


def rhythm(
    mel: Floats, chroma: Floats, *, frame_rate_hz: float, chroma_rate_hz: float, duration_s: float
) -> tuple[dict[str, Any] | None, str | None]:
    """Hear tempo, beats and bars.

    Parameters
    ----------
    mel : np.ndarray [shape=(frames, 128), float32, >= 0]
        Power mel spectrogram of the mono mix.
    chroma : np.ndarray [shape=(chroma frames, 12), >= 0]
        Chromagram of the same: bars begin where harmony changes.
    frame_rate_hz, chroma_rate_hz, duration_s : float
        Frames a second of either, and the length of the clip.

    Returns
    -------
    values : dict or None
        `tempo_bpm`; `tempo_candidates_bpm`, pairs of tempo and probability, likeliest first; `tempo_confidence`, the probability
        of the reported tempo; `rhythm_confidence`, pulse clarity [1]_ in [0, 1]; `tempo_stability` in [0, 1]; `beats_s`;
        `beats_per_bar` and `downbeats_s` (null and empty without evidence); `swing_ratio` (null likewise);
        `onset_rate_hz`; `has_tempo_change`.
    reason : str or None
        `too-short`, `silent` or `nothing-periodic` where values is None.
    """
    if duration_s < MIN_DURATION_S:
        return None, "too-short"
    if onsets.is_silent(mel):
        return None, "silent"
    flux = onsets.band_flux(mel)
    envelope = flux.sum(axis=1)
    if float(envelope[onsets.LAG_FRAMES :].mean()) < MIN_FLUX:
        return None, "nothing-periodic"
    onset_rate_hz = onsets.onset_times(envelope, frame_rate_hz=frame_rate_hz).size / duration_s
    rhythmic = tempo.detrended(envelope, frame_rate_hz)
    belief = tempo.believe_tempo(rhythmic, frame_rate_hz=frame_rate_hz, onset_rate_hz=onset_rate_hz)
    candidates = tempo.tempo_candidates(belief.probability)
    course = tempo.tempo_course(rhythmic, frame_rate_hz=frame_rate_hz)
    changing = course if course is not None and course.is_change else None
    clarity = belief.clarity_at(candidates[0][0]) if changing is None else changing.clarity
    if clarity < MIN_CLARITY:
        return None, "nothing-periodic"
    if changing is None:
        beats_s, fit = _steady_beats(envelope, candidates[0][0], frame_rate_hz=frame_rate_hz)
    else:
        tempi_bpm = tempo.nearest_octave(changing.tempi_bpm, candidates[0][0])
        period_s = 60 / np.interp(np.arange(envelope.size) / frame_rate_hz, changing.centres_s, tempi_bpm)
        beats_s = beats.track_beats(envelope, period_s, frame_rate_hz=frame_rate_hz)
        fit = tempo.fit_tempo(beats_s, is_steady=False)
        if fit is not None:  # the whole envelope may have believed in another of the tempi, or in one between them
            candidates = tempo.tempo_candidates(belief.probability, first_bpm=fit[0])
    if fit is None:
        return None, "nothing-periodic"
    nudge = (
        fit[0] / candidates[0][0] if abs(fit[0] / candidates[0][0] - 1) < tempo.TOLERANCE else 1.0
    )  # from the grid to the beats
    in_bar, downbeats_s = _bars(mel, flux, chroma, beats_s, frame_rate_hz=frame_rate_hz, chroma_rate_hz=chroma_rate_hz)
    values = {
        "tempo_bpm": fit[0],
        "tempo_candidates_bpm": [[bpm * nudge, weight] for bpm, weight in candidates],
        "tempo_confidence": candidates[0][1],
        "rhythm_confidence": min(clarity, 1.0),
        "tempo_stability": fit[1],
        "beats_s": beats_s.tolist(),
        "beats_per_bar": in_bar,
        "downbeats_s": downbeats_s.tolist(),
        "swing_ratio": swing.swing_ratio(envelope, beats_s, frame_rate_hz=frame_rate_hz),
        "onset_rate_hz": onset_rate_hz,
        "has_tempo_change": changing is not None,
    }
    return values, None


def _steady_beats(envelope: Floats, tempo_bpm: float, *, frame_rate_hz: float) -> tuple[Floats, tuple[float, float] | None]:
    """Beats and their fit, held more tightly to the period until they keep the tempo that the whole envelope has.

    A loose tracker follows syncopated attacks from one beat to an off-beat; each such slip pulls the fitted tempo away.
    """
    period_s = np.full(envelope.size, 60 / tempo_bpm)
    for tightness in TIGHTNESSES:
        beats_s = beats.track_beats(envelope, period_s, frame_rate_hz=frame_rate_hz, tightness=tightness)
        fit = tempo.fit_tempo(beats_s)
        if fit is not None and abs(fit[0] / tempo_bpm - 1) <= MAX_DISAGREEMENT:
            break
    return beats_s, fit


def _bars(
    mel: Floats, flux: Floats, chroma: Floats, beats_s: Floats, *, frame_rate_hz: float, chroma_rate_hz: float
) -> tuple[int | None, Floats]:
    in_bar = meter.beats_per_bar(meter.beat_spectra(meter.beat_levels(mel, beats_s, frame_rate_hz=frame_rate_hz)))
    if in_bar is None:
        return None, np.zeros(0)
    change = meter.harmonic_change(chroma, beats_s, chroma_rate_hz=chroma_rate_hz)
    attack = meter.low_attack(flux, beats_s[:-1], frame_rate_hz=frame_rate_hz)
    return in_bar, beats_s[meter.first_downbeat(change, attack, beats_in_bar=in_bar) :: in_bar]
