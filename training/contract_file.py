"""Reads a contract from a YAML file; a mistake is answered with its file, line, field, value and limit."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import ValidationError

from training.policy import Contract

_NAMED = re.compile(r"Value error, (\w+\.)?(?P<field>\w+) is ")
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where PyYAML was built with it
C = TypeVar("C", bound=Contract)


def read_contract(path: Path, kind: type[C], *, at: Sequence[str] = ()) -> C:
    """The contract below some keys of a file; raises ValueError."""
    text = path.read_text(encoding="utf-8")
    try:
        content, tree = yaml.load(text, _Loader), yaml.compose(text, _Loader)  # noqa: S506  # a safe one
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ValueError(f"{_name(path)}:{line}: this is not YAML: {error.problem}") from error
    for key in at:
        if not isinstance(content, dict) or key not in content:
            raise ValueError(f"{_name(path)}:1: {key} is missing")
        content = content[key]
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise ValueError("\n".join(_sentence(path, tree, at, one) for one in error.errors())) from error


def _sentence(path: Path, tree: yaml.Node | None, at: Sequence[str], error: object) -> str:
    assert isinstance(error, dict)
    place = [*at, *error["loc"]]
    field = ".".join(str(part) for part in place[len(at) - 1 if at else 0 :]) or "the file"
    named = _NAMED.match(error["msg"])  # a check over the whole value says itself which of its fields is wrong
    place += [named["field"]] if named else []
    found = "" if isinstance(error["input"], dict | list) else f" (found {error['input']!r:.200})"
    return f"{_name(path)}:{_line(tree, place)}: {field}: {error['msg'].removeprefix('Value error, ')}{found}"


def _line(node: yaml.Node | None, place: Sequence[object]) -> int:
    """The line of the deepest part of a place that the file has."""
    line = node.start_mark.line + 1 if node else 1
    for part in place:
        if isinstance(node, yaml.MappingNode):
            pairs = [(key, value) for key, value in node.value if key.value == str(part)]
            if not pairs:
                return line
            line, node = pairs[0][0].start_mark.line + 1, pairs[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            return line
    return line


def _name(path: Path) -> str:
    """Enough of a path to find it: every detector's file has the same name."""
    return f"{path.parent.name}/{path.name}" if path.name == "defs.yaml" else path.name
