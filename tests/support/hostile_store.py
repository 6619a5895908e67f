"""A store filled by an attacker: every text that a report shows is an attack of some kind."""

import json
import sqlite3
from pathlib import Path
from typing import Any

from reports_store import PROVENANCE, Planned, StoreWriter

SCRIPT = "window.__pwned=(window.__pwned||0)+1"
PAYLOADS = (
    f"<script>{SCRIPT}</script>",
    f'"><img src=x onerror="{SCRIPT}">',
    f"' onmouseover='{SCRIPT}' autofocus onfocus='{SCRIPT}' x='",
    f"</script></style></title></svg></pre><script>{SCRIPT}</script>",
    f"]]>--><svg onload={SCRIPT}><a xlink:href=javascript:{SCRIPT}>x</a>",
    f"javascript:{SCRIPT}",
    f"data:text/html,<script>{SCRIPT}</script>",
    "$\\frac{ $x^{2$ \\input{/etc/passwd} \\\\[1cm]",
    "a\x00b\x07\x1b[2J\x1b]0;title\x07\x9b31m\r\x7f",
    "\u202egnp.exe\u2066\u200b\u2028\u2029\ufeff",
    "; font-family: x' font: 9px y",
    ' id="verdict" d="M 0.12345 0" #1a1b1e url(#x)',
    "=cmd|' /C calc'!A0",
    "@SUM(1+1)*cmd|x",
    "| a | b \\| `c` | [x](javascript:alert(1)) ![y](http://127.0.0.1/z) <b>",
    "[0, 1] · none · device=cpu · seed=0",
    "{{ 7*7 }}{% for x in y %}${7*7}#{7*7}",
    "../../../../tmp/escaped",
    "A" * 10_000,
    "",
)
UNSEEN = "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]"
"""Characters that move a cursor or hide what is there; none may be in what is written or printed."""
NAME = f"../../escaped\x1b[2J<script>{SCRIPT}</script>"
"""What the experiment is called."""
TITLE = "<script>window.__pwned = 1</script></title><script>window.__pwned = 1</script>"
"""What its report is called."""
TEXT_TAGS = {"harness.label": 1, "harness.estimator_label": 1, "estimator": 1, "harness.error": 1} | {
    "schedule": 5,
    "device": 3,
    "seed": 4,  # in every so many runs: runs that differ in these make no pair
}


def hostile_store(folder: Path) -> str:
    """The URI of a store with one experiment NAME: a run for each payload, and payloads in every file."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = StoreWriter(folder)
    status = ("finished", "finished", "finished", "failed")
    runs = [Planned(f"e{i}", "none", 0, status=status[i % 4], error="x") for i in range(len(PAYLOADS))]
    writer.sweep("demo", [*runs, Planned("gone", "none", 0, status="missing")], epochs=3)
    with sqlite3.connect(folder / "mlflow.db") as database:
        _spoil(database)
    database.close()
    return writer.uri


def _spoil(database: sqlite3.Connection) -> None:
    ids = [row[0] for row in database.execute("SELECT run_uuid FROM runs ORDER BY start_time, name")]
    database.execute("UPDATE experiments SET name = ? WHERE name = 'demo'", (NAME,))
    for number, run_id in enumerate(ids):
        payload = PAYLOADS[number % len(PAYLOADS)]
        database.execute("UPDATE runs SET name = ? WHERE run_uuid = ?", (payload, run_id))
        spoiled = [name for name, every in TEXT_TAGS.items() if number % every == 0]
        for name in spoiled:
            for table in ("tags", "params"):
                command = f"UPDATE {table} SET value = ? WHERE run_uuid = ? AND key = ?"  # noqa: S608 fixed names
                database.execute(command, (payload, run_id, name))
        for key, value in _params(number, payload):
            database.execute("INSERT INTO params (key, value, run_uuid) VALUES (?, ?, ?)", (key, value, run_id))
        database.execute("UPDATE tags SET value = ? WHERE key IN ('harness.question', 'harness.command')", (payload,))
    for uri, kind in database.execute(
        "SELECT artifact_uri, value FROM runs JOIN tags USING (run_uuid) WHERE key = 'harness.kind'"
    ).fetchall():
        _spoil_files(Path(uri.removeprefix("file://")), kind)


def _params(number: int, payload: str) -> list[tuple[str, str]]:
    kinds = [payload, "[" * 5000, "9" * 5000, "1e999", '{"a": {"b": []}}', "[1, [2]]", "nan", "-inf", "None"]
    return [
        (f"training.{payload[:100]}", payload),
        ("training.momentum", kinds[number % len(kinds)]),
        ("diagnostics.basket", kinds[(number + 1) % len(kinds)]),
        ("time/shared_machine", kinds[(number + 2) % len(kinds)]),
        ("status", payload),
        ("setting", payload),
        ("test/neg_bound", payload),
    ]


def _spoil_files(folder: Path, kind: str) -> None:
    if kind == "sweep":
        deep: Any = "x"
        for _ in range(100):
            deep = {"x": [deep]}
        strange = {**{payload[:200]: {payload: payload} for payload in PAYLOADS}, "half": "\ud800", "deep": deep}
        about = {
            **PROVENANCE,
            **strange,
            "cpu": PAYLOADS[0],
            "gpu": PAYLOADS[8],
            "packages": {PAYLOADS[1]: PAYLOADS[2]},
        }
        (folder / "provenance.json").write_text(json.dumps(about))
        (folder / "grid.yaml").write_text("\n".join(PAYLOADS) + "\n\x1b[2J")
        entry = dict.fromkeys(("name", "label", "estimator", "schedule", "device", "seed"))
        plan = [{**entry, **dict.fromkeys(entry, payload), "run_key": payload} for payload in PAYLOADS if payload]
        odd = [
            {"run_key": f"odd{i}", "estimator": "odd", "seed": seed}
            for i, seed in enumerate([[], {}, 1e999, -1, 2**80, True, None])
        ]
        (folder / "plan.json").write_text(json.dumps([*plan, *odd, 7, None, []]))
    elif (folder / "history.json").exists():
        rows = json.loads((folder / "history.json").read_text())
        strange = {payload[:200]: 1.0 for payload in PAYLOADS} | {payload: payload for payload in PAYLOADS[:3]}
        strange |= {"run_key": "x", "status": 3, "setting": 4.0, "val/loss": 1e308, "train/kl": 10**400, "tau": "NaN"}
        strange |= {"gradient/<script>/relative_bias": 1.0, "gradient/own/cosine": None, "train/bce": [1], "x": {}}
        (folder / "history.json").write_text(json.dumps([{**row, **strange} for row in rows]))
