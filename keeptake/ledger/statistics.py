"""The public statistics, from one statement and with it one snapshot.

Belongs here: counting for `…/statistics/overview`. Does not: caching (`capture/statistics.py`), counts of stages (`status.py`).
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from keeptake.ledger.living import LIVING

GENRES = 50
BINS = 10

STATISTICS = f"""
    WITH groups AS (
        SELECT provider, status, count(*) AS n,
            CASE WHEN quality_score = 1 THEN {BINS - 1} ELSE floor(quality_score * {BINS})::int END AS bin,
            count(*) FILTER (WHERE liked IS NOT NULL OR rating IS NOT NULL OR feedback IS NOT NULL OR used IS NOT NULL) AS said,
            sum(quality_score) AS quality, count(*) FILTER (WHERE used_for_training) AS used
        FROM generations WHERE {LIVING} GROUP BY provider, status, bin
    ), genres AS (
        SELECT coalesce(generation_params ->> 'genre', '') AS genre, count(*) AS n
        FROM generations WHERE {LIVING} GROUP BY 1 ORDER BY n DESC, genre LIMIT {GENRES}
    )
    SELECT (SELECT json_agg(g) FROM groups g), (SELECT json_agg(g) FROM genres g)
"""


def overview(row: Sequence[Any]) -> dict[str, Any]:
    """Fold the statement's row into the statistics that are shown."""
    groups, genres = row[0] or [], row[1] or []
    providers: Counter[str] = Counter()
    statuses: Counter[str] = Counter()
    bins: Counter[int] = Counter()
    for group in groups:
        providers[group["provider"]] += group["n"]
        statuses[group["status"]] += group["n"]
        if group["bin"] is not None:
            bins[group["bin"]] += group["n"]
    scored = sum(bins.values())
    quality = sum(group["quality"] or 0.0 for group in groups)
    return {
        "totalGenerations": sum(providers.values()),
        "byProvider": dict(sorted(providers.items(), key=lambda item: (-item[1], item[0]))),
        "withFeedback": sum(group["said"] for group in groups),
        "averageQualityScore": round(quality / scored, 4) if scored else None,
        "usedForTraining": sum(group["used"] for group in groups),
        "byGenre": {group["genre"]: group["n"] for group in genres if group["genre"]},
        "byStatus": dict(sorted(statuses.items())),
        "qualityHistogram": [{"from": bin / BINS, "to": (bin + 1) / BINS, "count": bins[bin]} for bin in range(BINS)],
    }
