"""Feast's store of one home: its configuration is rendered from values, its registry applied on change."""

import hashlib
import logging
import re
import uuid
from pathlib import Path

import yaml
from feast import FeatureService, FeatureStore, FeatureViewState

from feature_repo import repo
from feature_repo.lake import Lake
from feature_repo.layout import PROJECT

_LOG = logging.getLogger(__name__)
_MARK = "applied.sha256"
_MADE_AT = re.compile(r'"(created|lastUpdated)Timestamp": "[^"]+"')  # Feast's stamps of this very moment
# What `feast apply`, run in the store's folder, reads: the same objects, named once.
_OBJECTS = """\
from pathlib import Path

from feature_repo.lake import Lake
from feature_repo.repo import objects

globals().update({f"{type(o).__name__}_{o.name}": o for o in objects(Lake(Path(__file__).parents[1] / "lake"))})
"""


class ServiceChanged(ValueError):
    """A feature service is immutable: changed features are a new service, such as `payment_v2`."""


def open_store(home: Path, *, redis: str = "", registry_uri: str = "") -> FeatureStore:
    """The store below `home/feast`: SQLite and a registry file, or Redis (HOST:PORT,db=N) and a registry in SQL.

    The offline store is named aloud: the default of Feast returned wrong rows.
    """
    folder = (home / "feast").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    in_sql = {"registry_type": "sql", "path": registry_uri}
    config = {
        "project": PROJECT,
        "provider": "local",
        "registry": {**(in_sql if registry_uri else {"path": str(folder / "registry.db")}), "cache_ttl_seconds": 60},
        "offline_store": {"type": "feature_repo.offline.AsofOfflineStore"},
        "online_store": {"type": "redis", "connection_string": redis}
        if redis
        else {"type": "sqlite", "path": str(folder / "online.db")},
        "entity_key_serialization_version": 3,
    }
    text = yaml.safe_dump(config, sort_keys=True)
    _write(folder / "feature_store.yaml", text)
    _write(folder / "objects.py", _OBJECTS)
    store = FeatureStore(repo_path=str(folder))
    _apply(store, Lake(home.absolute() / "lake"), folder=folder, config=text)
    _free_stuck_views(store)
    return store


def _apply(store: FeatureStore, lake: Lake, *, folder: Path, config: str) -> None:
    """Applying costs seconds, so it is done again only when something changed."""
    objects = repo.objects(lake)
    described = "\n".join(_MADE_AT.sub("", str(o)) for o in objects)
    declared = config + described + (Path(repo.__file__).parent / "windows.py").read_text()
    digest = hashlib.sha256(declared.encode()).hexdigest()
    mark = folder / _MARK
    if mark.exists() and mark.read_text(encoding="utf-8") == digest:
        return
    _require_same_services(store, [o for o in objects if isinstance(o, FeatureService)])
    store.apply(objects)
    _write(mark, digest)


def _write(path: Path, text: str) -> None:
    """Whoever opens the store at the same time reads the old file or the new one."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def _free_stuck_views(store: FeatureStore) -> None:
    """A killed `feast materialize` leaves its view MATERIALIZING, and Feast then answers nothing of it, in any process.

    What the online store holds is good all the same: each entity has its values from before or those from after.
    """
    for view in store.list_feature_views():
        if view.state is FeatureViewState.MATERIALIZING:
            _LOG.warning("feature view %s was left MATERIALIZING; it is available again", view.name)
            store.set_feature_view_state(view.name, FeatureViewState.AVAILABLE_ONLINE)


def _require_same_services(store: FeatureStore, declared: list[FeatureService]) -> None:
    """Detectors and releases name a service, and must go on meaning the same by it."""
    known = {service.name: service.tags for service in store.list_feature_services()}
    for service in declared:
        before, now = known.get(service.name, {}).get("definition"), service.tags["definition"]
        if before not in (None, now):
            raise ServiceChanged(f"feature service {service.name!r} changed under its name; give it a new one")
