"""Where code first differs in what it does, and what of it does nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import quick

from labkit.workbench.reproducing.codechange import differs_in_defaults_only, does_nothing, first_change, imported

SAME = [
    ("x = 1", "x = 1  # one"),
    ("x = 1", "\n\nx  =  (1)\n"),
    ("f(a, b)", "f(\n    a,\n    b,\n)"),
    ("%load_ext x\ny = 1", "%load_ext x\n\ny = 1  # y"),
    ("%%time\nx = 1", "%%time\nx = 1  # one"),
    ("x = 'a'", 'x = "a"'),
    ('x = "\\d"', "x = '\\d'"),
]
CHANGED = [
    ("x = 1", "x = 2", 1),
    ("x = 1", "x = 1.0", 1),
    ("x = 1", "x = True", 1),
    ("x = 0.0", "x = -0.0", 1),
    ("a = 1\nb = 2\nc = 3", "a = 1\n# two\nb = 3\nc = 3", 3),
    ("a = 1\nb = 2", "a = 1\nnew = 0\nb = 2", 2),
    ("a = 1\nb = 2", "a = 1", 1),
    ("a = 1", "a = 1\nb = 2", 2),
    ("def f():\n    return 1", "def f():\n    return 2", 2),
    ("def f(a, b): pass", "def f(b, a): pass", 1),
    ("%matplotlib inline\nx = 1", "%matplotlib agg\nx = 1", 1),
    ("x = 1\n%time f()", "x = 1\n%time g()", 2),
    ("!ls data", "!ls", 1),
    ("%%bash\nls # a", "%%bash\nls # b", 2),
    ("this is no Python", "this is not Python", 1),
    ("x = (1\n     % 2)", "x = (1\n     % 3)", 2),
    ('"""a\nb"""', '"""a\nc"""', 1),
    ("", "x = 1", 1),
    ("a\n\nb ?", "a\n\nb ?\nc ?", 4),
]


@pytest.mark.parametrize(("then", "now"), SAME)
def test_comments_and_layout_are_no_change(then: str, now: str) -> None:
    assert first_change(then, now) is None and first_change(now, then) is None


@pytest.mark.parametrize(("then", "now", "line"), CHANGED)
def test_a_change_is_found_in_its_line(then: str, now: str, line: int) -> None:
    found = first_change(then, now)
    assert found is not None and found.line == line
    assert first_change(now, then) is not None


def test_a_change_shows_both_lines_without_secrets() -> None:
    found = first_change("lr = 0.1", "lr = 0.2")
    assert str(found) == "line 1: `lr = 0.2` here, `lr = 0.1` then"
    assert str(first_change("a = 1\nb = 2", "a = 1")) == "line 1: nothing here, `b = 2` then"
    assert str(first_change("a = 1", "a = 1\nb = 2")) == "line 2: `b = 2` here, nothing then"
    assert "sk-" not in str(first_change("key = 'sk-abcdefghijklmnopqrstuv'", "key = 'sk-zzcdefghijklmnopqrstuv'"))
    assert len(str(first_change("x = '" + "a" * 900 + "'", "y = 1"))) < 200


def test_deep_nesting_is_compared_as_text() -> None:
    deep = "(" * 5000 + "1" + ")" * 5000
    assert first_change(deep, deep + " ") is None
    assert first_change(deep, "x" + deep) is not None
    chain = "x = " + " + ".join(["1"] * 5000)
    assert first_change(chain, chain + " + 2") is not None


def test_only_the_values_of_declared_names_are_defaults() -> None:
    assert differs_in_defaults_only("LR: float = 0.1  # rate", "LR: float = 0.2  # rate")
    assert not differs_in_defaults_only("LR = 0.1\nprint(1)", "LR = 0.2\nprint(2)")
    assert not differs_in_defaults_only("LR = 0.1", "RATE = 0.1")


def test_what_is_imported_is_known_by_its_first_name() -> None:
    assert imported("%time\nimport a.b as c, d\nfrom e.f import g\nfrom . import h\ndef i():\n    import j") == {
        "a",
        "d",
        "e",
        "j",
    }
    assert imported("no Python") == set()


@given(st.text("ab=1 \n\t#%!()'\":\\", max_size=40), st.text("ab=1 \n\t#%!()'\":\\", max_size=40))
@quick
def test_any_text_can_be_compared(then: str, now: str) -> None:
    assert first_change(then, then) is None
    found = first_change(then, now)
    assert found is None or str(found)
    assert isinstance(does_nothing(now), bool)
