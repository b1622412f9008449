"""Feast's store of one home: its configuration is rendered from values, its registry applied on change."""

import hashlib
from pathlib import Path
from typing import Any

import yaml
from feast import FeatureStore

from feature_repo import repo
from feature_repo.lake import Lake

_MARK = "applied.sha256"


def open_store(
    home: Path, *, online: dict[str, Any] | None = None, registry: dict[str, Any] | None = None
) -> FeatureStore:
    """The store below `home/feast`; `online` and `registry` are Feast's own configuration, SQLite and a file if absent.

    The duckdb offline store is named aloud: Feast's default returned wrong rows.
    """
    folder = (home / "feast").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "project": "mews",
        "provider": "local",
        "registry": {
            **(registry or {"path": str(folder / "registry.db")}),
            "cache_ttl_seconds": 60,
            "serve_features_while_materializing": True,
        },
        "offline_store": {"type": "duckdb"},
        "online_store": online or {"type": "sqlite", "path": str(folder / "online.db")},
        "entity_key_serialization_version": 3,
    }
    text = yaml.safe_dump(config, sort_keys=True)
    (folder / "feature_store.yaml").write_text(text, encoding="utf-8")
    store = FeatureStore(repo_path=str(folder))
    _apply(store, Lake(home.absolute() / "lake"), folder=folder, config=text)
    return store


def _apply(store: FeatureStore, lake: Lake, *, folder: Path, config: str) -> None:
    """Applying costs seconds, so it is done again only when something changed."""
    objects = repo.objects(lake)
    declared = config + "\n".join(str(o) for o in objects) + (Path(repo.__file__).parent / "windows.py").read_text()
    digest = hashlib.sha256(declared.encode()).hexdigest()
    mark = folder / _MARK
    if mark.exists() and mark.read_text(encoding="utf-8") == digest:
        return
    store.apply(objects)
    mark.write_text(digest, encoding="utf-8")
