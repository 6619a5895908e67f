"""A file that is no grid is refused in one line."""

from pathlib import Path

import pytest
from grid_errors import LINE

from estimators import REGISTRY
from harness.grid.load import GridError, load_grid

FILES = {
    "empty": (b"", "1:1: file: expected a mapping of sections, got an empty file."),
    "comments": (b"# nothing\n---\n", "1:1: file: expected a mapping of sections, got an empty file."),
    "list": (b"- a\n- b\n", "1:1: grid: expected a mapping, got ['a', 'b']."),
    "text": (b"hello", "1:1: grid: expected a mapping, got 'hello'."),
    "number": (b"\n\n  3", "3:3: grid: expected a mapping, got 3."),
    "unclosed list": (
        b"seeds: [0\nname: x",
        "2:5: file: expected YAML, got a syntax error: expected ',' or ']', but got ':'.",
    ),
    "bad indentation": (
        b"a:\n  b: 1\n c: 2\n",
        "3:2: file: expected YAML, got a syntax error: expected <block end>, but found '<block mapping start>'.",
    ),
    "tab": (
        b"data:\n\tname: x",
        "2:1: file: expected YAML, got a syntax error: found character '\\t' that cannot start any token.",
    ),
    "binary": (b"\x89PNG\r\n\x1a\n\x00", "1:1: file: expected text in UTF-8, got the byte 0x89."),
    "latin-1": ("name: x\nquestion: für".encode("latin-1"), "2:12: file: expected text in UTF-8, got the byte 0xfc."),
    "control characters": (b"name: a\nx: \x07", "2:4: file: expected YAML text, got the character '\\x07'."),
    "python": (
        b"a: !!python/object/apply:os.system [ls]",
        "1:4: file: expected no YAML tags, got 'tag:yaml.org,2002:python/object/apply:os.system'.",
    ),
    "two documents": (b"a: 1\n---\nb: 2\n", "2:1: file: expected one YAML document, got a second one."),
    "key twice": (b"name: a\nname: b\n", "2:1: file: expected each key once, got 'name' again (line 1)."),
    "key that is a number": (b"1: 2", "1:1: file: expected a key that is text, got 1."),
    "unknown alias": (b"a: *b", "1:4: file: expected an anchor defined above, got '*b'."),
    "recursive alias": (b"a: &b [*b]", "1:8: file: expected an anchor defined above, got '*b'."),
    "deep": (b"[" * 100, "1:21: file: expected at most 20 levels of nesting, got more."),
    "too large": (b"# " + b"x" * 1_000_000, "1:1: file: expected a file of at most 1000000 bytes, got more."),
    "half a character": (b'name: "\\ud800"', "1:7: file: expected text, got half of a surrogate pair."),
    "impossible escape": (
        b'name: "\\Uffffffff"',
        "1:1: file: expected YAML, got text that cannot be read: OverflowError.",
    ),
}


@pytest.mark.parametrize(("raw", "expected"), FILES.values(), ids=list(FILES))
def test_a_file_that_is_no_grid_is_one_line(refuse, raw, expected):
    assert refuse(raw) == [expected]


def test_a_small_file_cannot_grow_into_a_large_one(refuse):
    nine = ",".join(["*a"] * 9)
    bomb = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
        f"{name}: &{name} [{nine.replace('a', before)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    )
    [line] = refuse(bomb)
    assert "file: expected at most 20000 values, got more." in line


def test_a_missing_file_a_folder_and_an_unreadable_file(tmp_path, monkeypatch):
    def refusal(path: Path) -> str:
        with pytest.raises(GridError) as caught:
            load_grid(path, REGISTRY)
        [line] = caught.value.messages
        assert LINE.fullmatch(line)
        return line.removeprefix(str(path))

    missing = tmp_path / "no.yaml"
    assert refusal(missing) == ":1:1: file: expected a readable grid file, got 'no such file or directory'."
    assert refusal(tmp_path) == ":1:1: file: expected a grid file, got a directory."
    assert "expected a readable grid file" in refusal(missing / "x")
    monkeypatch.setattr(Path, "open", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    assert refusal(missing) == ":1:1: file: expected a readable grid file, got 'permission denied'."
