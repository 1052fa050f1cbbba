"""The programs that a Markdown page shows, put together as its reader would.

A fenced block below a line like **`folder/file.py`**: is that file. One below **`folder/file.py`**,
`Class.name`: takes the place of that member of a class in the file, or is added to the class.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).resolve().parents[2] / "docs" / "plugin-authors"

_FENCE = re.compile(
    r"(?:^\*\*`([^`]+)`\*\*(?:, `([^`]+)`)?:\n\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL
)
_SECTION = re.compile(r"^## (.+)$", re.MULTILINE)


class Block(NamedTuple):
    """A fenced block, and the section of the page that it stands in."""

    section: str
    language: str
    path: str
    member: str
    text: str


def blocks(page: str) -> list[Block]:
    """Return the fenced blocks of a page of docs/plugin-authors."""
    text = (DOCS / page).read_text()
    # A shell comment in a block is no heading, since `##` does not begin one here.
    sections = [(found.start(), found[1]) for found in _SECTION.finditer(text)]
    found = []
    for fence in _FENCE.finditer(text):
        before = [title for start, title in sections if start < fence.start()]
        section = before[-1] if before else ""
        found.append(Block(section, fence[3], fence[1] or "", fence[2] or "", fence[4]))
    return found


def commands(page: str, section: str) -> list[str]:
    """Return the lines that a section tells the reader to type, of its first block of them."""
    found = [block for block in blocks(page) if block.section == section and not block.language]
    return found[0].text.splitlines()


def write(block: Block, root: Path) -> None:
    """Do with a block what the line above it says."""
    file = root / block.path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(_replaced(file.read_text(), block) if block.member else block.text)


def _replaced(source: str, block: Block) -> str:
    owner, _, member = block.member.partition(".")
    classes = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    (found,) = (node for node in classes if node.name == owner)
    lines = source.splitlines(keepends=True)
    for node in found.body:
        if isinstance(node, ast.FunctionDef) and node.name == member:
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == member:
            first = node.lineno
        else:
            continue
        return "".join([*lines[: first - 1], block.text, *lines[node.end_lineno :]])
    return "".join([*lines[: found.end_lineno], "\n", block.text, *lines[found.end_lineno :]])
