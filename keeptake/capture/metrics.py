"""What the service counts, for Prometheus; over all worker processes where `PROMETHEUS_MULTIPROC_DIR` is set.

Labels never hold free text: a provider's name is taken only where it looks like one, and only so many of them. Belongs here: the
metrics and their exposition. Does not: the log.
"""

import os
import re

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

MOST_PROVIDERS = 40
CONTENT_TYPE = CONTENT_TYPE_LATEST
_PLAIN_NAME = re.compile(r"[A-Za-z0-9._-]{1,40}")

requests = Counter("keeptake_requests", "Answered requests", ["method", "route", "status"])
saves = Counter("keeptake_saves", "Generations sent, by provider and outcome", ["provider", "outcome"])
save_seconds = Histogram(
    "keeptake_save_seconds", "Time of a save", buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
)
feedback = Counter("keeptake_feedback", "Feedback given, by field", ["kind"])
export_rows = Counter("keeptake_export_rows", "Rows exported", ["format"])

_providers: set[str] = set()


def provider_label(provider: str) -> str:
    """Name a provider as a label: itself, or `other`."""
    if provider in _providers:
        return provider
    if len(_providers) < MOST_PROVIDERS and _PLAIN_NAME.fullmatch(provider):
        _providers.add(provider)
        return provider
    return "other"


def exposition(missing: dict[str, int]) -> bytes:
    """Everything as text, with the generations that were announced and never saved, by provider."""
    registry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # the package leaves it untyped
    counts: dict[str, int] = {}
    for provider, count in missing.items():
        label = provider_label(provider)
        counts[label] = counts.get(label, 0) + count
    lines = [
        "# HELP keeptake_missing_metadata Generations announced and never saved",
        "# TYPE keeptake_missing_metadata gauge",
        *(f'keeptake_missing_metadata{{provider="{label}"}} {count}' for label, count in sorted(counts.items())),
        f'keeptake_missing_metadata{{provider="all"}} {sum(counts.values())}' if not counts else "",
    ]
    return generate_latest(registry) + "\n".join(line for line in lines if line).encode() + b"\n"
