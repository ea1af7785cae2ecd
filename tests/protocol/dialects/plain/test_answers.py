"""What old clients mean by `task_input`."""

from typing import Any

import pytest
from msgspec import UNSET

from fanline.protocol.dialects.plain.answers import answer_meant
from fanline.protocol.messages.commands import CallData
from fanline.protocol.tasks.events import AskKind
from fanline.protocol.tasks.snapshot import Ask

TO_APPROVE = Ask(id="q")
CHOICE = Ask(id="q", options=["blue", "no"])


@pytest.mark.parametrize("said", ["yes", "true", "approve", " Yes\n", True])
def test_a_clear_yes_approves(said: Any) -> None:
    assert answer_meant(TO_APPROVE, CallData(value=said)) == ("approve", CallData(ask="q"))


@pytest.mark.parametrize("said", ["no", "false", "reject", "NO", False])
def test_a_clear_no_rejects(said: Any) -> None:
    assert answer_meant(TO_APPROVE, CallData(value=said)) == ("reject", CallData(ask="q"))


@pytest.mark.parametrize("said", ["", "yes, but later", 1, None, ["yes"], {"yes": True}])
def test_anything_else_rejects_and_the_producer_gets_it(said: Any) -> None:
    assert answer_meant(TO_APPROVE, CallData(value=said)) == ("reject", CallData(ask="q", value=said))


def test_one_of_the_options_is_chosen_whatever_it_says() -> None:
    for option in ("blue", "no"):
        assert answer_meant(CHOICE, CallData(value=option)) == ("approve", CallData(ask="q", value=option))
    assert answer_meant(CHOICE, CallData(value="green")) == ("reject", CallData(ask="q", value="green"))
    assert answer_meant(CHOICE, CallData(value="yes")) == ("approve", CallData(ask="q", value=UNSET))


@pytest.mark.parametrize("ask", [None, Ask(id="q", kind=AskKind.INPUT), Ask(id="q", by="anna"), Ask("q", expired=True)])
def test_without_an_open_question_to_approve_it_is_input(ask: Ask | None) -> None:
    assert answer_meant(ask, CallData(value="yes")) == ("input", CallData(value="yes"))
