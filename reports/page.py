"""What every page shares: the template environment, the style and the script, all inside the file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup

from reports.palette import DARK, LIGHT

_HERE = Path(__file__).parent


def environment() -> jinja2.Environment:
    """Templates of this folder, escaped, strict about what they are not given; `css` and `js` are known to all."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["svg"] = lambda panel: Markup(panel.svg)  # noqa: S704 made by matplotlib, which escapes its texts
    made.globals["css"] = Markup(_css())  # noqa: S704 our own file
    made.globals["js"] = Markup((_HERE / "report.js").read_text(encoding="utf-8"))  # noqa: S704 our own file
    return made


def _css() -> str:
    def variables(colours: Sequence[str]) -> str:
        return " ".join(f"--e{index}: {colour};" for index, colour in enumerate(colours))

    light = f":root {{ {variables(LIGHT)} }}\n"
    dark = f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {variables(DARK)} }} }}\n"
    return light + dark + (_HERE / "report.css").read_text(encoding="utf-8")
