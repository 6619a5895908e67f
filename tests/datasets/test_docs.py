"""The page about images of one's own: its code runs, and its grids load with what the code made."""

import re
from pathlib import Path

import pytest
from own_images import write_pictures
from paths import ROOT

from harness.datasets.own_images import ARRAYS
from harness.grid.load import load_grid
from harness.plugins.registry import load_registry

PAGE = (ROOT / "docs" / "your-own-images.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.+?)```", PAGE, re.DOTALL)


def test_the_code_of_the_page_makes_what_its_grids_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_file, plugin = blocks("python")
    exec(make_file, {})  # noqa: S102  # the page's own code
    Path("my_images.py").write_text(plugin)
    for split in ("train", "test"):
        write_pictures(Path("pictures", split), 12)
    of_file, of_folder = blocks("yaml")
    rest = "\nestimators: [rloo]\nseeds: [0]\nevaluation: {n_images: 2}\n"
    shapes = []
    for text in (of_file, of_folder + rest, "data: {name: noise}" + rest):
        Path("grid.yaml").write_text(text)
        grid = load_grid(Path("grid.yaml"), load_registry([Path("my_images.py")]))
        shapes.append((grid.runs[0].data.n_images, grid.runs[0].data.image_shape))
    assert shapes == [((400, 0, 100), (3, 20, 30)), ((12, 0, 12), (28, 28)), ((60, 0, 20), (3, 20, 30))]


def test_every_array_of_a_file_is_documented() -> None:
    table = PAGE.split("| array |")[1].split("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", table)) - {"validation_fraction"} == set(ARRAYS)
