"""What pages show: the sealed card as HTML, a moment in words, and the templates they are made of."""

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markdown_it import MarkdownIt

from serving.bundle import Bundle, read


def render(template: str, facts: Mapping[str, Any]) -> str:
    """A page; everything that it is given is escaped."""
    return _templates().get_template(template).render(**facts)


def card_html(bundle: Bundle) -> str:
    """The evaluation card as it was sealed, as HTML with its plots inside; markup within its text stays text.

    Raises BundleAltered: nobody is shown another card than the one that they sign.
    """
    if "card.md" not in bundle.files:
        return ""
    text = read(bundle, "card.md").decode()
    for name in (name for name in bundle.files if name.endswith(".png")):
        plot = base64.b64encode(read(bundle, name)).decode()
        text = text.replace(f"({name})", f"(data:image/png;base64,{plot})")
    return MarkdownIt("commonmark", {"html": False}).enable("table").render(text)


def moment(at_us: int) -> str:
    """A moment as people write it, in UTC."""
    return datetime.fromtimestamp(at_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M UTC")


@cache
def _templates() -> Environment:
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=select_autoescape(default=True, default_for_string=True),
    )
    made.filters |= {"moment": moment}
    return made
