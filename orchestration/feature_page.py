"""The page of all features: what each means, who uses it, and how its values lay on the last computed day."""

import html
import os
import uuid
from collections.abc import Mapping
from datetime import date
from io import BytesIO
from pathlib import Path

import duckdb
import matplotlib as mpl
from matplotlib.figure import Figure

from feature_repo.lake import Lake
from feature_repo.view import Feature, View
from feature_repo.windows import SERVICES, TTL_DAYS, VIEWS
from training.detector import DetectorSpec

HEADER = ("feature", "meaning", "window", "unit", "null means", "TTL", "used by")
_NUM_BINS = 40
_COLUMNS = 3
_STYLE = (
    "body{font:14px sans-serif;margin:2em}table{border-collapse:collapse}td,th{border:1px solid #ccc;padding:4px 8px}"
)


def rows(view: View, detectors: Mapping[str, DetectorSpec]) -> list[tuple[str, ...]]:
    """One row of the page per feature of a view."""
    return [
        (
            feature.name,
            feature.meaning,
            feature.window.name if feature.window else view.windows[-1].name if view.windows else "all time",
            feature.unit,
            feature.null,
            f"{TTL_DAYS} days",
            ", ".join(name for name, spec in detectors.items() if _is_used(view, feature, spec)) or "-",
        )
        for feature in view.features
    ]


def _is_used(view: View, feature: Feature, spec: DetectorSpec) -> bool:
    return view.name in SERVICES[spec.feature_service].views and feature.name in [*spec.numbers, *spec.categories]


def markdown(view: View, detectors: Mapping[str, DetectorSpec]) -> str:
    """The table of a view, as the Dagster page draws it."""
    lines = [HEADER, ("---",) * len(HEADER), *rows(view, detectors)]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def plot(lake: Lake, view: View, day: date) -> bytes:
    """A PNG with the distribution of every feature of a view on a day: tenths of texts, histograms of numbers."""
    features, is_computed = view.features, day in lake.days("features", view.name)
    height = -(-len(features) // _COLUMNS)
    with mpl.rc_context({"font.size": 7}):
        figure = Figure(figsize=(9, 1.8 * height), layout="constrained")
        axes = figure.subplots(height, _COLUMNS, squeeze=False).ravel()
        for axis in axes[len(features) :]:
            axis.set_visible(False)
        with lake.connect() as connection:
            connection.execute(f"CREATE VIEW rows AS {lake.select('features', view.name, first=day, last=day)}")
            for axis, feature in zip(axes, features, strict=False):
                names, counts = _distribution(connection, feature) if is_computed else ([], [])
                axis.bar(names, counts, width=1.0 if feature.dtype != "str" else 0.8)
                axis.set_title(feature.name)
                axis.tick_params(axis="x", rotation=30)
        stream = BytesIO()
        figure.savefig(stream, format="png", dpi=80)
    return stream.getvalue()


def _distribution(connection: duckdb.DuckDBPyConnection, feature: Feature) -> tuple[list[str] | list[float], list[int]]:
    """Values of a text, most frequent first; or bins of a number, the highest hundredth left out."""
    name = f'"{feature.name}"'
    if feature.dtype == "str":
        top = f"SELECT coalesce({name}, 'null'), count(*) AS num FROM rows GROUP BY 1 ORDER BY num DESC, 1 LIMIT 10"  # noqa: S608
        found = connection.execute(top).fetchall()
        return [str(value) for value, _ in found], [num for _, num in found]
    bounds = f"SELECT min({name}), quantile_cont({name}, 0.99) FROM rows"  # noqa: S608
    [(low, high)] = connection.execute(bounds).fetchall()
    if low is None:
        return [], []
    width = max((float(high) - float(low)) / _NUM_BINS, 1e-9)
    bins = f"SELECT floor(({name} - {low}) / {width}) AS bin, count(*) FROM rows WHERE {name} <= {high} GROUP BY 1"  # noqa: S608
    found = sorted(connection.execute(bins).fetchall())
    return [float(bin_) * width + float(low) for bin_, _ in found], [num for _, num in found]


def publish(lake: Lake, folder: Path, *, view: View, day: date, detectors: Mapping[str, DetectorSpec]) -> Path:
    """Write the plot of a view and day, and the page of all views with the newest plot of each; return the plot."""
    target = folder / view.name / f"{day}.png"
    _write(target, plot(lake, view, day))
    _write(folder / "index.html", _page(folder, detectors).encode())
    return target


def _page(folder: Path, detectors: Mapping[str, DetectorSpec]) -> str:
    parts = ["<!doctype html><meta charset=utf-8><title>Features</title>", f"<style>{_STYLE}</style><h1>Features</h1>"]
    for view in VIEWS.values():
        parts.append(f"<h2>{view.name}</h2><p>{html.escape(view.meaning)}, by <code>{view.entity}</code></p><table>")
        parts.append("<tr>" + "".join(f"<th>{cell}</th>" for cell in HEADER) + "</tr>")
        parts += [
            "<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in rows(view, detectors)
        ]
        parts.append("</table>")
        plots = sorted((folder / view.name).glob("*.png"))
        if plots:
            parts.append(f'<p>{plots[-1].stem}</p><img src="{view.name}/{plots[-1].name}" alt="distributions">')
    return "\n".join(parts)


def _write(target: Path, content: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    partial.write_bytes(content)
    os.replace(partial, target)  # noqa: PTH105  # one rename: several views may be computed at once
