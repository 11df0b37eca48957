"""A hook of MkDocs: what stands outside `docs/`, where GitHub looks for it, and links to it."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
PAGES = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
"""Files of the root that are pages of the site, too."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the root. MkDocs calls this."""
    for name, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Mend links that are right on GitHub. MkDocs calls this for each page.

    A link to a page of the root leads to its copy here, a link from there into `docs/` to the page. Of a link to
    another file of the repository, which the site does not have, the text stays.

    Args:
        markdown: The page.
        page: Which one.
        config: Of the site.
        files: Of the site.

    Returns:
        The page with links that lead somewhere.
    """
    if page.file.src_uri in PAGES.values():
        return re.sub(r"\]\(docs/", "](", markdown)
    for name, copy in PAGES.items():
        markdown = markdown.replace(f"](../{name})", f"]({copy})")
    return re.sub(r"(?<!!)\[([^\]]+)\]\(\.\./[^)]*\)", r"\1", markdown)
