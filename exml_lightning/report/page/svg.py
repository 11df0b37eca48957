"""A figure of matplotlib as a part of an HTML page, in the page's font and in colours for light and dark."""

import io
import re

import matplotlib
from markupsafe import Markup, escape
from matplotlib.figure import Figure


def as_svg(figure: Figure, prefix: str, label: str) -> Markup:
    """Return a figure as an `svg` element, whose ids begin with `prefix`; a screen reader says its label."""
    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": prefix}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    text = re.sub(
        r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text[text.index("<svg") :], flags=re.DOTALL
    )
    text = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{prefix}-", text)
    # Black is the page's text; any other hue is lighter where the page is dark.
    text = re.sub(r"(?<=[:\"] )#(?:000000|222222)|(?<=\")#000000", "currentColor", text)
    text = re.sub(r"(?<=: )#[0-9a-f]{6}", r"light-dark(\g<0>, color-mix(in srgb, \g<0> 60%, white))", text)
    return Markup(text.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1))
