"""Feast's objects: entities, sources, views and services, all from the declarative tables of `windows.py`.

`feast apply` imports every file of its folder as a top-level module, which would define each object twice; so the
store is applied from here, by `feature_repo.store`.
"""

from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Bytes, Float64, Int64, PrimitiveFeastType, String

from feature_repo.lake import Lake
from feature_repo.layout import SEEN, STATE, state_view
from feature_repo.online import TTL_US
from feature_repo.tables import ENTITIES
from feature_repo.view import View
from feature_repo.windows import SERVICES, TTL_DAYS, VIEWS, definition

TTL = timedelta(days=TTL_DAYS)
STATE_TTL = timedelta(microseconds=TTL_US)  # which `feature_repo.online` enforces
_DTYPES: dict[str, PrimitiveFeastType] = {"int": Int64, "float": Float64, "str": String}


def objects(lake: Lake) -> list[Entity | FeatureView | FeatureService]:
    """Everything that the registry holds for a lake."""
    entities = {name: Entity(name=name, join_keys=[name], value_type=ValueType.STRING) for name in ENTITIES}
    views = {view.name: feature_view(view, entities[view.entity], lake) for view in VIEWS.values()}
    services = [
        FeatureService(
            name=service.name,
            features=[views[name] for name in service.views],
            tags={"definition": definition(service)},
        )
        for service in SERVICES.values()
    ]
    states = [_state_view(view, entities[view.entity], lake) for view in VIEWS.values()]
    return [*entities.values(), *views.values(), *states, *services]


def feature_view(view: View, entity: Entity, lake: Lake, *, is_online: bool = False) -> FeatureView:
    """A view of rows that were computed for some moments; what is asked now is computed from states."""
    source = FileSource(
        name=f"{view.name}_rows",
        path=str(Path(lake.folder("features", view.name).absolute(), "*", "*.parquet")),
        timestamp_field="event_timestamp",
        created_timestamp_column="created",
    )
    columns = [Field(name=view.entity, dtype=String)]
    columns += [Field(name=f.name, dtype=_DTYPES[f.dtype], description=f.meaning) for f in view.features]
    return FeatureView(
        name=view.name,
        entities=[entity],
        ttl=TTL,
        schema=columns,
        source=source,
        online=is_online,
        description=view.meaning,
    )


def _state_view(view: View, entity: Entity, lake: Lake) -> FeatureView:
    """The online half of a view: one state per entity, written without Feast in Feast's own layout."""
    source = FileSource(
        name=f"{view.name}_states",
        path=str(Path(lake.folder("state", view.name).absolute(), "*", "*.parquet")),
        timestamp_field="event_timestamp",
        created_timestamp_column="created",
    )
    columns = [Field(name=view.entity, dtype=String), *(Field(name=name, dtype=Bytes) for name in (STATE, SEEN))]
    return FeatureView(name=state_view(view.name), entities=[entity], ttl=STATE_TTL, schema=columns, source=source)
