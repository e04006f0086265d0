"""Every setting, typed, from the environment (and from a `.env` file in the working folder).

`.env.example` lists each of them with its default and its sentence; `tests/test_settings.py` keeps the two equal. Belongs here:
what an operator may choose. Does not: thresholds of the craft (they stand beside their code), secrets of providers.
"""

import os
from contextlib import suppress
from functools import cache
from pathlib import Path
from secrets import token_hex
from tempfile import NamedTemporaryFile
from typing import Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from keeptake.errors import ConfigurationError

PROJECT = Path(__file__).resolve().parents[1]


class Settings(BaseSettings):
    """The settings, each named `KEEPTAKE_` and its field's name in capitals."""

    model_config = SettingsConfigDict(env_prefix="KEEPTAKE_", env_file=".env", extra="ignore", frozen=True, env_ignore_empty=True)

    home: Path = Field(PROJECT / ".keeptake", description="Folder of all local state: embedded Postgres, audio, datasets, logs.")
    database_url: str | None = Field(
        None,
        description="Postgres with pgvector, as postgresql://user:password@host:5432/name; empty: an embedded server in HOME.",
    )
    audio_url: str | None = Field(
        None, description="Object store of the audio: s3://bucket/prefix or file:///folder; empty: HOME/audio."
    )
    datasets_dir: Path | None = Field(None, description="Folder of the published datasets; empty: HOME/datasets.")
    models_dir: Path | None = Field(None, description="Folder of converted model weights; empty: HOME/models.")
    embedding_models: str = Field(
        "",
        description="Models that place takes beside musicnn-msd (comma-separated): prompts, clap:FOLDER, mert:FOLDER with"
        " a FOLDER of MODELS_DIR; empty: none.",
    )
    incoming_dir: Path | None = Field(None, description="Folder that is watched for new takes; empty: HOME/incoming.")
    policies_dir: Path = Field(PROJECT / "policies", description="Folder of the dataset policies, a TOML file each.")

    feeds_file: Path | None = Field(
        None, description="TOML file of HTTP feeds and SQL tables that the sensor pulls; empty: none."
    )
    workers: int = Field(0, ge=0, le=256, description="Worker processes of heavy per-audio work; 0: one a core.")
    run_budget_s: float = Field(
        1800.0, gt=0, description="Seconds after which a run commits, ends and lets the sensor ask again."
    )
    chunk_rows: int = Field(32, ge=1, le=10_000, description="Rows of heavy work that are committed together.")
    analysis_timeout_s: float = Field(120.0, gt=0, description="Seconds of CPU that one file may take to be heard.")
    analysis_memory_mb: int = Field(4096, ge=256, description="Megabytes of memory that one worker may take.")

    keep_runs_days: int = Field(
        90, ge=1, description="Days after which a Dagster run is forgotten, unless a partition was last made by it."
    )
    publish_after_rows: int = Field(
        200, ge=1, description="New takes that pass a policy's score before a new version is built; at least 2 % of its last."
    )

    fetch_timeout_s: float = Field(60.0, gt=0, description="Seconds that fetching one file may take in all.")
    fetch_allow_http_hosts: str = Field(
        "", description="Hosts (comma-separated, host or host:port) that may be fetched over plain http and at private addresses."
    )
    fetch_allow_file_roots: str = Field("", description="Folders (comma-separated) from which file:// audio may be read.")
    fetch_provider_hosts: str = Field(
        "",
        description="Hosts each provider may be fetched from, as suno=cdn1.suno.ai|cdn2.suno.ai,udio=cdn.udio.com; empty: any.",
    )

    auth: Literal["keys", "none"] = Field(
        "keys", description="keys, or none: no access control, which only a loopback bind allows."
    )
    api_host: str = Field("127.0.0.1", description="Address that the API binds to.")
    api_port: int = Field(8002, ge=0, le=65_535, description="Port of the API.")
    api_workers: int = Field(1, ge=1, le=64, description="Worker processes of the API.")
    api_body_timeout_s: float = Field(
        10.0, gt=0, description="Seconds that the body of one API call may take to arrive, and one more for each 128 KiB of it."
    )
    api_body_pause_s: float = Field(5.0, gt=0, description="Seconds of silence within a body that end the call with a 408.")
    api_deadline_s: float = Field(
        1.8, gt=0, description="Seconds that the ledger may take to answer an API call, before it is a 503."
    )
    cors_origins: str = Field("", description="Origins (comma-separated) of web pages that may send feedback.")
    rate_limit_write: str = Field("600/minute", description="Writing calls allowed to one key.")
    rate_limit_read: str = Field("1200/minute", description="Reading calls allowed to one key.")
    rate_limit_export: str = Field("30/minute", description="Export calls allowed to one key.")
    ui_port: int = Field(3000, ge=0, le=65_535, description="Port of the Dagster UI.")

    notify_urls: str = Field("", description="Where alerts go (comma-separated Apprise addresses); empty: the log alone.")
    pseudonym_key: str = Field("", description="Key of the users' pseudonyms in published datasets; empty: one is made in HOME.")

    @property
    def audio_location(self) -> str:
        """URL of the audio store."""
        return self.audio_url or (self.home.resolve() / "audio").as_uri()

    @property
    def datasets_location(self) -> Path:
        """Folder of the published datasets."""
        return (self.datasets_dir or self.home / "datasets").resolve()

    @property
    def models_location(self) -> Path:
        """Folder of converted model weights."""
        return (self.models_dir or self.home / "models").resolve()

    @property
    def snapshots_location(self) -> Path:
        """Folder of the capture days' snapshots."""
        return self.home.resolve() / "snapshots"

    @property
    def incoming_location(self) -> Path:
        """Folder that is watched for new takes."""
        return (self.incoming_dir or self.home / "incoming").resolve()

    def pseudonym_secret(self) -> str:
        """Key of the users' pseudonyms: the given one, or one made once in HOME, which must be kept for them to stay the same.

        Raises
        ------
        ConfigurationError
            If that file is empty.
        """
        if self.pseudonym_key:
            return self.pseudonym_key
        path = self.home / "pseudonym.key"
        self.home.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            with NamedTemporaryFile("w", dir=self.home, prefix="pseudonym-") as file:  # only this user may read it
                file.write(token_hex(32))
                file.flush()
                with suppress(FileExistsError):  # another process was faster
                    os.link(file.name, path)  # whole or not at all: an empty key would hide nobody
        if not (key := path.read_text().strip()):
            raise ConfigurationError(f"{path} is empty: give the key of the published pseudonyms in KEEPTAKE_PSEUDONYM_KEY")
        return key


def http_address(host: str, port: int) -> str:
    """Address of a service on this machine.

    >>> http_address("::1", 8002)
    'http://[::1]:8002'
    """
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@cache
def settings() -> Settings:
    """Read the settings of this process once; `settings.cache_clear()` reads them anew.

    Raises
    ------
    ConfigurationError
        If one has a value that it cannot have, with the variable's name.
    """
    try:
        return Settings()
    except ValidationError as refusal:
        first = refusal.errors()[0]
        name = "_".join(str(part) for part in first["loc"]).upper().removeprefix("KEEPTAKE_")
        raise ConfigurationError(f"KEEPTAKE_{name}: {first['msg']}") from None  # without the value, which may be a secret


def listed(text: str) -> list[str]:
    """Split a comma-separated setting into its non-empty parts.

    >>> listed("a, b,,")
    ['a', 'b']
    """
    return [part.strip() for part in text.split(",") if part.strip()]
