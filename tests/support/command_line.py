"""The command line in this process or in one of its own, a small grid for it, and how it refuses."""

import gc
import io
import os
import re
import subprocess
import sys
import textwrap
from contextlib import chdir, nullcontext, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

import pytest

from harness.cli import main

TINY = """
name: tiny
question: Does it run?
data: {train_size: 100}
model: {n_latents: 3, n_categories: 4, hidden: [16]}
training: {epochs: 2, batch_size: 50}
evaluation: {bound_samples: 2, n_images: 2}
estimators: [straight_through, gumbel_softmax]
seeds: [0, 1]
"""
Done = subprocess.CompletedProcess[str]


def harness(*arguments: object, cwd: Path | None = None, **environment: str) -> Done:
    """Run a command in this process, runs of local workers too."""
    given = [str(argument) for argument in arguments]
    output, errors = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    with (
        patch.dict(os.environ, {"COLUMNS": "80"} | environment),
        chdir(cwd) if cwd else nullcontext(),
        redirect_stdout(output),
        redirect_stderr(errors),
    ):
        try:
            main(given)
        except SystemExit as end:
            code = end.code or 0
        finally:
            gc.unfreeze()
    return Done(given, code, *(stream.buffer.getvalue().decode() for stream in (output, errors)))


def run_captured(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Run a command in this process; return its exit code and all that it wrote, also past `sys.stdout`."""
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    captured = capfd.readouterr()
    return int(ended.value.code or 0), captured.out + captured.err


def harness_process(*arguments: object, cwd: Path | None = None, **environment: str) -> Done:
    """Run a command in a process of its own. `run` has one worker unless the test says otherwise."""
    given = [str(argument) for argument in arguments]
    if given[:1] == ["run"] and not {"--workers", "--executor", "--dry-run"} & set(given):
        given += ["--workers", "1"]
    return subprocess.run(
        [sys.executable, "-m", "harness.cli", *given],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | {"COLUMNS": "80"} | environment,
        timeout=120,
        check=False,
    )


def grid_file(folder: Path, text: str = TINY, name: str = "tiny.yaml") -> Path:
    path = folder / name
    path.write_text(textwrap.dedent(text))
    return path


def assert_refused(done: Done, pattern: str) -> None:
    """Exit code 2 and one line on stderr that matches."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert re.search(pattern, done.stderr), done.stderr
