"""README.md and docs/: what they name exists, every key of the configuration is described, and they stay short."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from edgepack_assets.cli.main import main
from edgepack_assets.config.json_schema import VARIABLE, config_schema
from edgepack_assets.model_types.interface import ModelType
from edgepack_assets_tests.config.schema_keys import choices, is_a_value, keys

PROJECT = Path(__file__).parents[1]
PAGES = sorted([PROJECT / "README.md", *(PROJECT / "docs").rglob("*.md")])
FILES = {
    path.relative_to(PROJECT).as_posix()
    for top in ("edgepack_assets", "edgepack_assets_tests", "docs", "benchmarks", "examples")
    for path in (PROJECT / top).rglob("*")
    if path.suffix != ".pyc"
} | {path.name for path in PROJECT.iterdir()}
EACH_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(PROJECT).as_posix())


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.*)$", without_code(page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


@EACH_PAGE
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    lost = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        address, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", address):
            continue
        target = page.parent / address if address else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            lost.append(link)
    assert lost == []


def named_files(text: str) -> Iterator[str]:
    """Files and folders of this project that a page names in code: `tasks/chain.py`, `child_main.py`, `defs/`."""
    for name in re.findall(r"`([^`\s]+)`", text):
        if re.fullmatch(r"[\w./-]+\.(py|md|toml|conf)", name) or re.fullmatch(r"[a-z_]+/[a-z_/]*", name):
            yield name.rstrip("/")
    for block in re.findall(r"(?:^    .*\n)+", text, re.MULTILINE):
        if "edgepack_assets" not in block and "component/" in block:  # the picture of the house
            yield from (name.rstrip("/") for name in re.findall(r"\b[a-z_/]+(?:/|\.py)(?=[\s,)])", block))


OF_A_USER = {
    "code",
    "staging",
    "numbers",
    "index",
    "registry",
    "artefacts",
    "dagster",
    "environments",
    "cache",
    "outputs",
    "model",
}
"""Folders of a model or of .edgepack/."""


@EACH_PAGE
def test_every_file_of_the_project_that_is_named_exists(page: Path) -> None:
    names = set(named_files(page.read_text())) - OF_A_USER
    lost = {name for name in names if not any(f"/{file}".endswith(f"/{name}") for file in FILES)}
    assert lost == set()


def test_the_picture_of_the_house_is_looked_at() -> None:
    names = set(named_files((PROJECT / "docs/architecture.md").read_text()))
    tops = {path.name for path in (PROJECT / "edgepack_assets").iterdir() if (path / "__init__.py").is_file()}
    assert tops <= names


@EACH_PAGE
def test_every_command_that_is_named_exists(page: Path) -> None:
    unknown = []
    for first, second in re.findall(
        r"\bedgepack ([a-z]+)(?: ([a-z]+(?:-[a-z]+)*))?\b", " ".join(re.findall(CODE, page.read_text()))
    ):
        command = main.commands.get(first)
        if command is None or (isinstance(command, click.Group) and second and second not in command.commands):
            unknown.append(f"edgepack {first} {second}")
    assert unknown == []


CODE = re.compile(r"`[^`\n]+`|^    .*$", re.MULTILINE)


@EACH_PAGE
def test_prose_has_no_long_lines(page: Path) -> None:
    lines = enumerate(without_code(page.read_text()).splitlines(), 1)
    assert [number for number, line in lines if len(line) > 120 and not line.startswith(("|", "    "))] == []


def test_what_is_read_first_is_short() -> None:
    assert len((PROJECT / "README.md").read_text().splitlines()) <= 80
    assert len((PROJECT / "docs/architecture.md").read_text().splitlines()) <= 150


NOT_SET = "\N{EN DASH}"

# The configuration ---------------------------------------------------------------------------------------


@functools.cache
def described() -> dict[str, tuple[str, str, str]]:
    """Key -> (default, allowed values, meaning) in docs/configuration.md."""
    text = (PROJECT / "docs/configuration.md").read_text()
    rows = re.findall(r"^\| `([^`]+)` \| ([^|]*) \| ([^|]*) \| ([^|]*) \|$", text, re.MULTILINE)
    assert len(rows) == len({row[0] for row in rows})
    return {key: (default, allowed, meaning) for key, default, allowed, meaning in rows}


@functools.cache
def schemas() -> dict[str, list[dict[str, Any]]]:
    """Key -> its schema, in each of the sections that have it."""
    found: dict[str, list[dict[str, Any]]] = {}
    for key, schema in keys(config_schema()):
        if key.startswith("model_types.<name>.settings."):
            continue  # described where they usually stand, directly under the entry
        if key.startswith("model_types.<name>.compute."):
            continue  # the keys of the section compute, described there
        found.setdefault(key, []).append(schema)
    return found


def test_every_key_of_the_configuration_is_described_and_no_other() -> None:
    every = schemas()
    with_values = {key for key, found in every.items() if any(map(is_a_value, found))}
    assert with_values - described().keys() == set()
    assert described().keys() - every.keys() == set()
    text = (PROJECT / "docs/configuration.md").read_text()
    assert {key for key in every if "." not in key} <= set(re.findall(r"^## (\w+)$", text, re.MULTILINE))


@pytest.mark.parametrize("key", described())
def test_a_key_is_described_with_its_default_and_its_values(key: str) -> None:
    default, allowed, meaning = described()[key]
    assert len(meaning) > 3
    known = next((schema["default"] for schema in schemas()[key] if "default" in schema), None)
    if default == "required":
        assert known is None
    elif default == NOT_SET:
        assert known in (None, "", [], {})
    elif isinstance(known, bool):
        assert default == f"`{json.dumps(known)}`"
    elif isinstance(known, list):
        assert default == f"`[{', '.join(known)}]`"
    else:
        assert default == f"`{known if isinstance(known, str) else format(known, 'g')}`"
    values = {
        str(value)
        for schema in schemas()[key]
        for choice in choices(schema)
        if choice != VARIABLE
        for value in [*choice.get("enum", ()), *([choice["const"]] if "const" in choice else ())]
        if value is not None
    }
    named = set(re.findall(r"`([^`]+)`", allowed))
    if key.endswith(".implementation"):  # others may be installed
        assert named <= values
    else:
        assert values <= named
        assert not values or named <= values | {"latest"}


# Messages ------------------------------------------------------------------------------------------------


OF_OTHERS = {
    "No space left on device",
    "Exceeded maximum runtime",
    "Run timed out due to taking longer than",
    'Received unexpected config entry "config_file"',
}
"""Messages of Dagster and of the system."""
WITH_VALUES = {
    "has no data asset": "has no ",
    "an HTML page with status 200 from": "an HTML page with status {",
    "another operation is under way there (409)": "another operation is under way there (",
    "give it the role AzureML Data Scientist": "give it the role ",
    "check that it has the role Storage Blob Data Contributor": "check that it has the role ",
}
"""Messages that the code fills in, and how they begin there."""


@pytest.mark.parametrize("name", ["operations.md", "azure.md", "compute.md"])
def test_the_messages_that_are_explained_are_messages_of_the_code(name: str) -> None:
    text = (PROJECT / "docs" / name).read_text()
    [table] = re.findall(r"^\| (?:where, and what it says|message) \|.*?\n\n", text, re.MULTILINE | re.DOTALL)
    source = "\n".join(path.read_text() for path in (PROJECT / "edgepack_assets").rglob("*.py"))
    source = re.sub(r'"\n\s*f?"', "", source)
    quoted = [part for row in table.strip().splitlines()[2:] for part in re.findall(r"`([^`]+)`", row.split("|")[1])]
    fragments = {piece for part in quoted for piece in re.split(r" ?\.\.\. ?", part) if " " in piece}
    assert len(fragments) > 10
    assert {piece for piece in fragments - OF_OTHERS if WITH_VALUES.get(piece, piece) not in source} == set()


def test_every_part_of_a_model_type_is_on_the_page_that_leads_to_one() -> None:
    page = (PROJECT / "docs/model-types.md").read_text()
    parts = {name for name in {**vars(ModelType), **ModelType.__annotations__} if not name.startswith("_")}
    ours_alone = {"folder", "keys_beside_settings"}
    assert sorted(name for name in parts - ours_alone if f"`{name}" not in page) == []
