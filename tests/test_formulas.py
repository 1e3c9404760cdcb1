# ruff: noqa: E501  (rows of data stay rows)
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_sanitise import assert_allowed

from labkit.workbench.pages import sanitise
from labkit.workbench.pages.formulas import Formulas, mathml_of
from labkit.workbench.pages.mathml import NotShown, checked, styled

CLEAN = [
    r"x_i^2", r"\frac{a}{b}", r"\sqrt[3]{x}", r"f'(x)", r"\mathbb{R}^{n \times d}", r"\mathbb E[x]", r"\hat{\theta}",
    r"\mathcal{L}(\theta) = -\frac{1}{N} \sum_{n=1}^{N} \log p_\theta(y_n \mid x_n)", r"\operatorname{softmax}(x)",
    r"\operatorname*{arg\,max}_k p(k)", r"\left\| x \right\|_2^2", r"\left. f \right|_{x=0}", r"\bm{\theta}",
    r"\begin{pmatrix} 1 & 0 \\ 0 & 1 \end{pmatrix}^\top", r"\begin{cases} x & \text{if } x > 0 \\[1ex] 0 \end{cases}",
    r"\begin{align} a &= b \\ c &= d \end{align}", r"\begin{aligned} a &= b \\ &= c \end{aligned}",
    r"\begin{equation} a = b \label{eq:a} \end{equation}", r"\begin{gather} a \\ b \end{gather}", r"x \tag{1}",
    r"a < b", r"x % a comment", r"10^{-4}", r"\underbrace{x}_{\text{all}}", r"\mathrm{KL}(p \,\|\, q)",
]  # fmt: skip
NOT_CLEAN = [
    r"\KL(p \| q)", r"\frac{a}{b", r"x}", r"{", r"x^2^3", r"x^", r"\frac", r"\left( x", r"x \right)", r"\middle|",
    r"\begin{foo} x \end{foo}", r"\begin{cases} x", r"\begin{matrix} a \end{pmatrix}", r"\newcommand{\a}{b}", r"\def\x{1}",
    r"\ref{eq:a}", r"\eqref{a}", r"\cite{a}", r"\unicode{x3c}", r"\color{red}{x}", r"\boxed{x}", r"\cancel{x}", r"\not=",
    r"\href{javascript:alert(1)}{x}", r"\style{color:red}{x}", r"\class{a}{x}", r"\text{<b>x</b>}", r"\text{a & b}",
    r"\text{a {b} c}", r"\text{if $x$}", r"a & b", r"a \\ b", r"\begin{array}{c|c} a & b \end{array}", r"a $ b", r"\verb|x|",
    r"\operatorname{a b*}", r"\mathop{x}", r"\includegraphics{x}", "", " ", "x" * 5000, "{" * 200 + "}" * 200,
]  # fmt: skip


@pytest.mark.parametrize("source", CLEAN)
def test_a_formula_that_converts_cleanly_is_mathml(source: str) -> None:
    made = mathml_of(source, False)
    assert made is not None
    assert made.startswith("<math><mrow>")
    assert "\\" not in made
    kept = sanitise.html(made)
    assert kept is not None
    assert kept.replace("&nbsp;", "\xa0") == made, "the sanitiser takes nothing away from it"


@pytest.mark.parametrize("source", NOT_CLEAN)
def test_a_formula_that_does_not_convert_cleanly_shows_its_source_and_is_counted(source: str) -> None:
    formulas = Formulas()
    made = formulas.render(source, display=True)
    assert made.startswith('<code class="formula-source">')
    assert made.removeprefix('<code class="formula-source">').removesuffix("</code>") == sanitise.plain(source.strip())
    assert (formulas.shown, formulas.as_source) == (1, 1)


@given(st.lists(st.one_of(st.sampled_from([*CLEAN, *NOT_CLEAN[:-3]]), st.text(max_size=6)), max_size=4).map(" ".join))
def test_no_formula_brings_a_tag_that_is_not_on_the_list(source: str) -> None:
    made = Formulas().render(source, display=False)
    assert_allowed(made)


@pytest.mark.parametrize(
    ("source", "part"),
    [
        (r"\mathrm{d}x", '<mi mathvariant="normal">d</mi><mi>x</mi>'),
        (r"\mathrm{softmax}", '<mi mathvariant="normal">softmax</mi>'),
        (r"\mathbb E", "<mi>𝔼</mi>"),
        (r"\bm{x}", "<mi>𝒙</mi>"),
        (r"\mathbf{1}", "<mn>𝟏</mn>"),
        (r"x \sim p", "<mo>∼</mo>"),
        (r"2 mm", "<mn>2</mn><mrow></mrow><mi>m</mi><mi>m</mi>"),
        (r"\log p", '<mi>log</mi><mspace width="0.167em"></mspace><mi>p</mi>'),
        (r"\log(p)", '<mi>log</mi><mo stretchy="false">(</mo>'),
        (r"\arg\max_k", "<mo>arg</mo>"),
        (r"x \tag{3.1}", "<mtext>(3.1)</mtext>"),
    ],
)
def test_what_browsers_or_the_converter_get_wrong_is_put_right(source: str, part: str) -> None:
    assert part in (mathml_of(source, False) or "")


def test_an_alignment_gets_no_numbers_that_nobody_gave() -> None:
    assert "(1)" not in (mathml_of(r"\begin{align} a &= b \end{align}", True) or "(1)")


def test_limits_stand_below_in_display_and_display_is_said() -> None:
    made = mathml_of(r"\sum_{i=1}^n i", True) or ""
    assert made.startswith('<math display="block">')
    assert "<munderover>" in made


@pytest.mark.parametrize(
    "source",
    ["<math><script>x</script></math>", "<math><mi>a</mi>text</math>", "<math><menclose><mi>a</mi></menclose></math>",
     "<math><msup><mi>a</mi></msup></math>", '<math><mi href="x">a</mi></math>', "<math><mn>5mm</mn></math>",
     "<math><mi>\\foo</mi></math>", '<math><mspace linebreak="newline"/></math>'],
)  # fmt: skip
def test_mathml_that_is_not_on_the_list_is_refused(source: str) -> None:
    with pytest.raises(NotShown):
        checked(source, False)


def test_a_letter_without_the_style_asked_for_is_refused() -> None:
    assert styled("C", "double-struck") == "ℂ"
    with pytest.raises(NotShown):
        styled("é", "bold")
