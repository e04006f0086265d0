"""What does a take look like at a glance? A mel spectrogram of a few kilobytes; and how any drawing becomes that small.

Conventions: mel power in, PNG bytes out; time runs to the right, pitch upwards, the loudest `DYNAMIC_RANGE_DB` from black to
light. Four bits a pixel bound the file whatever is heard: `WIDTH * HEIGHT / 2` bytes and a header.

Belongs here: pictures that are kept for ever in an event log, so that each byte counts. Does not: the large picture of an
analysis (`plot.py`), which takes are drawn (`keeptake/examples.py`).
"""

import io
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

DYNAMIC_RANGE_DB = 70.0
QUIETEST_TOP_DB = -30.0  # silence is drawn dark
WIDTH, HEIGHT, SHADES = 200, 56, 16


def thumbnail(mel: np.ndarray) -> bytes:
    """Draw a mel spectrogram small.

    Parameters
    ----------
    mel : np.ndarray [shape=(frames, bands), frames >= 1, bands >= HEIGHT]
        Mel power, as `Frontend.mel`.

    Returns
    -------
    bytes
        A PNG of `WIDTH` by `HEIGHT` pixels, at most 6 KB; a take of fewer frames than columns is stretched.
    """
    from matplotlib import colormaps
    from PIL import Image

    power = np.maximum(mean_rows(mean_rows(mel, WIDTH).T, HEIGHT), 1e-10)
    decibels = 10 * np.log10(power)
    highest = max(float(decibels.max()), QUIETEST_TOP_DB)
    light = np.clip(1 + (decibels - highest) / DYNAMIC_RANGE_DB, 0, 1)
    image = Image.fromarray(np.round(light[::-1] * (SHADES - 1)).astype(np.uint8), "P")
    image.putpalette(colormaps["magma"](np.linspace(0, 1, SHADES), bytes=True)[:, :3].tobytes())
    return _png(image)


def with_palette(png: bytes, colours: int) -> bytes:
    """Draw with few colours that lie closest to all of a drawing: about a third of its bytes, and letters stay sharp.

    Parameters
    ----------
    png : bytes
        Any PNG.
    colours : int, 2 to 256

    Returns
    -------
    bytes
        A PNG of the same size in pixels.
    """
    from PIL import Image

    with Image.open(io.BytesIO(png)) as image:
        # By coverage, not by how common a colour is: the few yellow dots of a scatter once came out red.
        return _png(image.convert("RGB").quantize(colours, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE))


def mean_rows(rows: np.ndarray, count: int) -> np.ndarray:
    """Average neighbouring rows, so that `count` remain.

    Parameters
    ----------
    rows : np.ndarray [shape=(n, width), n >= 1]
    count : int, > 0
        Where it is above n, rows are repeated.

    Returns
    -------
    np.ndarray [shape=(count, width)]
    """
    edges = np.linspace(0, len(rows), count + 1).astype(int)
    sizes = np.maximum(np.diff(edges), 1)
    means: np.ndarray = np.add.reduceat(rows, np.minimum(edges[:-1], len(rows) - 1)) / sizes[:, None]
    return means


def _png(image: "Picture") -> bytes:
    written = io.BytesIO()
    image.save(written, format="png", optimize=True)
    return written.getvalue()
