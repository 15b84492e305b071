"""Class names in figures: fonts that have their characters, else class numbers."""

from __future__ import annotations

import csv
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.image import imread

import report

NAMES = ["jump", "挥手", "跑", "costs $5, not $6$"]
FONT = "Test Sans"


@pytest.fixture
def only_matplotlibs_fonts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine without fonts of its own."""
    manager = font_manager.fontManager
    own = [font for font in manager.ttflist if "mpl-data" in Path(font.fname).parts]
    monkeypatch.setattr(manager, "ttflist", own)
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [])
    yield
    manager._findfont_cached.cache_clear()


def write_font(path: Path, characters: str, family: str = FONT) -> Path:
    """A font whose glyphs are squares."""
    pen = TTGlyphPen(None)
    for n, point in enumerate(((0, 0), (0, 700), (700, 700), (700, 0))):
        (pen.lineTo if n else pen.moveTo)(point)
    pen.closePath()
    names = [".notdef", *(f"g{n}" for n in range(len(characters)))]
    builder, square = FontBuilder(1000, isTTF=True), pen.glyph()
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(c): name for c, name in zip(characters, names[1:])})
    builder.setupGlyf(dict.fromkeys(names, square))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (800, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": family, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return path


def labels_of(figure) -> list[list[str]]:
    axes = figure.axes[0]
    return [[text.get_text() for text in a.get_ticklabels()] for a in (axes.xaxis, axes.yaxis)]


def draw(path: Path, names: list[str]):
    """The figure, drawn; a character without a glyph is an error."""
    figure = report._confusion_figure(np.eye(len(names), dtype=int), names)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report.save_figure(path, figure)
    return figure


def test_an_installed_font_draws_what_the_default_lacks(
    only_matplotlibs_fonts: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that was installed after Matplotlib listed the fonts; the one that has most of the
    characters is preferred, and another one has the rest."""
    fonts = [write_font(tmp_path / "most.ttf", "挥跑")]
    fonts += [write_font(tmp_path / "a.ttf", "挥", "A Sans")]
    fonts += [write_font(tmp_path / "rest.ttf", "手j", "Rest")]
    fonts += [write_font(tmp_path / "last.ttf", "挥手跑", "Last Resort")]
    (tmp_path / "damaged.ttf").write_bytes(b"no font")
    fonts += [tmp_path / "damaged.ttf"]
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: list(map(str, fonts)))
    figure = draw(tmp_path / "c.png", NAMES)
    assert labels_of(figure) == [NAMES, NAMES]
    label = figure.axes[0].get_xticklabels()[1]
    assert label.get_fontfamily() == ["sans-serif", FONT, "Rest"]


def test_without_such_a_font_classes_are_numbered_and_the_log_says_so(
    only_matplotlibs_fonts: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        figure = draw(tmp_path / "c.png", NAMES)
    assert labels_of(figure) == [["jump", "1", "2", NAMES[3]]] * 2
    (record,) = caplog.records
    assert "no installed font has the characters of 2 class names, e.g. '挥手'" in record.message
    table = tmp_path / "per_class.csv"
    report.write_evaluation(tmp_path, np.eye(4, dtype=int), NAMES)
    assert "\n1,挥手,1,1,1.0000,\n" in table.read_text(encoding="utf-8")


def test_latin_greek_and_cyrillic_need_no_other_font(
    only_matplotlibs_fonts: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = ["Übung", "άλμα", "прыжок", "two\tlines\nof text"]
    figure = draw(tmp_path / "c.png", names)
    assert labels_of(figure)[0] == [*names[:3], "two lines of text"]
    assert figure.axes[0].get_xticklabels()[0].get_fontfamily() == ["sans-serif"]
    assert not caplog.records


def test_figures_of_very_many_classes_are_bounded(tmp_path: Path) -> None:
    names = [f"${n}_{{" for n in range(1200)]
    path = report.write_evaluation(tmp_path, np.eye(1200, dtype=np.int64), names)
    assert max(imread(path).shape) <= 36.8 * 120 + 1


def test_formulas_and_forged_lines_in_tables(tmp_path: Path) -> None:
    """A spreadsheet would run the first; the second would look like a line of its own."""
    names = ["=HYPERLINK(1)", "a\nb\r\x1b[2J", "+1", "-1", "@x", "\tx", "plain", "7-2"]
    report.write_evaluation(tmp_path, np.eye(8, dtype=int), names)
    with open(tmp_path / "per_class.csv", newline="", encoding="utf-8") as file:
        text = file.read()
    rows = list(csv.reader(text.splitlines()))
    shown = ["'=HYPERLINK(1)", "a\\nb\\r\\x1b[2J", "'+1", "'-1", "'@x", "'\\tx", "plain", "7-2"]
    assert [row[1] for row in rows[1:]] == shown
    assert [row[2] for row in rows[1:]] == ["1"] * 8
    assert len(text.splitlines()) == 9 and "\r" not in text


def test_a_figure_that_fails_costs_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("glyph")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fail)
    report.write_evaluation(tmp_path, np.eye(3, dtype=int), ["a", "b", "c"])
    row = {"epoch": 1, "learning_rate": 0.1, "train_loss": 1.0, "eval_loss": None}
    report.write_curves(tmp_path, [row], {"loss": None})
    assert sorted(os.listdir(tmp_path)) == ["confusion.csv", "curves.csv", "per_class.csv"]
    assert [r.getMessage().split(": ")[1:] for r in caplog.records] == [
        ["not drawn", "RuntimeError", "glyph"]
    ] * 2


def test_mathematics_in_names_is_drawn_as_text(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = ["$\\frac{1", "$x$", "\\", "a$"]
    report.write_evaluation(tmp_path, np.eye(4, dtype=int), names, note="$\\bad{")
    assert (tmp_path / "confusion.png").exists() and not caplog.records
