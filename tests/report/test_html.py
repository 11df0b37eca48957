"""`exml report --html`: what is on the page, read by an HTML parser."""

import base64
import csv
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
import yaml
from PIL import Image

from exml_lightning.cli.main import main
from exml_lightning.report.cells import build_columns
from exml_lightning.report.page import page as page_module
from exml_lightning.report.page import pictures
from exml_lightning.report.page.markup import element, joined
from exml_lightning.report.page.matrices import MOST, matrix
from exml_lightning.report.page.page import build_page
from exml_lightning.report.run import Row
from exml_lightning.report.runs import find_runs
from tests.conftest import refused
from tests.report.fake_runs import brightness, write_run, write_samples

EMPTY = {"img", "input", "br", "meta"}
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

    def table(self, caption):
        (found,) = [t for t in self.all("table") if any(caption in c["text"] for c in self.all("caption", t))]
        return found

    def rows(self, table):
        rows = [row for row in self.all("tr", table) if any(p["tag"] == "tbody" for p in row["parents"])]
        cells = [found for found in self.elements if found["tag"] in ("th", "td")]
        return [[c["text"] for c in cells if any(row is p for p in c["parents"])] for row in rows]


def page_of(place):
    """The page as the command builds it, without the other files of the report."""
    without = {}
    runs, left_out = find_runs([place], without)
    columns = build_columns(runs, left_out)
    return Page(build_page(columns, list(without.values()), left_out, "exml report runs --html"))


def written(tmp_path, place):
    """The page as the command writes it."""
    main(["report", str(place), "--html", "--output", str(tmp_path / "report")])
    return Page((tmp_path / "report" / "report.html").read_text(encoding="utf-8"))


@pytest.fixture
def runs(tmp_path):
    root = tmp_path / "runs"
    matrix = [[1.0, 0.0], [0.125, 0.875]]
    for k in range(2):
        write_run(root, "split_mnist", "replay", k, 0.91234 + 0.02 * k, experts=2, matrix=matrix)
    write_run(root, "split_mnist", "model_inversion", 0, 0.4321, experts=2, buffer__size=77)
    write_run(root, "split_mnist", "oracle", 0, 0.99, experts=2)
    replay = root / "split_mnist" / "replay"
    write_samples(replay / "run0", [(0, 1), (2, 3)], DIGITS, confidence=0.9876)
    write_samples(root / "split_mnist" / "model_inversion" / "run0", [(4, 5)], DIGITS)
    return root


