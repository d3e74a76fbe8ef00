"""What finds and runs the code of documents."""

import documents
import pytest

PAGE = """# A page

```yaml title="kept.yaml"
name: mine
```

```python
from pathlib import Path

count = len(Path("kept.yaml").read_text())
```

```sh
hadas search --workdir 'my run'   # a comment
python -m venv .venv && .venv/bin/hadas train \\
  --epochs 3
```

```python
count += given
```
"""


@pytest.fixture
def page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "page.md"
    path.write_text(PAGE)
    return path


def test_blocks_share_names_and_shown_files_are_written(page):
    assert documents.run_page(page, {"given": 5})["count"] == len("name: mine\n") + 5


def test_an_error_names_page_and_line(page):
    page.write_text(PAGE.replace("count += given", "count += missing"))
    with pytest.raises(NameError, match="missing") as raised:
        documents.run_page(page)
    last = raised.traceback[-1]
    assert last.path == page
    assert last.lineno + 1 == PAGE[: PAGE.index("count += given")].count("\n") + 1


def test_command_lines_are_those_of_the_program(page):
    assert documents.command_lines(page) == [["search", "--workdir", "my run"], ["train", "--epochs", "3"]]
