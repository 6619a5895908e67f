"""Times, devices, seeds, memory and provenance of a run."""

import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from harness import devices, provenance
from harness.training import seeding, timing
from reports.contract.text import without_passwords

CPU = torch.device("cpu")


def test_summary_leaves_the_warm_up_out() -> None:
    step_s = [9.0] * timing.WARM_UP_STEPS + [0.1, 0.2, 0.3, 0.4, 0.5] * 3
    assert timing.summary(step_s, batch_size=60) == {
        "time/step_s_median": pytest.approx(0.3),
        "time/step_s_p90": pytest.approx(0.5),
        "time/images_per_s": pytest.approx(200),
    }
    assert timing.summary([9.0, 9.0, 1.0, 1.0], batch_size=1)["time/step_s_median"] == 1.0
    assert timing.summary([2.0], batch_size=1)["time/step_s_median"] == 2.0


def test_timer_gives_one_duration_a_step_that_add_up() -> None:
    timer = timing.StepTimer(torch.device("cpu"))
    for _ in range(5):
        torch.randn(100, 100) @ torch.randn(100, 100)
        timer.lap()
    step_s, total = timer.seconds()
    assert len(step_s) == 5
    assert min(step_s) > 0
    assert sum(step_s) <= total <= sum(step_s) + 0.05


def test_a_seeded_block_is_repeatable_and_restores_the_generator() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    drawn = []
    for _ in range(2):
        with seeding.seeded(3, "evaluation", 1, device=CPU):
            drawn.append(torch.rand(5))
    assert torch.equal(*drawn)
    with pytest.raises(ZeroDivisionError), seeding.seeded(3, "evaluation", 1, device=CPU):
        torch.rand(5) / (1 // 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_missing_devices_are_named() -> None:
    assert devices.missing_reason("cpu") is None
    if not torch.cuda.is_available():
        assert re.match(r"cuda: no CUDA device is visible", devices.missing_reason("cuda") or "")
    assert devices.missing_reason("cuda:999") is not None


def test_peak_memory_sees_a_large_tensor() -> None:
    device = torch.device("cpu")
    devices.reset_peak_memory(device)
    before = devices.peak_memory_mb(device)
    torch.ones(50_000_000).sum()
    assert devices.peak_memory_mb(device) > before + 150


def test_provenance_names_code_packages_and_hardware(tmp_path: Path) -> None:
    facts = provenance.provenance()
    assert facts["packages"]["torch"] == torch.__version__.partition("+")[0]
    assert facts["threads"] == torch.get_num_threads()
    assert facts["cpu"]
    here = provenance.git_state(Path(__file__).parent)
    assert here["git_commit"] is None or re.fullmatch(r"[0-9a-f]{40}", here["git_commit"])
    assert provenance.git_state(tmp_path) == {"git_commit": None, "git_dirty": None}
    assert provenance.package_version("no-such-package") is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "harness run --tracking-uri postgresql://me:secret@db:5432/x",
            "harness run --tracking-uri postgresql://me:***@db:5432/x",
        ),
        ("https://:token@host/", "https://:***@host/"),
        ("postgresql://me:pa/ss@db/x", "postgresql://me:***@db/x"),
        ("(http://me:a@b@host:5000/api?x=1) http://me:s@h", "(http://me:***@host:5000/api?x=1) http://me:***@h"),
        ("postgresql://db/x?user=me&password=secret&a=b", "postgresql://db/x?user=me&password=***&a=b"),
        ("mssql://h?odbc_connect=UID%3Dme;PWD%3Dsecret;x", "mssql://h?odbc_connect=UID%3Dme;PWD%3D***;x"),
        ("sqlite:////a/mlflow.db and http://127.0.0.1:5000", "sqlite:////a/mlflow.db and http://127.0.0.1:5000"),
    ],
)
def test_passwords_are_not_shown(text: str, shown: str) -> None:
    assert without_passwords(text) == shown


KEEPING = """
import resource
import sys
import torch
from pathlib import Path
from harness import devices

def resident_mb():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

if sys.argv[1] == "keep":
    devices.keep_freed_memory()
a, b = torch.ones(16_000_000), torch.ones(16_000_000)
for step in range(30):
    if step == 20:
        before = faults()
    c = a + b
    d = c * 2
print(faults() - before)
del a, b, c, d
kept = resident_mb()
devices.reset_peak_memory(torch.device("cpu"))
print(kept - resident_mb())
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_freed_memory_is_kept_between_steps_and_given_back_between_runs() -> None:
    found = {}
    for mode in ("keep", "default"):
        done = subprocess.run([sys.executable, "-c", KEEPING, mode], capture_output=True, text=True, check=True)
        found[mode] = [float(line) for line in done.stdout.split()]
    assert found["keep"][0] < 0.1 * found["default"][0]  # pages that had to come anew
    assert found["keep"][1] > 50  # MB of the 64 that reset_peak_memory gave back


def test_denormal_numbers_are_zero_inside_the_block_and_only_there() -> None:
    tiny = torch.full((64,), 1e-39)
    for before in (False, True):
        torch.set_flush_denormal(before)
        try:
            with devices.flushed_denormals():
                assert (tiny * 1.0 == 0).all()
            assert bool((tiny * 1.0 == 0).all()) is before
        finally:
            torch.set_flush_denormal(False)
