"""Nothing that a file can hold is executed: no pickle is loaded, no shell started, no YAML object made."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from paths import ROOT

FOLDERS = ("estimators", "harness", "reports", "benchmarks", "experiments")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
PICKLES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
EXECUTED = {"eval", "exec", "__import__"}
ALLOWED = {("harness/plugins/file_import.py", "exec")}  # a plugin is there to be run, and the user names it


def faults(text: str) -> Iterator[str]:
    """What a file does that could execute what it reads, a word each."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] in PICKLES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in PICKLES:
            yield str(node.module)
        elif isinstance(node, ast.Call):
            yield from _calls(ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords})


def _calls(name: str, named: dict[str, str]) -> Iterator[str]:
    last = name.rpartition(".")[2]
    if name == "torch.load" and named.get("weights_only") != "True":
        yield "torch.load without weights_only=True"
    if named.get("allow_pickle", "False") != "False" or (
        name in ("np.load", "numpy.load") and "allow_pickle" not in named
    ):
        yield "np.load without allow_pickle=False"
    if last in ("read_pickle", "unsafe_load", "full_load", "unsafe_load_all") or name in ("yaml.load", "yaml.load_all"):
        yield name
    if "shell" in named or name in ("os.system", "os.popen") or last in ("getoutput", "getstatusoutput"):
        yield f"{name} with a shell"
    if name in EXECUTED:
        yield name
    if last in ("extractall", "unpack_archive"):
        yield name


def test_sources_are_found() -> None:
    assert len(SOURCES) > 60


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_read_is_executed(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    assert [fault for fault in faults(path.read_text(encoding="utf-8")) if (name, fault) not in ALLOWED] == []


@pytest.mark.parametrize(
    "text",
    [
        *("import pickle", "from joblib import load", "import a, marshal", "from dill.x import y", "eval('1')"),
        *("torch.load(f)", "torch.load(f, weights_only=False)", "np.load(f)", "np.load(f, allow_pickle=True)"),
        *("pd.read_pickle(f)", "yaml.load(t, Loader=yaml.Loader)", "yaml.unsafe_load(t)", "exec(t)", "os.system(c)"),
        *("subprocess.run(c, shell=True)", "subprocess.getoutput(c)", "tar.extractall(p)", "shutil.unpack_archive(p)"),
    ],
)
def test_each_fault_would_be_found(text: str) -> None:
    assert len(list(faults(text))) == 1


@pytest.mark.parametrize(
    "text", ["torch.load(f, weights_only=True)", "np.load(f, allow_pickle=False)", "yaml.parse(t)"]
)
def test_safe_calls_are_not_faults(text: str) -> None:
    assert list(faults(text)) == []
