"""Was a piece pasted again? Spans that repeat earlier ones sample for sample.

Conventions: a copy is a second long at least and equal to what sounded `lag_s` before it, up to gain and lossy coding. Players
never repeat themselves that exactly, and none of 15 takes of a music model did; samplers, loops and what fills up time with
copies do. What a drum machine or a sequencer plays again with the same samples is a copy by construction: the values measure it
and do not say whether it was meant, so that there is no flag. Times in seconds; a span is where the copy lies, not its source.

What is heard is the band from 60 Hz to 2.2 kHz: there lossy coding leaves most, and a lag between two samples still lines up. A
held tone or chord equals itself at every common period, so that only blocks in which the spectrum changes count as proof [1]_.
Not found are copies of held tones alone, copies upside down, copies under something as loud that is not copied (a steady tone, a
voice), and what was stretched or transposed. Copies of 1.5 s stand out of 30 s, of 2 s out of five minutes.

Belongs here: copies within one take. Does not: sections that sound alike (`structure.py`), whether the whole plays round
(`loops.py`), copies of other takes (`fingerprint.py`).

References
----------
.. [1] Fridrich, J., Soukal, D. & Lukáš, J. (2003), "Detection of copy-move forgery in digital images", DFRWS: matching a signal
   with itself, candidates first, proof block by block.
.. [2] Knapp, C. & Carter, G. (1976), "The generalized correlation method for estimation of time delay", IEEE TASSP 24(4):
   even magnitudes make the peak of a lag sharp.
.. [3] Wolff, S., Thomas, J. & Williams, T. (1962), "The polarity-coincidence correlator: a nonparametric detection device", IRE
   Transactions on Information Theory 8(1).
"""

from itertools import pairwise
from typing import Any

import numpy as np
import scipy.fft
import scipy.ndimage
import soxr
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]

RATE_HZ = 4410
BLOCK = 882  # samples, 0.2 s
LEAST_BLOCKS = 5
SHORTEST_LAG_S = 1.0  # below, a repeated hit of a sampler is an instrument, not a paste

LOUDEST = 1e4  # full scale being 1: what is beyond rings through the filters and overflows squares of single precision
SILENT = 1e-5  # root mean square of a block
# Of the level that nine blocks in ten keep below. Quiet blocks fit quiet ones: at 0.01, copies with a rest of 0.4 s in noise of
# -50 dBFS fell apart in 19 takes of 45, at 0.03 in 2.
QUIET_SHARE = 0.03
MOST_PEAK = 20.0  # times that level: what is left of a huge click

LOWEST_HZ = 60.0
WHITENED_HZ = 400.0  # levels are evened out over twice this width: bass would make every lag of some milliseconds fit
# Of the levels. Copies planted in 45 takes: of 4 s after MP3 of 16 kbit/s 44 found, of 2 s in noise of -50 dBFS 44; at 1, where
# what coding and noise add between the notes weighs as much as the notes, 41 and 41.
WHITENING_POWER = 0.7

AROUND_S = 0.05
# Of the agreement at a lag, over its standard deviation around it. Copies planted in 45 takes of 30 s: of 4 s all above 6, of 2 s
# above 4.4, of 1.5 s 42 above 4. Noise reaches 4.2 to 5.7: the proof is up to the blocks.
LEAST_PEAK = 4.0
MOST_LAGS = 24  # with 12, one planted copy of 2 s in 45 was missed

# Of a block with its source. In planted copies one in a hundred falls below 0.79 after MP3 of 16 kbit/s; at the lags of 45 takes
# that hold no copy, five in a row reached 0.63 at most, but in one 0.76.
LEAST_CORRELATION = 0.75
USUAL_CORRELATION = 0.85  # median of the proof of a span: at 0.75 three of those takes had copies
MOST_LOSS = 0.05  # of correlation, for a shorter lag: at 0.1, what returns in every second or fourth bar of a loop went unseen
BRIDGED_CORRELATION = 0.5
MOST_GAP = 2  # blocks between two that fit, bridged if they nearly do: without, 14 loops fell into 47 spans instead of 38
# Cosine of a block's spectrum with its neighbours': chords of two and three held tones 0.90 to 0.98, noise 0.79; in nine takes of
# ten, eight blocks in ten lie below. Without, all of 192 chords of 30 s are copies. What pulses every 0.4 s seems held, too: so
# one planted copy of 4 s in 45 is missed.
MOST_HELD = 0.85
# Of the blocks of a span. At 0.1, 13 of those chords are copies, such as tones 1 % apart, that beat; here none, but 4 of 12 s.
LEAST_PROOF_SHARE = 0.25
HANN = np.hanning(2 * BLOCK).astype(np.float32)