def test_the_page_is_one_file_that_asks_for_nothing(runs, tmp_path):
    page = page_of(runs)
    for found in page.elements:
        assert not {"srcset", "style", "onclick", "action", "srcdoc"} & found.keys()
        assert found.get("src", "data:").startswith("data:image/png;base64,") or "src" not in found
        assert found.get("href", "#").startswith("#")
        assert found["tag"] not in ("link", "iframe", "object", "embed", "base", "form")
    assert not re.search(r"https?://|url\(|@import|fetch\(", page.text)
    (policy,) = page.all("meta", http_equiv="Content-Security-Policy")
    for tag in ("style", "script"):
        (inline,) = page.all(tag)
        digest = base64.b64encode(hashlib.sha256(inline["text"].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy["content"]
    assert policy["content"].startswith("default-src 'none'; ")
    assert "unsafe" not in policy["content"]


def test_structure_for_keyboards_and_screen_readers(runs, tmp_path):
    page = page_of(runs)
    assert page.all("html", lang="en")
    ids = [found["id"] for found in page.elements if "id" in found]
    assert len(set(ids)) == len(ids)
    for link in page.all("a"):
        assert link["href"].removeprefix("#") in ids
    assert [len(page.all(tag)) for tag in ("main", "nav", "h1", "footer")] == [1] * 4
    assert page.all("a", class_="skip", href="#main")
    for table in page.all("table"):
        assert len(page.all("caption", table)) == 1
        assert all(th.get("scope") in ("col", "row", "colgroup") for th in page.all("th", table))
    for region in page.all("div", role="region"):
        assert region["aria-label"]
        assert region["tabindex"] == "0"
    for image in page.all("img"):
        assert re.fullmatch(r"class \d, image \d of expert \d", image["alt"])
    headings = [found["tag"] for found in page.elements if re.fullmatch("h[1-6]", found["tag"])]
    assert all(int(after[1]) - int(before[1]) <= 1 for before, after in pairwise(headings))
    for table in page.all("table", class_="sortable"):
        sorted_by = [th for th in page.all("th", table) if th.get("aria-sort") == "none"]
        buttons = page.all("button", table)
        assert len(buttons) == len(sorted_by) >= 3
        width = max(len(row) for row in page.rows(table))
        assert sorted(int(button["data-column"]) for button in buttons) == list(range(width))


def test_numbers_are_those_of_the_files(runs, tmp_path):
    page = written(tmp_path, runs)
    rows = {row[0].removesuffix("not in the paper"): row for row in page.rows(page.table("Table 2"))}
    accuracies = [
        json.loads((runs / "split_mnist" / "replay" / f"run{k}" / "summary.json").read_text())["stream_accuracy"]
        for k in range(2)
    ]
    mean, std = 100 * np.mean(accuracies), 100 * np.std(accuracies, ddof=1)
    assert f"{mean:.2f} ± {std:.2f} (2)" in rows["Replay ED"][4]
    assert any(cell.startswith("99.00 (1)") for cell in rows["Oracle"])
    assert "99.42 ± 0.19" in rows["Oracle"]  # the paper's
    assert "43.23 ± 3.00" in rows["Model Inversion ED"]
    listed = page.rows(page.table("All runs"))
    with (tmp_path / "report" / "runs.csv").open() as file:
        expected = list(csv.DictReader(file))
    assert len(listed) == len(expected) == 4
    for row, line in zip(listed, expected, strict=True):
        assert row[0] == line["scenario"]
        assert row[2] == line["run"]
        assert row[3] == f"{float(line['stream_accuracy_percent']):.2f}"
        assert row[4] == (f"{float(line['forgetting_percent']):.2f}" if line["forgetting_percent"] else "-")
        assert row[7] == line["seed"]
        assert row[9] == line["folder"]
    commands = [dd["text"] for dd in page.all("dd")]
    assert all(line["command"] in commands for line in expected)
    (details,) = [d for d in page.all("details", class_="run") if "split_mnist, Replay ED, run 0" in d["text"]]
    (shaded,) = page.all("table", details, class_="matrix")
    assert page.rows(shaded) == [["expert 1", "100.0", "0.0", "50.0"], ["expert 2", "12.5", "87.5", "91.2"]]
    shades = [td["class"] for td in page.all("td", shaded)]
    assert shades == ["num s10 new", "num s0", "num s5 total", "num s1", "num s9 new", "num s9 total"]
    (figure,) = page.all("figure", class_="chart")
    (line,) = [row for row in page.all("tr", figure) if row.get("data-values") and "Replay" in row["text"]]
    assert line["data-values"] == f"50.00 ± 0.00|{mean:.2f} ± {std:.2f}"
    # at the heights of 50 % and of the mean, from 16 (100 %) to 312 (0 %)
    points = [p["points"] for p in page.all("polyline", figure)]
    assert f"48.0,164.0 694.0,{312 - 296 * mean / 100:.1f}" in points


def test_images_and_the_experts_confidence(runs, tmp_path):
    page = page_of(runs)
    details = {d["text"].split("accuracy")[0].strip(): d for d in page.all("details", class_="run")}
    with_it = details["split_mnist, Replay ED, run 0"]
    images = page.all("img", with_it)
    assert len(images) == 20
    assert [span["text"] for span in page.all("span", with_it, class_="confidence")] == ["98.8"] * 20
    (third,) = [image for image in images if image["alt"] == "class 3, image 5 of expert 2"]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(third["src"].partition(",")[2]))))
    assert pixels.shape == (8, 8)
    assert (pixels == brightness(3, 10)).all()
    without = details["split_mnist, Model Inversion ED, run 0"]
    assert len(page.all("img", without)) == 10
    assert not page.all("span", without, class_="confidence")
    assert "made before runs kept the expert's confidence" in without["text"]
    assert not page.all("img", details["split_mnist, Replay ED, run 1"])


