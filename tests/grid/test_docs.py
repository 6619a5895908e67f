"""The reference pages list every setting with its default, and their examples are valid grids."""

import re

import pytest
from paths import ROOT

from harness.config import DiagnosticsConfig
from harness.grid.choices import fields_by_alias
from harness.grid.load import KEYS, load_grid
from harness.grid.sections import SECTIONS
from harness.grid.yaml_nodes import parse
from harness.plugins.registry import load_registry
from harness.schedules import KINDS, short

DOCS = ROOT / "docs"


def table(file: str, heading: str) -> dict[str, str]:
    """First and second column of the table under a heading."""
    section = (DOCS / file).read_text().split(f"\n{heading}\n", 1)[1].split("\n#", 1)[0]
    rows = re.findall(r"^\| (`.+?`) \| (.+?) \|", section, re.MULTILINE)
    return {key: default for keys, default in rows for key in re.findall(r"`(\w+)`", keys)}


def expected(model) -> dict[str, str]:
    defaults = {}
    for key, field in fields_by_alias(model).items():
        value = field.default
        written = "null" if value is None else repr(value) if isinstance(value, float) else short(value)
        defaults[key] = "required" if field.is_required() else f"`{written}`"
    return {key: default for key, default in defaults.items() if key not in ("kind", "label")}


@pytest.mark.parametrize("section", [*SECTIONS, "diagnostics"])
def test_every_setting_is_documented_with_its_default(section):
    model = {**SECTIONS, "diagnostics": DiagnosticsConfig}[section]
    assert table("grid.md", f"### {section}") == expected(model)


@pytest.mark.parametrize("kind", KINDS)
def test_every_schedule_is_documented_with_its_defaults(kind):
    assert table("schedules.md", f"### {kind}") == expected(KINDS[kind])


def test_every_key_of_the_file_is_documented():
    assert set(table("grid.md", "## Keys")) == set(KEYS)


def examples() -> list[str]:
    text = "".join((DOCS / file).read_text() for file in ("grid.md", "schedules.md", "diagnostics.md"))
    rest = "estimators: [straight_through]\nseeds: [0]\n"
    return [b if "estimators:" in b else rest + b for b in re.findall(r"```yaml\n(.+?)```", text, re.DOTALL)]


@pytest.mark.parametrize("text", examples())
def test_the_examples_load(text, tmp_path):
    path = tmp_path / "example.yaml"
    path.write_text(text)
    assert load_grid(path, load_registry()).runs


def test_the_first_example_has_as_many_runs_as_the_text_says(tmp_path):
    path = tmp_path / "example.yaml"
    path.write_text(examples()[0])
    assert len(load_grid(path, load_registry()).runs) == 30


@pytest.mark.parametrize("path", sorted((DOCS.parent / "experiments").glob("*.yaml")), ids=lambda path: path.name)
def test_the_experiments_are_yaml(path):
    assert "estimators" in parse(path.read_text()).value