def copies(mono: Floats, *, sample_rate_hz: int) -> dict[str, Any]:
    """Find spans that are copies of earlier ones.

    Parameters
    ----------
    mono : np.ndarray [shape=(n,), float32]
        Samples of a mix.
    sample_rate_hz : int

    Returns
    -------
    dict
        `copied_spans`, each with `start_s` and `end_s`, to a fifth of a second, and `lag_s`, the shortest that fits; in order and
        without overlap. `copied_share` of the duration, in [0, 1].
    """
    band = soxr.resample(_within(np.asarray(mono, np.float32), LOUDEST), sample_rate_hz, RATE_HZ)
    band -= band.mean() if band.size else 0
    levels = _levels(band)
    lags: Floats = np.zeros(levels.size)
    if (levels > SILENT).any():
        loud = float(np.quantile(levels[levels > SILENT], 0.9))
        band = _whitened(band.clip(-MOST_PEAK * loud, MOST_PEAK * loud, out=band))
        lags = block_lags(band, candidate_lags(band), is_quiet=levels <= max(SILENT, QUIET_SHARE * loud))
    edges = [0, *(np.flatnonzero(np.diff(lags)) + 1).tolist(), lags.size]
    spans = [
        {"start_s": first * BLOCK / RATE_HZ, "end_s": last * BLOCK / RATE_HZ, "lag_s": float(lags[first]) / RATE_HZ}
        for first, last in pairwise(edges)
        if last > first and lags[first]
    ]
    copied_s = sum(span["end_s"] - span["start_s"] for span in spans)
    return {"copied_spans": spans, "copied_share": min(1.0, copied_s * sample_rate_hz / max(mono.size, 1))}


def _within(mono: Floats, limit: float) -> Floats:
    """The same samples where none is beyond the limit: ten minutes need not be held twice."""
    return mono if mono.size == 0 or max(float(mono.max()), -float(mono.min())) <= limit else mono.clip(-limit, limit)


def _whitened(band: Floats) -> Floats:
    """Even out the levels of the whole take, by one filter for all of it: copies stay copies."""
    size = scipy.fft.next_fast_len(band.size, real=True)
    spectrum = scipy.fft.rfft(band, size)
    width = max(1, round(WHITENED_HZ * size / RATE_HZ))
    level = np.abs(spectrum)
    for _ in range(2):
        scipy.ndimage.uniform_filter1d(level, width, output=level)
    np.maximum(level, 1e-3 * float(level.max()) + 1e-9, out=level)
    spectrum *= np.exp(-WHITENING_POWER * np.log(level, out=level))  # `**` takes ten times as long
    spectrum[: round(LOWEST_HZ * size / RATE_HZ)] = 0
    even: Floats = scipy.fft.irfft(spectrum, size)[: band.size]
    return even


def candidate_lags(heard: Floats) -> list[float]:
    """Lags in samples at which a signal agrees with itself more often than at those around, strongest first.

    Signs alone are compared [3]_, their magnitudes evened out [2]_: quiet copies count as much as loud ones.
    """
    first, last = round(SHORTEST_LAG_S * RATE_HZ), heard.size - LEAST_BLOCKS * BLOCK
    if last <= first:
        return []
    size = scipy.fft.next_fast_len(heard.size + last, real=True)
    # Copied, and filtered in place, for ten minutes: the other half of the transform is as large as all of the take.
    agreement = scipy.fft.irfft(np.abs(scipy.fft.rfft(np.sign(heard), size)), size)[: last + 1].copy()
    around = round(AROUND_S * RATE_HZ)
    deviation = agreement**2
    scipy.ndimage.uniform_filter1d(deviation, 2 * around + 1, output=deviation)
    np.maximum(np.sqrt(deviation, out=deviation), 1e-12, out=deviation)
    height = np.divide(agreement, deviation, out=deviation)[first:last]
    lags: list[float] = []
    while len(lags) < MOST_LAGS and height[peak := int(height.argmax())] >= LEAST_PEAK:
        height[max(0, peak - around) : peak + around + 1] = 0
        left, here, right = (max(float(beside), 0.0) for beside in agreement[first + peak - 1 : first + peak + 2])
        shift = right / (here + right) if right > left else -left / (here + left)
        lags.append(first + peak + shift)
    return lags


