"""`exml report --html`: what is on the page, read by an HTML parser."""

import base64
import hashlib
import io
import re
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from exml_lightning.report.page import runs as runs_module
from exml_lightning.report.page.page import build_page
from exml_lightning.report.pictures import draw_pictures
from exml_lightning.report.rows import sort_runs
from exml_lightning.report.runs import find_runs
from tests.report.fake_runs import brightness, write_agreement_run, write_run, write_samples

EMPTY = {"img", "meta"}
DIGITS = [str(i) for i in range(10)]
HOSTILE = '<script>alert(1)</script><img src=x onerror="alert(2)">'


class Page(HTMLParser):
    """Every element with its attributes and all text in it; the order of tags is checked."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.text = [], [], text
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"an attribute twice: {tag} {attrs}"
        found = {"tag": tag, **dict(attrs), "text": "", "parents": list(self.open)}
        self.elements.append(found)
        if tag not in EMPTY:
            self.open.append(found)

    def handle_endtag(self, tag):
        assert self.open.pop()["tag"] == tag

    def handle_data(self, data):
        for found in self.open:
            found["text"] += data

    def all(self, tag, within=None, **attributes):
        return [
            found
            for found in self.elements
            if found["tag"] == tag
            and all(found.get(key.rstrip("_").replace("_", "-")) == value for key, value in attributes.items())
            and (within is None or any(within is parent for parent in found["parents"]))
        ]

    def rows(self, table):
        rows = [row for row in self.all("tr", table) if any(p["tag"] == "tbody" for p in row["parents"])]
        cells = [found for found in self.elements if found["tag"] in ("th", "td")]
        return [[c["text"].strip() for c in cells if any(row is p for p in c["parents"])] for row in rows]

    def run(self, name):
        return next(d for d in self.all("details", class_="run") if d["text"].strip().startswith(name))


def page_of(place, left_out=None):
    left_out = [] if left_out is None else left_out
    runs, lines = find_runs([place])
    report = sort_runs(runs, lines)
    left_out += lines
    return Page(build_page(report, draw_pictures(report, left_out), left_out, "exml report runs --html"))


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    root = tmp_path_factory.mktemp("page") / "runs"
    matrix = [[1.0, 0.0], [0.125, 0.875]]
    for k in range(2):
        write_run(root, "split_mnist", "replay", k, 0.91234 + 0.02 * k, experts=2, matrix=matrix)
    for size in (77, 99):
        write_run(root, "split_mnist", "model_inversion", 0, 0.4321, f"run{size}", experts=2, buffer__size=size)
    write_run(root, "split_mnist", "oracle", 0, 0.99, experts=2)
    write_samples(root / "split_mnist" / "replay" / "run0", [(0, 1), (2, 3)], DIGITS, confidence=0.9876)
    write_samples(root / "split_mnist" / "model_inversion" / "run77", [(4, 5)], DIGITS)
    write_agreement_run(root)
    write_run(root, "split_mnist", "noise", 0, 0.5, results={"experiences_learned": 2})
    return page_of(root)


def test_the_page_is_one_file_that_asks_for_nothing(page):
    for found in page.elements:
        assert not {"srcset", "onclick", "action", "srcdoc"} & found.keys()
        for key in ("src", "href", "xlink:href"):
            assert found.get(key, "#").startswith(("#", "data:image/png;base64,"))
        assert found["tag"] not in ("link", "iframe", "object", "embed", "base", "form")
    addresses = set(re.findall(r'[\w:]+="https?://[^"]*"', page.text))
    assert addresses <= {'xmlns:xlink="http://www.w3.org/1999/xlink"', 'xmlns="http://www.w3.org/2000/svg"'}
    assert not re.search(r"url\((?!#)|@import|fetch\(", page.text)
    (policy,) = page.all("meta", http_equiv="Content-Security-Policy")
    (script,) = page.all("script")
    digest = base64.b64encode(hashlib.sha256(script["text"].encode()).digest()).decode()
    assert policy["content"].startswith("default-src 'none'; ")
    assert f"script-src 'sha256-{digest}';" in policy["content"]


def test_structure_for_keyboards_and_screen_readers(page):
    assert page.all("html", lang="en")
    ids = [found["id"] for found in page.elements if "id" in found]
    assert len(set(ids)) == len(ids)
    assert set(re.findall(r"url\(#(.+?)\)", page.text)) <= set(ids)
    for found in page.elements:
        for key in ("href", "xlink:href", "aria-labelledby"):
            target = found.get(key, "data:")
            assert target.startswith("data:") or target.removeprefix("#") in ids
    assert [len(page.all(tag)) for tag in ("main", "nav", "h1", "footer")] == [1] * 4
    assert page.all("a", class_="skip", href="#main")
    assert page.all("button", id="theme")
    for table in page.all("table"):
        assert len(page.all("caption", table)) == 1
        assert all(th.get("scope") in ("col", "row") for th in page.all("th", table))
    for region in page.all("div", role="region"):
        assert region.get("aria-label") or region["aria-labelledby"]
        assert region["tabindex"] == "0"
    assert all(re.fullmatch(r"class \d, image \d of expert \d", image["alt"]) for image in page.all("img"))
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in page.all("svg"))
    headings = [found["tag"] for found in page.elements if re.fullmatch("h[1-6]", found["tag"])]
    assert all(int(after[1]) - int(before[1]) <= 1 for before, after in pairwise(headings))


def test_the_contents_are_complete(page):
    links = [link["href"] for link in page.all("a", page.all("nav")[0])]
    sections = [f"#{section['id']}" for section in page.all("section")]
    assert sections == ["#summary", "#tables", "#time", "#buffer", "#samples", "#runs"]
    assert sorted(links) == sorted([*sections, "#table-1", "#table-2"])
    assert len(page.all("svg")) == len(page.all("figure")) == 3  # none compares agreement


def test_runs_of_other_settings_are_told_apart(page):
    names = [details["text"].strip().split("\n")[0] for details in page.all("details", class_="run")]
    for folder in ("run77", "run99"):
        wanted = f"split_mnist, Model Inversion ED, run 0 (model_inversion/{folder})"
        assert sum(name.startswith(wanted) for name in names) == 1
    assert not any("(replay" in name for name in names)


def test_numbers_are_those_of_the_files(page):
    table = next(t for t in page.all("table") if "Table 2" in page.all("caption", t)[0]["text"])
    rows = page.rows(table)
    assert rows[0] == ["Oracle", "99.00", "99.42 ± 0.19", "1", "2.5", "no", "2 experts, the paper's 5"]
    assert rows[1][:3] == ["Ensemble Avg.", "no runs", "33.40 ± 4.74"]
    replay = [f"{100 * (0.91234 + 0.01):.2f} ± {100 * np.std([0, 0.02], ddof=1):.2f}", "", "2", "100 + 50", "no"]
    assert rows[-1][:6] == ["Replay ED", *replay]
    listed = page.rows(next(t for t in page.all("table") if "All runs" in page.all("caption", t)[0]["text"]))
    assert len(listed) == 6
    assert ["split_mnist", "Replay ED", "1", "93.23", "25.00", "101", "50", "cpu, 1 thread"] in [
        row[:8] for row in listed
    ]
    details = page.run("split_mnist, Replay ED, run 0")
    assert "exml fit -c configs/split_mnist.yaml --data.run_id 0" in [dd["text"] for dd in page.all("dd", details)]
    (shaded,) = page.all("table", details, class_="matrix")
    assert [th["text"] for th in page.all("th", shaded, scope="col")] == ["learned", "0, 1", "2, 3", "stream"]
    assert page.rows(shaded) == [
        ["expert 1: 0, 1", "100.0", "0.0", "50.0"],
        ["expert 2: 2, 3", "12.5", "87.5", "91.2"],
    ]
    assert [td["style"] for td in page.all("td", shaded)][:3] == ["--p:100%", "--p:0%", "--p:50%"]
    assert [td["text"] for td in page.all("td", shaded, class_="num shade new")] == ["100.0", "87.5"]
    (other,) = page.all("table", page.run("split_mnist, Replay ED, run 1"), class_="matrix")
    assert page.all("th", other, scope="col")[1]["text"] == "part 1"  # its folder has no samples to tell the classes
    (agreement,) = page.all("table", page.run("from_folder (no labelled images), Noise ED"), class_="matrix")
    assert page.rows(agreement) == [["expert 1", "100.0", "-", "100.0"], ["expert 2", "62.5", "100.0", "81.2"]]
    (line,) = page.all("li", page.all("div", class_="notice")[0])
    assert "noise/run0 is unfinished, 2 of 5 experts" in line["text"]


def test_images_and_the_experts_confidence(page):
    with_it = page.run("split_mnist, Replay ED, run 0")
    images = page.all("img", with_it)
    assert len(images) == 20
    assert [span["text"] for span in page.all("span", with_it, class_="confidence")] == ["98.8"] * 20
    (third,) = [image for image in images if image["alt"] == "class 3, image 5 of expert 2"]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(third["src"].partition(",")[2]))))
    assert pixels.shape == (8, 8)
    assert (pixels == brightness(3, 10)).all()
    assert len(page.all("img")) == 30  # ten of another run, made before runs kept it
    assert len(page.all("span", class_="confidence")) == 20


def test_text_of_strangers_stays_text(tmp_path):
    root = tmp_path / "<b>runs"
    for k, size in enumerate((10, 20)):
        run = write_run(
            root, "x", "noise", k, 0.5,
            results={"command": HOSTILE, "device": HOSTILE + "\udcff", "seed": HOSTILE},
            data__scenario__name=HOSTILE,
            buffer__size=size,
            model__optimizer={"class_path": HOSTILE, "init_args": {HOSTILE: f"{HOSTILE}{size}"}},
            buffer__generator__init_args={HOSTILE: [HOSTILE, size]},
        )  # fmt: skip
        write_samples(run, [(0, 1)], [HOSTILE, '"><svg onload=alert(3)>'], confidence=0.5)
    write_run(root, "x", HOSTILE.replace("/", "_"), 0, 0.5, buffer__generator={"class_path": f"a.{HOSTILE}"})
    (root / "x" / "noise" / "run0" / "samples" / "experience=1.png").write_text("<script>")
    page = page_of(root)
    assert len(page.all("script")) == 1
    assert not page.all("b")
    assert not [found for found in page.elements for key in found if key.startswith("on")]
    assert all(found["src"].startswith("data:image/png") for found in page.all("img"))
    known = (
        "html head meta title style body script a header div p h1 h2 h3 h4 button nav ul li main section strong span "
        "time code table caption thead tbody tr th td details summary dl dt dd figure figcaption img footer "
        "svg g path text tspan defs clippath use rect image"
    )
    assert {found["tag"] for found in page.elements} <= set(known.split())
    assert page.text.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 10
    assert any(HOSTILE in dd["text"] for dd in page.all("dd"))


def test_rows_and_columns_bear_the_names_of_classes(tmp_path):
    said = [["cat", "dog"], ["<b>", "a class whose name is very long"]]
    write_run(tmp_path, "split_digits", "replay", 0, 0.5, experts=2, results={"expert_classes": said})
    page = page_of(tmp_path, [])
    (table,) = page.all("table", class_="matrix")
    names = ["cat, dog", "<b>, a class whose name…"]
    assert [th["text"] for th in page.all("th", table, scope="col")] == ["learned", *names, "stream"]
    assert [row[0] for row in page.rows(table)] == [f"expert {k}: {name}" for k, name in enumerate(names, 1)]


def test_what_has_no_room_is_named(tmp_path, monkeypatch):
    for k in range(3):
        write_samples(write_run(tmp_path, "split_digits", "replay", k, 0.5, experts=30), [(0, 1)], DIGITS)
    monkeypatch.setattr(runs_module, "MOST_BYTES", 1500)
    monkeypatch.setattr(runs_module, "MOST_RUNS", 2)
    left_out = []
    page = page_of(tmp_path, left_out)
    assert any("images of " in line and "are not on the page" in line for line in left_out)
    assert any("matrix and images of 1 of 3 runs" in line for line in left_out)
    assert len(page.all("details", class_="run")) == 2
    table = page.all("table", class_="matrix")[0]
    assert [row[0] for row in page.rows(table)][::23] == ["expert 1: 0, 1", "expert 30"]
    assert len(page.rows(table)) == 24
    assert "24 of 30 rows and 24 of 30 columns" in page.all("caption", table)[0]["text"]
