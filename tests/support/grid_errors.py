"""The form of an error of a grid, and what the tables of refused grids begin with."""

import re

LINE = re.compile(r"[^\n]+:[1-9]\d*:[1-9]\d*: \S[^\n]*: [^\n]+")
HEAD = "estimators: [straight_through]\nseeds: [0]\n"
