"""An SMTP server that is slow, refuses, dies or cannot be trusted: each e-mail is taken once, or kept as given up."""

import ssl
from collections import Counter
from collections.abc import Callable
from itertools import chain, repeat
from pathlib import Path

import pytest
import trio

from tests.integration.notifications.mail_server import Mail, MailServer
from tests.integration.notifications.receivers import Notified, notifying
from tests.integration.notifications.test_faults import UNDER_WAY, ask, dead, set_addresses
from tests.support.servers.certificates import Certificates
from tests.support.servers.serve import kill, wait_until

TITLES = [f"n-{number}" for number in range(12)]


async def given_up(all_of: Notified, count: int = 1) -> list[dict[str, object]]:
    """What was given up, as soon as there is so much."""
    while len(found := await dead(all_of)) < count:
        await trio.sleep(0.1)
    return found


async def all_taken(all_of: Notified, titles: list[str]) -> None:
    await wait_until(lambda: len(all_of.mail.taken) >= len(titles), 120)
    assert sorted(all_of.mail.subjects()) == sorted(titles)
    assert await dead(all_of) == []


def answers(first: list[str]) -> Callable[[object], str]:
    """One after the other, and then none but success."""
    each = chain(first, repeat("250 OK"))
    return lambda _: next(each)


def refuse_at_first(mail: MailServer) -> None:
    mail.answer_recipient = answers(["421 closing", "450 busy", "451 try later"] * 2)
    mail.answer = answers(["450 busy", "451 try later", "421 closing"] * 2)


def die_at_first(mail: MailServer) -> None:
    deaths = iter([True] * 6)
    mail.dies_in_data = lambda: next(deaths, False)


def close_after_each(mail: MailServer) -> None:
    mail.closes_after_each = True


@pytest.mark.parametrize("fault", [refuse_at_first, die_at_first, close_after_each])
async def test_a_mail_server_with_a_passing_fault_takes_each_one_once(fault: Callable[[MailServer], None]) -> None:
    with trio.fail_after(180):
        async with notifying() as all_of:
            await set_addresses(all_of)
            fault(all_of.mail)
            await ask(all_of, TITLES, channels=["email"])
            await all_taken(all_of, TITLES)


async def test_a_mail_server_that_takes_seconds_for_each_command_gets_each_one_once() -> None:
    with trio.fail_after(180):
        async with notifying() as all_of:
            await set_addresses(all_of)
            all_of.mail.pause = 2.0  # an e-mail takes longer than an item may be silent
            await ask(all_of, TITLES[:3], channels=["email"])
            await wait_until(lambda: len(all_of.mail.taken) >= 3, 120)
            all_of.mail.pause = 0.0
            await ask(all_of, ["last"], channels=["email"])
            await wait_until(lambda: "last" in all_of.mail.subjects())
            await all_taken(all_of, [*TITLES[:3], "last"])


async def test_a_mail_server_that_says_nothing_holds_up_no_other_channel_and_gets_each_one_later() -> None:
    with trio.fail_after(180):
        async with notifying(email="mode=insecure&cto=1") as all_of:
            await set_addresses(all_of)
            all_of.mail.is_mute = True
            await ask(all_of, TITLES, channels=["websocket", "email", "push"])
            await wait_until(lambda: len(all_of.service.taken) >= len(TITLES), 60)
            assert all_of.mail.taken == []
            all_of.mail.is_mute = False
            await all_taken(all_of, TITLES)


async def test_what_a_mail_server_refuses_for_good_is_given_up_at_once_with_what_it_said() -> None:
    refusals = {"user-0@example.com": "550 5.1.1 no such user", "user-1@example.com": "250 OK"}

    def refuse_message(mail: Mail) -> str:
        return "554 5.7.1 message refused" if mail.subject == "spam" else "250 OK"

    with trio.fail_after(120):
        async with notifying() as all_of:
            await set_addresses(all_of)
            all_of.mail.answer_recipient = lambda address: refusals[address]
            all_of.mail.answer = refuse_message
            await ask(all_of, ["a"], user="user-0", channels=["email"])
            await ask(all_of, ["spam", "good"], user="user-1", channels=["email"])
            found = {str(each["id"]): each for each in await given_up(all_of, 2)}
            assert {name: each["attempts"] for name, each in found.items()} == {"a": 1, "spam": 1}
            assert "550 5.1.1 no such user" in str(found["a"]["reason"])
            assert "554 5.7.1 message refused" in str(found["spam"]["reason"])
            await wait_until(lambda: all_of.mail.subjects() == ["good"])


async def test_a_login_that_is_refused_is_tried_again_as_an_operator_may_mend_it() -> None:
    with trio.fail_after(120):
        async with notifying() as all_of:
            await set_addresses(all_of)
            all_of.mail.accepts_logins = False
            await ask(all_of, ["a"], user="user-0", channels=["email"])
            await wait_until(lambda: len(all_of.mail.logins) >= 2, 60)
            all_of.mail.accepts_logins = True
            await all_taken(all_of, ["a"])
            assert "535" in all_of.serve.stderr_text()
            assert "hidden-password" not in all_of.serve.stderr_text()


def tls_of(directory: Path) -> ssl.SSLContext:
    certificates = Certificates(directory)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.cert, certificates.key)
    return context


@pytest.mark.parametrize("how", ["not offered", "refused", "of nobody known"])
async def test_without_starttls_no_password_and_no_mail_leaves(how: str, tmp_path: Path) -> None:
    with trio.fail_after(120):
        tls = None if how == "not offered" else tls_of(tmp_path)
        async with notifying(give_up=1, email="mode=starttls", tls=tls) as all_of:
            await set_addresses(all_of)
            if how == "refused":
                all_of.mail.starttls = "454 TLS not available"
            await ask(all_of, ["a"], user="user-0", channels=["email"])
            (found,) = await given_up(all_of)
            assert (found["id"], found["attempts"]) == ("a", 3)
            assert (all_of.mail.logins, all_of.mail.taken) == ([], [])


async def test_a_control_process_killed_among_e_mails_loses_none_and_repeats_only_what_was_under_way() -> None:
    titles = [f"n-{number}" for number in range(300)]
    with trio.fail_after(300):
        async with notifying() as all_of, trio.open_nursery() as nursery:
            await set_addresses(all_of)
            nursery.start_soon(lambda: ask(all_of, titles, channels=["email"]))
            for taken in (30, 150):
                await wait_until(lambda taken=taken: len(all_of.mail.taken) >= taken, 120)  # type: ignore[misc]
                pid = all_of.control_pid()
                assert pid is not None
                await kill(pid)
                await wait_until(lambda pid=pid: all_of.control_pid() not in (None, pid), 60)  # type: ignore[misc]
            await wait_until(lambda: len(set(all_of.mail.subjects())) == len(titles), 120)
            twice = [title for title, count in Counter(all_of.mail.subjects()).items() if count > 1]
            assert len(all_of.mail.taken) - len(titles) == len(twice) <= 2 * UNDER_WAY
            assert await dead(all_of) == []
