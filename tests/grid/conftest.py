"""How a grid is refused."""

from pathlib import Path

import pytest
from grid_errors import LINE

from estimators import REGISTRY
from harness.grid.load import GridError, load_grid


@pytest.fixture
def refuse(tmp_path, monkeypatch):
    """Write a grid, load it, and return its errors without the file's name."""
    monkeypatch.chdir(tmp_path)

    def refuse(text: str | bytes, registry=REGISTRY) -> list[str]:
        Path("grid.yaml").write_bytes(text.encode() if isinstance(text, str) else text)
        with pytest.raises(GridError) as caught:
            load_grid(Path("grid.yaml"), registry)
        lines = str(caught.value).splitlines()
        assert tuple(lines) == caught.value.messages
        assert all(LINE.fullmatch(line) for line in lines)
        assert "pydantic" not in str(caught.value)
        return [line.removeprefix("grid.yaml:") for line in lines]

    return refuse