def block_lags(heard: Floats, lags: list[float], *, is_quiet: Bools) -> Floats:
    """Choose for each block the shortest lag at which a run of blocks equals what lies before it.

    Parameters
    ----------
    heard : np.ndarray [shape=(n,)]
    lags : list of float
        To choose from, in samples.
    is_quiet : np.ndarray of bool [shape=(blocks,)]

    Returns
    -------
    np.ndarray [shape=(blocks,)]
        In samples; 0 where no lag fits.
    """
    chosen = np.zeros(is_quiet.size)
    fits = {lag: _correlations(heard, lag, is_quiet=is_quiet) for lag in sorted(lags)}
    if not any((fit >= LEAST_CORRELATION).sum() >= LEAST_BLOCKS - MOST_GAP for fit in fits.values()):
        return chosen
    is_proof = ~is_quiet & (_held(heard, is_quiet.size) < MOST_HELD)
    best = np.max(list(fits.values()), axis=0)
    for lag, fit in fits.items():
        is_fit = _bridged((fit >= LEAST_CORRELATION) & (fit >= best - MOST_LOSS), fit >= BRIDGED_CORRELATION)
        for first, last in _runs(is_fit & (chosen == 0)):
            sounding = first + np.flatnonzero(~is_quiet[first:last])  # silence before or after a copy is none
            if sounding.size == 0 or sounding[-1] - sounding[0] + 1 < LEAST_BLOCKS:
                continue
            span = slice(int(sounding[0]), int(sounding[-1]) + 1)
            proof = fit[span][is_proof[span]]
            if proof.size >= LEAST_PROOF_SHARE * (span.stop - span.start) and np.median(proof) >= USUAL_CORRELATION:
                chosen[span] = lag
    return chosen


def _correlations(heard: Floats, lag: float, *, is_quiet: Bools) -> Floats:
    """Correlation of each block with what lies `lag` samples before it, interpolated between samples; shape (blocks,).

    1 where block and source are quiet, 0 before the first block that has a whole source.
    """
    out = np.zeros(is_quiet.size)
    whole = int(lag)
    first = -(-(whole + 2) // BLOCK)
    begin, end = first * BLOCK, out.size * BLOCK
    taps = np.sinc(np.arange(-1, 3) - (lag - whole)).astype(np.float32)
    source = np.convolve(heard[begin - whole - 2 : end - whole + 1], taps, "valid").reshape(-1, BLOCK)
    blocks = heard[begin:end].reshape(-1, BLOCK)
    power = np.einsum("ij,ij->i", blocks, blocks) * np.einsum("ij,ij->i", source, source)
    out[first:] = (np.einsum("ij,ij->i", blocks, source) / np.sqrt(np.maximum(power, 1e-20))).clip(-1, 1)
    before = np.arange(first, out.size) - whole // BLOCK
    out[first:][is_quiet[first:] & is_quiet[before] & is_quiet[before - 1]] = 1
    return out


def _held(heard: Floats, blocks: int) -> Floats:
    """Cosine of each block's spectrum, over two blocks' length, with that two blocks before or after, the nearer of the two."""
    padded = np.pad(heard[: blocks * BLOCK], BLOCK // 2)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * BLOCK)[::BLOCK] * HANN
    magnitude = np.abs(scipy.fft.rfft(windows))
    magnitude /= np.maximum(np.sqrt(np.einsum("ij,ij->i", magnitude, magnitude)), 1e-12)[:, None]
    cosine = np.einsum("ij,ij->i", magnitude[2:], magnitude[:-2])
    nearer: Floats = np.maximum(np.pad(cosine, (0, 2)), np.pad(cosine, (2, 0)))
    return nearer


def _levels(band: Floats) -> Floats:
    """Root mean square of each whole block, without its mean."""
    blocks = band[: band.size // BLOCK * BLOCK].reshape(-1, BLOCK)
    blocks = blocks - blocks.mean(axis=1, keepdims=True)
    levels: Floats = np.sqrt(np.einsum("ij,ij->i", blocks, blocks) / BLOCK)
    return levels


def _bridged(is_fit: Bools, is_near: Bools) -> Bools:
    """Blocks that fit, and up to `MOST_GAP` between two that do, if all of these are near."""
    bridged = is_fit.copy()
    for first, last in _runs(~is_fit):
        if first > 0 and last < is_fit.size and last - first <= MOST_GAP:
            bridged[first:last] = is_near[first:last].all()
    return bridged


def _runs(is_fit: Bools) -> NDArray[np.int_]:
    """First and one past the last of each run, shape (runs, 2)."""
    return np.flatnonzero(np.diff(np.pad(is_fit.astype(np.int8), 1))).reshape(-1, 2)