def test_the_same_images_are_on_the_page_once_and_not_too_many(runs, tmp_path, monkeypatch):
    write_samples(runs / "split_mnist" / "replay" / "run1", [(0, 1), (2, 3)], DIGITS, confidence=0.9876)
    page = page_of(runs)
    (again,) = [p for p in page.all("p") if p["text"].startswith("The same images as of ")]
    assert again["text"] == "The same images as of split_mnist, Replay ED, run 0."
    assert len(page.all("img")) == 30
    monkeypatch.setattr(pictures, "MOST_BYTES", 1000)
    page = page_of(runs)
    assert not page.all("img")
    (notice,) = page.all("div", class_="notice")
    assert "images of split_mnist, Model Inversion ED, run 0 are not shown" in notice["text"]
    monkeypatch.setattr(page_module, "MOST_RUNS", 1)
    page = page_of(runs)
    assert len(page.all("details", class_="run")) == 1
    assert "matrix and images of 3 of 4 runs are not shown" in page.all("div", class_="notice")[0]["text"]


def test_settings_that_differ(runs, tmp_path):
    page = page_of(runs)
    rows = {row[0]: row[1:] for row in page.rows(page.table("Settings that differ, split_mnist"))}
    configs = [
        yaml.safe_load((runs / "split_mnist" / name / "run0" / "config.yaml").read_text())
        for name in ("model_inversion", "replay")
    ]
    assert rows["buffer.size"] == [str(config["buffer"]["size"]) for config in configs]
    assert rows["buffer.generator"] == ["ModelInversion", "Replay"]
    steps = configs[0]["buffer"]["generator"]["init_args"]["steps"]
    assert rows["buffer.generator.steps"] == [str(steps), "-"]
    assert "data.n_iter" not in rows


def test_text_of_strangers_stays_text(tmp_path):
    root = tmp_path / "<b>runs"
    for k, size in enumerate((10, 20)):
        run = write_run(
            root,
            "x",
            "noise",
            k,
            0.5,
            results={"command": HOSTILE, "device": HOSTILE, "seed": HOSTILE},
            data__scenario__name=HOSTILE,
            data__auxiliary=HOSTILE,
            buffer__size=size,
            model__optimizer={"class_path": HOSTILE, "init_args": {HOSTILE: f"{HOSTILE}{size}"}},
            buffer__generator__init_args={HOSTILE: [HOSTILE, size]},
        )
        write_samples(run, [(0, 1)], [HOSTILE, '"><svg onload=alert(3)>'], confidence=0.5)
    write_run(root, "x", HOSTILE.replace("/", "_"), 0, 0.5, buffer__generator={"class_path": f"a.{HOSTILE}"})
    (root / "x" / "noise" / "run0" / "samples" / "experience=1.png").write_text("<script>")
    page = page_of(root)
    assert len(page.all("script")) == 1
    assert not page.all("b")
    tags = {found["tag"] for found in page.elements}
    assert not [found for found in page.elements for key in found if key.startswith("on")]
    assert all(found["src"].startswith("data:image/png") for found in page.all("img"))
    known = (
        "html head meta title style body script a header div p h1 h2 h3 h4 button nav ul li main section strong span "
        "time code table caption thead tbody tr th td details summary dl dt dd figure figcaption svg g line polyline "
        "polygon path text label output input img footer"
    )
    assert tags <= set(known.split())
    assert page.text.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 10
    assert any(HOSTILE in dd["text"] for dd in page.all("dd"))


