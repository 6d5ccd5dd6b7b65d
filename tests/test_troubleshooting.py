"""docs/troubleshooting.md quotes messages that the program prints."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROWS = [line.split(" | ") for line in (ROOT / "docs" / "troubleshooting.md").read_text().splitlines()
        if line.startswith("| `")]
MESSAGES = [row[0].removeprefix("| ").strip("`") for row in ROWS]


def texts() -> list[str]:
    """Return all texts of the package; an expression in an f-string is one character that no message has."""
    found = []
    for path in (ROOT / "durian_jax").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(part.value if isinstance(part, ast.Constant) else "\0" for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def test_the_page_has_messages_with_cause_and_remedy():
    assert len(MESSAGES) > 25 and len(set(MESSAGES)) == len(MESSAGES)
    assert all(len(row) == 3 and all(cell.strip(" |") for cell in row) for row in ROWS)


@pytest.fixture(scope="module")
def package():
    return texts()


@pytest.mark.parametrize("message", MESSAGES)
def test_a_quoted_message_is_in_the_program(message, package):
    pattern = re.compile("[^\n]*".join(re.escape(part) for part in message.split("...")))
    assert any(pattern.search(text) for text in package), message


def test_the_page_is_linked():
    assert "docs/troubleshooting.md" in (ROOT / "README.md").read_text()
