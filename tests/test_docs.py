"""Links between the pages lead somewhere, to files and to headings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GUIDES = sorted(f"docs/{page.name}" for page in ROOT.glob("docs/*.md"))
PAGES = ["README.md", "CHANGELOG.md", "experiments/README.md", *GUIDES]


def prose(text: str) -> str:
    """A page without its code."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))


def anchors(page: Path) -> set[str]:
    """The headings of a page, as GitHub turns them into anchors."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        repeated = (f"{slug}-{number}" for number in range(1, 100))
        found.add(slug if slug not in found else next(each for each in repeated if each not in found))
    return found


def broken(page: Path, root: Path) -> list[str]:
    """The relative links of a page that lead nowhere."""
    text = prose(page.read_text())
    targets = [*re.findall(r"\]\(([^)\s]+)\)", text), *re.findall(r"^\[[^\]]+\]: (\S+)$", text, re.MULTILINE)]
    names = set(re.findall(r"^\[([^\]]+)\]: ", text, re.MULTILINE))
    found = [name for name in re.findall(r"\]\[([^\]]+)\]", text) if name not in names]
    for target in targets:
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        is_there = file.exists() and file.is_relative_to(root)
        if not is_there or (anchor and anchor not in anchors(file)):
            found.append(target)
    return found


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    assert broken(ROOT / page, ROOT) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# Two of `these`: a heading\n\n# Again\n\n# Again\n")
    good = "[a](other.md) [b](other.md#two-of-these-a-heading) [c](#here) [d](https://x.org) `[e](f)` [g][at]"
    bad = "[f](gone.md) ![g](gone.png) [h](other.md#gone) [i](#gone) [j](../x) [k][gone]"
    page = tmp_path / "page.md"
    page.write_text(f"# Here\n{good}\n\n[at]: other.md#again-1\n")
    assert broken(page, tmp_path) == []
    page.write_text(f"{page.read_text()}\n{bad}\n")
    assert broken(page, tmp_path) == ["gone", "gone.md", "gone.png", "other.md#gone", "#gone", "../x"]
