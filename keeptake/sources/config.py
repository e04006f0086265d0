"""Which feeds and tables are pulled: the TOML file that `KEEPTAKE_FEEDS_FILE` names.

    [[feed]]
    name = "provider"
    url = "https://provider.example/api/generations"
    items = "data"
    next_cursor = "paging.next"
    headers = { Authorization = "env:PROVIDER_TOKEN" }
    [feed.fields]
    generationId = "id"
    "generationParams.bpm" = "meta.tempo"
    [feed.defaults]
    provider = "suno"

    [[table]]
    name = "workstation"
    url = "env:WORKSTATION_DATABASE_URL"
    table = "TrainingMetadata"

Headers and a table's address may be `env:NAME`, read from the environment, so that no secret stands in the file. Belongs here:
the shape of that file. Does not: reading from what it names.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from keeptake.errors import ConfigurationError
from keeptake.json_values import JSON

_STRICT = ConfigDict(extra="forbid", frozen=True)


class FeedConfig(BaseModel):
    """A paginated HTTP feed."""

    model_config = _STRICT

    url: str
    name: str = Field("", description="How the ledger knows it; empty: its address.")
    items: str = Field("items", description="Path to the array of a page; empty: the page is the array.")
    next_cursor: str = Field("nextCursor", description="Path to the cursor of the next page.")
    cursor_param: str = "cursor"
    size_param: str = "limit"
    page_size: int = Field(200, ge=1, le=10_000)
    timeout_s: float = Field(20.0, gt=0, description="Seconds that the other side may keep silent.")
    headers: Mapping[str, str] = {}
    fields: Mapping[str, str] = Field({}, description="Our path to theirs; what is not named keeps its name.")
    defaults: Mapping[str, JSON] = Field({}, description="Values of our top-level fields that an item lacks.")

    @field_validator("url")
    @classmethod
    def _is_address(cls, url: str) -> str:
        parts = urlsplit(url)  # reading an odd port raises as well
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
            raise ValueError("expected http(s)://host[:port]/path")
        return url

    def secret_headers(self) -> dict[str, str]:
        """Headers with the values that the environment holds."""
        return {name: from_environment(value) for name, value in self.headers.items()}


class TableConfig(BaseModel):
    """An existing table in a Postgres."""

    model_config = _STRICT

    url: str
    table: str = "TrainingMetadata"
    table_schema: str = Field("public", alias="schema")
    name: str = Field("", description="How the ledger knows it; empty: host, database and table.")
    page_size: int = Field(1000, ge=1, le=100_000)
    overlap_s: float = Field(600.0, ge=0, description="How long before the cursor reading begins again: rows that commit late.")
    fields: Mapping[str, str] = {}
    defaults: Mapping[str, JSON] = {}


class SourcesConfig(BaseModel):
    """All of the file."""

    model_config = _STRICT

    feed: list[FeedConfig] = []
    table: list[TableConfig] = []


def read_config(path: Path) -> SourcesConfig:
    """Read the file.

    Raises
    ------
    ConfigurationError
        If it is missing or says something that we do not understand.
    """
    try:
        return SourcesConfig.model_validate(tomllib.loads(path.read_text()))
    except OSError as error:
        raise ConfigurationError(
            f"the feeds file {path} cannot be read ({error.strerror}): correct KEEPTAKE_FEEDS_FILE"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the feeds file {path} is not TOML: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigurationError(f"the feeds file {path} is wrong at {where}: {first['msg']}") from None


def from_environment(value: str) -> str:
    """Replace `env:NAME` by what the environment holds.

    Raises
    ------
    ConfigurationError
        If it holds nothing under that name.
    """
    if not value.startswith("env:"):
        return value
    name = value.removeprefix("env:")
    if not os.environ.get(name):
        raise ConfigurationError(f"the environment variable {name}, which the feeds file names, is not set")
    return os.environ[name]
