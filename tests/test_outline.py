"""What a notebook's Markdown says of the question, the conclusion and the next steps is read from it."""

from __future__ import annotations

import pytest

from labkit.workbench import outline

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