def test_a_stream_without_a_data_set_has_agreement(tmp_path, capsys):
    run = write_run(tmp_path / "runs", "from_folder", "noise", 0, 0.5, experts=2, data__scenario=None)
    summary = json.loads((run / "summary.json").read_text())
    del summary["stream_accuracy"]
    (run / "summary.json").write_text(json.dumps({**summary, "agreement": 0.8125}))
    (run / "agreement_matrix.csv").write_text("after_experience,0,1,mean\n0,1.0,,1.0\n1,0.625,1.0,0.8125\n")
    page = page_of(run)
    ((scenario, name, *_),) = page.rows(page.table("All runs"))
    assert (scenario, name) == ("from_folder (no data set)", "Noise ED")
    main(["report", str(run), "--html", "--output", str(tmp_path / "told")])
    assert "has agreement, no accuracy: it is in report.html alone" in capsys.readouterr().err
    assert "it is in report.html alone" in (tmp_path / "told" / "report.md").read_text()
    assert page.rows(page.table("Agreement matrix")) == [
        ["expert 1", "100.0", "none", "100.0"],
        ["expert 2", "62.5", "100.0", "81.2"],
    ]
    (run / "agreement_matrix.csv").write_text("after_experience,0,1,stream\n0,1.0,,1.0\n")
    output = ["--output", str(tmp_path / "other")]
    assert "agreement_matrix.csv is broken" in refused(["report", str(run), "--html", *output], capsys)
    assert "it has agreement, no accuracy to report" in refused(["report", str(run), *output], capsys)
    assert not (tmp_path / "other").exists()


def test_what_is_left_out_is_named(runs, tmp_path):
    write_run(runs, "split_mnist", "noise", 0, 0.5, results={"experiences_learned": 2})
    write_run(runs, "split_mnist", "auxiliary", 0, 0.5, results={"experiences_learned": 4, "experiences_skipped": [2]})
    (runs / "split_mnist" / "replay" / "run1" / "samples").mkdir()
    (runs / "split_mnist" / "replay" / "run1" / "samples" / "experience=0.png").write_text("")
    page = written(tmp_path, runs)
    lines = [li["text"] for li in page.all("li", page.all("div", class_="notice")[0])]
    assert any("noise/run0 is unfinished, 2 of 5 experts are learned" in line for line in lines)
    assert any("run1/samples/experience=0.png holds no samples" in line for line in lines)
    assert "split_mnist, Aux. Data ED, run 0: 1 expert skipped" in lines
    assert "run1/samples/experience=0.png holds no samples" in (tmp_path / "report" / "report.md").read_text()


def test_a_report_without_the_page_deletes_it_and_only_what_a_report_wrote(runs, tmp_path):
    written(tmp_path, runs / "split_mnist" / "oracle")
    written(tmp_path, runs / "split_mnist" / "oracle")
    main(["report", str(runs / "split_mnist" / "oracle"), "--output", str(tmp_path / "report")])
    assert not (tmp_path / "report" / "report.html").exists()
    (tmp_path / "report" / "report.html").write_text("the user's own")
    main(["report", str(runs / "split_mnist" / "oracle"), "--output", str(tmp_path / "report")])
    assert (tmp_path / "report" / "report.html").read_text() == "the user's own"


def test_long_matrices_are_thinned():
    rows = [Row(k, dict.fromkeys(range(100), 0.5), 0.5) for k in range(100)]
    page = Page(matrix(rows, "Accuracy", "a run", "part", "stream"))
    found = page.rows(page.table("Accuracy matrix"))
    assert len(found) == MOST
    assert all(len(row) == MOST + 2 for row in found)
    assert (found[0][0], found[-1][0]) == ("expert 1", "expert 100")
    assert f"{MOST} of 100 rows" in page.all("caption")[0]["text"]


def test_markup_escapes_all_but_itself():
    inner = element("b", "<i>", None, ["&", element("br")], title="\"'<")
    assert element("p", inner, hidden=True, open=False) == (
        '<p hidden><b title="&quot;&#x27;&lt;">&lt;i&gt;&amp;<br></b></p>'
    )
    assert joined(["\u202ea\x00"]) == r"\u202ea\x00"
