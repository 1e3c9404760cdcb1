"""What a notebook's Markdown says of the question, the conclusion and the next steps is read from it."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from labkit.workbench.notebooks import lint, notebook, outline

GOAL = "# Title\n\n## Goal\n\n**Question.** Does it\nwork?\n\nMore.\n\n## Background\n\nOld."


def test_the_question_is_the_first_paragraph_of_the_goal() -> None:
    assert outline.question(["before", GOAL]) == "**Question.** Does it\nwork?"
    assert outline.question(["no goal"]) == ""


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("**Next steps**\n\n- more data", "- more data"),
        ("## Conclusion\n\nIt works.\n\n### Next steps\n\n1. more\n\n## Notes\n\nx", "1. more"),
        ("## next steps: soon\n- a", "- a"),
        ("What next steps are there?", ""),
    ],
)
def test_the_next_steps_stand_below_a_heading_or_a_bold_line(text: str, steps: str) -> None:
    assert outline.next_steps([text]) == steps


FENCED = {
    "backticks": "```bash\n# Goal\n## Data\n```",
    "tildes": "~~~\n# Goal\n```\n## Data\n~~~",
    "a longer fence": "````md\n# Goal\n```\n## Data\n`````  ",
    "a fence with a word does not close": "```\n# Goal\n``` python\n## Data\n```",
    "an indented fence": "  ```\n  # Goal\n## Data\n   ```",
    "in a list": "- ```bash\n  # Goal\n  ## Data\n  ```",
    "in a numbered list": "1. ~~~\n   # Goal\n   ## Data\n   ~~~",
}


@pytest.mark.parametrize("kind", FENCED)
def test_what_stands_in_a_fenced_block_is_no_heading(kind: str) -> None:
    block = FENCED[kind]
    text = (
        f"{block}\n\n# Digits\n\n## Conclusion\n\nIt works:\n\n{block}\n\nand more.\n\n## Next steps\n\n{block}\n\nend"
    )
    assert outline.title([text]) == "Digits"
    assert outline.section([text], "conclusion") == f"It works:\n\n{block}\n\nand more."
    assert outline.next_steps([text]) == f"{block}\n\nend".strip()
    assert outline.section([text], "goal") == ""
    assert [(one.section, one.line) for one in outline.headings([{"cell_type": "markdown", "source": text}])] == [
        ("Conclusion", text.split("\n").index("## Conclusion") + 1)
    ]


def test_a_fence_that_nothing_closes_goes_on_to_the_end() -> None:
    assert outline.unfenced("a\n```\n# b\n") == "a\n   \n   \n"


def test_backticks_inside_of_a_line_fence_nothing() -> None:
    text = "``` a ```\n## Data\n"
    assert outline.unfenced(text) == text


def test_a_title_below_a_block_is_left_where_it_is() -> None:
    text = "```\nx\n```\n\nDigits\n======\n\nmore"
    assert outline.title([text]) == "Digits"
    assert outline.without_title(text, "Digits") == text
    assert outline.without_title("Digits\n======\n\nmore", "Digits") == "\n\nmore"


@pytest.mark.parametrize("heading", ["Goal-conditioned policies", "Goals", "Goal_2"])
def test_a_longer_word_does_not_name_a_section(heading: str) -> None:
    assert outline.section([f"# {heading}\n\nOf robots.\n\n## 1. Goal: to learn\n\nIt."], "goal") == "It."


@pytest.mark.parametrize("metadata", [None, [], "x", {}, {"tags": None}, {"tags": "parameters"}, {"tags": [1, {}]}])
def test_a_cell_whose_tags_are_no_list_of_words_has_none(metadata: object) -> None:
    assert outline.tags({"cell_type": "code", "source": "", "metadata": metadata}) == []


LONG = {  # what looks at text that anybody may have written, and a text that is long in a way that it knows
    "stops": lambda size: lint.STOPS.search(" " * size + "x"),
    "stops below each other": lambda size: lint.STOPS.search("pdb.set_trace() x\n" * (size // 18)),
    "underlined": lambda size: outline.UNDERLINED.search(" " * size + "\nx"),
    "underlined below empty lines": lambda size: outline.UNDERLINED.search("\n" * size + "x\ny"),
    "heading": lambda size: outline.HEADING.search("#" + " " * size),
    "next steps": lambda size: outline.NEXT_STEPS.search("#" + " " * size + "x"),
    "magic": lambda size: outline.MAGIC.search(" " * size + "x"),
    "fences": lambda size: outline.unfenced("`" * size + "x`"),
    "fences opened again": lambda size: outline.unfenced("```a\n" * (size // 5)),
    "conflict": lambda size: notebook.CONFLICT.search(b"\n" * size + b"x"),
    "home": lambda size: lint.HOME.search("C:" + "\\" * size),
    "title": lambda size: outline.title(["# " + "#" * size + " x" + " " * size]),
}


@pytest.mark.parametrize("name", LONG)
def test_text_of_four_times_the_length_costs_about_four_times_as_much_and_not_the_square(name: str) -> None:
    short_s, long_s = spent_s(LONG[name], 10_000), spent_s(LONG[name], 40_000)
    assert long_s < 8 * short_s + 0.25, f"{short_s:.3f} s, then {long_s:.3f} s"


def spent_s(look: Callable[[int], object], size: int) -> float:
    """Seconds of this process alone, however busy the machine is."""
    before = time.process_time()
    look(size)
    return time.process_time() - before
