"""The template environment of every page, with the style and the script inside the file."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup

from reports.page.palette import DARK, LIGHT

_HERE = Path(__file__).parent


def environment() -> jinja2.Environment:
    """Return the templates of this folder: escaped, strict about missing values, with `css`, `js` and `policy`."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["svg"] = lambda panel: Markup(panel.svg)  # noqa: S704 made by matplotlib, which escapes its texts
    made.filters["prose"] = prose
    made.globals["css"] = Markup(_css())  # noqa: S704 our own file
    js = (_HERE / "report.js").read_text(encoding="utf-8")
    made.globals["js"] = Markup(js)  # noqa: S704 our own file
    made.globals["policy"] = _policy(js)
    return made


def prose(text: str) -> Markup:
    """Return a text, escaped, with what stands between backticks as code."""
    parts = re.split(r"`([^`]+)`", text)
    return Markup("").join(Markup("<code>{}</code>").format(part) if i % 2 else part for i, part in enumerate(parts))


def _policy(js: str) -> str:
    """Return what a browser may do with the page: show its own style and pictures, and run this one script."""
    digest = base64.b64encode(hashlib.sha256(js.encode("utf-8")).digest()).decode("ascii")
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _css() -> str:
    def variables(colours: Sequence[str]) -> str:
        return " ".join(f"--e{index}: {colour};" for index, colour in enumerate(colours))

    light = f":root {{ {variables(LIGHT)} }}\n"
    dark = f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {variables(DARK)} }} }}\n"
    return light + dark + (_HERE / "report.css").read_text(encoding="utf-8")
