"""Tables as the programs read them that they are written for: spreadsheets, Markdown, LaTeX."""

import io

import pandas as pd
from markdown_it import MarkdownIt

from reports.page import export, latex
from reports.page.table import Cell, Column, Table


def test_a_csv_opens_in_a_spreadsheet_and_hides_no_formula():
    texts = ["a · τ", "=1", "'=1", "＝1", "﹢1", " -1", "\t1", "−1", "'x", "1e3"]
    content = export.csv(pd.DataFrame({"setting": texts, "mean": [-1.5] * len(texts)}))
    assert content.startswith(b"\xef\xbb\xbfsetting,mean\n")
    read = pd.read_csv(io.BytesIO(content))
    shown = ["a · τ", "'=1", "''=1", "'＝1", "'﹢1", "' -1", "'\t1", "−1", "'x", "1e3"]
    assert list(read["setting"]) == shown
    assert (read["mean"] == -1.5).all()


def test_markdown_shows_labels_as_they_are():
    texts = [
        "*a* _b_ c_d ~~e~~",
        "`f` <i> &amp; $x$",
        "a|b\\|c",
        "[x](y) ![x](z)",
        "http://x.y www.z.a @b",
        "a\\",
        "#1",
    ]
    columns = [Column(f"x{i}|*y*") for i in range(len(texts))]
    table = Table("_caption_ *of* `it`", columns, [[Cell(text) for text in texts]])
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(export.markdown([table]))
    cells = [token.children for token in tokens if token.type == "inline"]
    kinds = {child.type for children in cells[1:] for child in children}
    assert kinds <= {"text", "text_special"}
    shown = ["".join(child.content for child in children) for children in cells]
    assert shown == ["_caption_ *of* `it`", *(column.title for column in columns), *texts]


def test_latex_is_ascii_and_shows_every_letter():
    assert latex.escaped("müller · τ ≤ −1.5 ● 100 %") == r"m\"{u}ller $\cdot$ $\tau$ $\leq$ $-$1.5 $\bullet$ 100 \%"
    assert latex.escaped("a--b ''c'' ß é cafe\u0301") == r"a-{}-b '{}'c'{}' \ss{} \'{e} caf\'{e}"
    assert latex.escaped("漢🙂") == r"\otherletter{28450}{6F22}\otherletter{128578}{1F642}"
    assert latex.escaped("") == ""
    every = "".join(map(chr, range(32, 0x3000)))
    table = Table(every, [Column(every)], [[Cell(every)]])
    assert latex.latex([table]).isascii()
