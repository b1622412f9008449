"""Where things are: one frozen value, read from the environment where a process starts and nowhere else."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

if TYPE_CHECKING:
    from feature_repo.lake import Lake

Profile = Literal["embedded", "team"]
DEFS = Path(__file__).parent / "defs"
INFRA = Path(__file__).parents[1] / "infra"


@dataclass(frozen=True)
class Settings:
    """The one place that knows the names of the environment variables; every path lies below `home`."""

    home: Path
    profile: Profile = "embedded"
    mlflow_uri: str = ""  # empty: SQLite below home
    redis: str = ""  # HOST:PORT,db=N; empty: features online are in SQLite below home
    registry_uri: str = ""  # empty: Feast's registry is a file below home
    spark: str = ""  # a master, such as local[4] or spark://HOST:7077; empty: features are computed by DuckDB
    webhook_url: str = ""  # empty: failed runs notify nobody
    service_url: str = "http://localhost:8080"  # as people reach it: their page for approvals is below it
    first_day: date = date(2018, 1, 1)  # the first partition; the handbook's payments start on 2018-04-01
    memory_limit: str = "4GB"
    defs: Path = DEFS

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read MEWS_* and MLFLOW_TRACKING_URI; what is not set, or is empty, has the value of one laptop."""
        given = {name: value for name, value in environment.items() if value}
        profiles: dict[str, Profile] = {"embedded": "embedded", "team": "team"}
        profile = given.get("MEWS_PROFILE", "embedded")
        if profile not in profiles:
            raise ValueError(f"MEWS_PROFILE is {profile!r}; it must be 'embedded' or 'team'")
        return cls(
            home=Path(given.get("MEWS_HOME", ".mews")).absolute(),
            profile=profiles[profile],
            mlflow_uri=given.get("MLFLOW_TRACKING_URI", ""),
            redis=given.get("MEWS_REDIS", ""),
            registry_uri=given.get("MEWS_FEAST_REGISTRY", ""),
            spark=given.get("MEWS_SPARK", ""),
            webhook_url=given.get("MEWS_WEBHOOK_URL", ""),
            service_url=given.get("MEWS_SERVICE_URL", cls.service_url).rstrip("/"),
            first_day=date.fromisoformat(given.get("MEWS_FIRST_DAY", "2018-01-01")),
            memory_limit=given.get("MEWS_MEMORY_LIMIT", "4GB"),
        )

    @property
    def lake(self) -> "Lake":
        """The lake of this home."""
        from feature_repo.lake import Lake

        return Lake(self.home / "lake", memory_limit=self.memory_limit)

    @property
    def tracking_uri(self) -> str:
        """Where MLflow keeps runs and versions."""
        return self.mlflow_uri or f"sqlite:///{self.home / 'mlflow.db'}"

    @property
    def feature_stores(self) -> dict[str, str]:
        """What `feature_repo.store.open_store` takes beside the home."""
        return {"redis": self.redis, "registry_uri": self.registry_uri}

    @property
    def dagster_home(self) -> Path:
        """Dagster's own storage and configuration."""
        return self.home / "dagster"

    @property
    def dagster_yaml(self) -> Path:
        """How Dagster is configured in this profile."""
        return INFRA / ("team/dagster.yaml" if self.profile == "team" else "dagster.yaml")

    @property
    def training_sets(self) -> Path:
        """Training sets by detector and id."""
        return self.home / "training_sets"

    @property
    def searches(self) -> Path:
        """Searches for better settings of a detector's fit, by detector and what is searched."""
        return self.home / "searches"

    @property
    def feature_page(self) -> Path:
        """The page of all features, and their plots."""
        return self.home / "feature_page"

    @property
    def runs(self) -> Path:
        """Run folders of training by detector and run id."""
        return self.home / "runs"

    @property
    def releases(self) -> Path:
        """Sealed release bundles by detector and digest."""
        return self.home / "releases"

    @property
    def policies(self) -> Path:
        """Sealed policy bundles by name and digest."""
        return self.home / "policies"

    @property
    def ledger(self) -> Path:
        """The append-only record of what was sealed, signed and deployed."""
        return self.home / "ledger" / "ledger.jsonl"

    @property
    def people(self) -> Path:
        """Who may sign as what."""
        return self.home / "people.yaml"

    @property
    def decisions(self) -> Path:
        """Segments of the decision log."""
        return self.home / "decisions"
