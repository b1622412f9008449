"""The images: pinned, without root, made of files that exist, and the serving one without what it must not carry."""

import re
import tomllib
from pathlib import Path

import pytest

FILES = sorted(Path("infra/docker").glob("*.Dockerfile"))
README = tomllib.loads(Path("pyproject.toml").read_text())["project"]["readme"]
EACH = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def instructions(path: Path) -> list[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", path.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in text.splitlines() if line.strip()]


def values(path: Path, keyword: str) -> list[str]:
    return [value for name, value in instructions(path) if name == keyword]


def test_there_is_one_image_for_each_layer() -> None:
    assert [path.stem for path in FILES] == ["orchestration", "serving", "training"]


@EACH
def test_only_known_instructions_in_an_order_that_builds(path: Path) -> None:
    names = [name for name, _ in instructions(path)]

    assert names[0] == "FROM"
    assert set(names) <= {"FROM", "ENV", "RUN", "WORKDIR", "COPY", "USER", "VOLUME", "EXPOSE", "CMD"}


@EACH
def test_the_base_is_pinned(path: Path) -> None:
    assert all(re.search(r":\d+\.\d+\.\d+-", base) for base in values(path, "FROM"))


@EACH
def test_it_does_not_run_as_root(path: Path) -> None:
    names = [name for name, _ in instructions(path)]

    assert values(path, "USER") == ["mews"]
    assert names.index("USER") > max(i for i, name in enumerate(names) if name == "RUN")


@EACH
def test_what_it_copies_exists_and_reaches_the_build(path: Path) -> None:
    sources = [source for value in values(path, "COPY") for source in value.split()[:-1]]
    allowed = Path(".dockerignore").read_text().splitlines()

    assert README in sources  # the build of the project reads it
    assert [source for source in sources if source != README and not Path(source).exists()] == []
    assert [source for source in sources if f"!{source.split('/')[0]}" not in allowed] == []


@EACH
def test_it_installs_what_the_lock_pins_and_names_no_index(path: Path) -> None:
    runs = " ".join(values(path, "RUN"))

    assert "requirements.txt" in runs
    assert not re.search(r"https?://|--index|--find-links|--trusted", runs)


def test_the_serving_image_takes_the_serving_extra_and_no_orchestration() -> None:
    path = Path("infra/docker/serving.Dockerfile")

    assert '".[serve,passkey,trace]"' in " ".join(values(path, "RUN"))
    assert "orchestration orchestration" not in values(path, "COPY")
