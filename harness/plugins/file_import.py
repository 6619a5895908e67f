"""Importing the file of a plug-in as a module, and what is noted on the module about that."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from harness.errors import UserError
from harness.plugins import user_modules
from harness.plugins.identity import IDENTITY, identity_of, sha256
from harness.plugins.imports import Imports, read_imports

CHANGES = "__harness_changes__"
"""The attribute of a plug-in's module with what its import changed in the process, in words."""
FILES = "__harness_files__"
"""The attribute of a plug-in's module with the files of the user's own modules that it imports."""
UNSEEN = "__harness_unseen__"
"""The attribute of a plug-in's module with the own modules that its identity does not cover."""


class PluginError(UserError):
    """A plug-in that was refused."""


def import_file(path: Path, text: bytes, imports: Imports) -> ModuleType:
    """Import a file as a module named by its content: the same text at the same path is executed once a process.

    Raises PluginError, with the line of the file, if it fails.
    """
    from harness.process_state import preserved

    digest = identity_of(text, imports.own.values())
    name = f"harness_plugin_{digest[:16]}_{sha256(str(path).encode('utf-8', 'surrogateescape'))[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    loader = SourceFileLoader(name, str(path))
    spec = spec_from_file_location(name, path, loader=loader)
    assert spec is not None  # noqa: S101  # a loader was given
    module, before = module_from_spec(spec), set(sys.modules)
    sys.modules[name] = module  # dataclasses and inspect look the module up while it is executed
    try:
        with preserved() as changed, _no_bytecode():
            exec(loader.source_to_code(text, str(path)), module.__dict__)  # noqa: S102  # a plug-in is code to run
    except (Exception, SystemExit) as error:  # a plug-in may raise anything
        del sys.modules[name]
        line = _line_in(path, error)
        where = _line_of_module(error, imports)
        raise PluginError(f"{path.name}:{line}: plugin failed to import: {import_error(error)}{where}") from error
    finally:
        now = read_imports(text, path.parent)  # it may have changed sys.path
        user_modules.remember(now)
    setattr(module, FILES, tuple(str(one.path) for one in now.own.values() if one.path))
    setattr(module, IDENTITY, identity_of(text, now.own.values()))
    setattr(module, CHANGES, changed)
    setattr(module, UNSEEN, user_modules.unseen(before, now))
    return module


@contextmanager
def _no_bytecode() -> Iterator[None]:
    """Write no bytecode of the user's modules: it is taken for current if an edit follows within a second."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def import_notes(classes: Sequence[type]) -> list[str]:
    """Return a line for each plug-in whose import changed the state of the process. The change was put back."""
    from harness.process_state import change_note

    modules = dict.fromkeys(cls.__module__ for cls in classes)
    found = {name: getattr(sys.modules.get(name), CHANGES, None) for name in modules}
    notes = [change_note(_file_name(name), changed) for name, changed in found.items() if changed]
    unseen = {name: getattr(sys.modules.get(name), UNSEEN, None) for name in modules}
    return notes + [_unseen_note(_file_name(name), others) for name, others in unseen.items() if others]


def _unseen_note(who: str, names: Sequence[str]) -> str:
    """Return a note about own modules that the identity of a plug-in does not cover."""
    listed = f"{', '.join(names[:3])}{' and others' if len(names) > 3 else ''}"
    return (
        f"{who} loads {listed} by a computed name: an edit of that makes no new runs. Name it in an import statement to"
        " change this."
    )


def _file_name(module: str) -> str:
    return Path(getattr(sys.modules[module], "__file__", None) or module).name


def _line_in(path: Path, error: BaseException) -> int:
    """Return the line of the plug-in's own file that the error came from."""
    if isinstance(error, SyntaxError) and error.filename == str(path) and error.lineno:
        return error.lineno
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame.lineno for frame in reversed(frames) if frame.filename == str(path) and frame.lineno), 1)


def _line_of_module(error: BaseException, imports: Imports) -> str:
    """Return the line of the module beside a plug-in that an error came from, in brackets; empty if from none."""
    files = {str(own.path) for own in imports.own.values()}
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError):
        frames.append((error.filename or "", error.lineno))
    found = [f" ({Path(file).name}:{line})" for file, line in frames if file in files]
    return found[-1] if found else ""


def import_error(error: BaseException) -> str:
    """Return in one line why an import failed, with what to do about a module that is not found."""
    text = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split())
    line = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if isinstance(error, ModuleNotFoundError):
        return f"{line}. Put the module beside the plug-in, add its folder to PYTHONPATH, or install it"
    if isinstance(error, ImportError) and "relative import" in text:
        return f"{line}. Import the modules beside a plug-in by their names, as in `import helper`"
    return line
