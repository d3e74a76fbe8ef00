"""What the documents hold: fenced blocks of code, the files that they show, and their command lines."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).parents[1]
_BLOCK = re.compile(r"^```(?P<language>\w+)(?P<notes>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block of a document.

    Attributes:
      language: such as `python`.
      notes: what follows it, such as a title.
      text: of the block.
      line: of the document that the text begins in, from 1.
    """

    language: str
    notes: str
    text: str
    line: int


def pages() -> list[Path]:
    """Returns README and all pages of docs/, API pages included."""
    return [TOP / "README.md", *sorted((TOP / "docs").rglob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """Returns the fenced blocks of a page, in order."""
    content = page.read_text()
    return [
        Block(found["language"], found["notes"].strip(), found["text"], content[: found.start("text")].count("\n") + 1)
        for found in _BLOCK.finditer(content)
    ]


def run_page(page: Path, namespace: dict[str, object] | None = None) -> dict[str, object]:
    """Runs the Python blocks of a page in the current folder, one after the other; files that it shows are written.

    Args:
      page: the page.
      namespace: names that its code may use; what stands for the user's own.

    Returns:
      The namespace after the last block.
    """
    namespace = {"__name__": "__main__"} | (namespace or {})
    for block in blocks(page):
        titled = re.fullmatch(r'title="([\w.]+)"', block.notes)
        if titled:
            Path(titled[1]).write_text(block.text)
        if block.language == "python":
            padded = "\n" * (block.line - 1) + block.text  # errors tell lines of the page
            exec(compile(padded, str(page), "exec"), namespace)
    return namespace


def command_lines(page: Path) -> list[list[str]]:
    """Returns the words after `hadas` of every command line in the `sh` blocks of a page."""
    found = []
    for block in blocks(page):
        if block.language != "sh":
            continue
        for line in block.text.replace("\\\n", " ").splitlines():
            for part in line.split("&&"):
                words = shlex.split(part, comments=True)
                if words and Path(words[0]).name == "hadas":
                    found.append(words[1:])
    return found
