"""How to publish, notify, and receive, followed."""

import json

import pytest

from tests.pages.conftest import Read
from tests.pages.newcomer import Page

pytestmark = pytest.mark.process


def test_publish_from_python(read: Read) -> None:
    with read("docs/how-to/publish-from-python.md") as page:
        page.newcomer.serve()
        subscriber = page.newcomer.terminal("subscriber")
        subscriber.start("fanline sub news:all task:42", until="")
        page.newcomer.wait_subscribed("news:all")
        page.newcomer.wait_subscribed("task:42")
        for name, begins, seen in (
            ("publish.py", "import fanline\n\nfanline.publish", 1),
            ("gather.py", "import asyncio, fanline", 2),
            ("wait.py", "import fanline\n\ntry:", 3),
        ):
            page.save(name, begins)
            assert page.newcomer.terminal("other").run(f"python {name}") == ""
            subscriber.wait_for("hello", seen)
        subscriber.wait_for('"step":', 100)


def test_publish_from_any_client(read: Read) -> None:
    with read("docs/how-to/publish-from-any-client.md") as page:
        page.newcomer.serve()
        subscriber = page.newcomer.terminal("subscriber")
        subscriber.start("fanline sub task:42", until="")
        page.newcomer.wait_subscribed("task:42")
        url = page.take("export NATS_URL")
        page.save("publish.py", "import asyncio, json, nats, os")
        page.newcomer.terminal("other").run(f"{url}\npython publish.py")
        subscriber.wait_for('{"percent":50}')
        page.left_out("nats pub", "the nats command is a download of its own")
        page.newcomer.terminal("other").run(f"{url}\n{page.take('data=')}")
        subscriber.wait_for('{"percent":50}', 2)
        envelope = page.take('{"v": 1')
        page.newcomer.terminal("other").run(
            f"fanline pub task:42 --event task_progress '{json.dumps(json.loads(envelope)['d'])}'"
        )
        subscriber.wait_for("task_progress")


def test_notify_users(read: Read) -> None:
    with read("docs/how-to/notify-users.md") as page:
        page.newcomer.serve()
        page.save("notify.py", "import fanline")
        other = page.newcomer.terminal("other")
        other.run("python notify.py")
        page.run('fanline notify anna "Report ready"')
        key = page.says("KEY=$(fanline apikey create shop --right publish)")
        assert '"id":"' in other.run(f"{key}\n{page.take('curl -H')}")
        settings = page.take("[notifications]\nemail")
        preferences, tries = page.take("fanline admin set-preferences"), page.lines("fanline notify anna")
        rules = page.take("[notifications]\nquiet_hours")
        _restart(page, settings + rules.removeprefix("[notifications]"))
        other.run(preferences)
        assert "+4915112345678" in other.run("fanline admin preferences anna")
        other.run(tries[1])
        page.save("templates.py", "import fanline")
        other.run("python templates.py")
        notifications, read_all = page.lines("fanline admin notifications anna")
        page.newcomer.wait_until(lambda: "Order 17 is late" in other.run(notifications), "the template")
        assert "Report ready" in other.text()
        other.run(read_all)


def _restart(page: Page, settings: str) -> None:
    page.newcomer.terminal("server").interrupt()
    page.newcomer.give("fanline.toml", settings)
    page.newcomer.serve()


def test_durable_channels(read: Read) -> None:
    with read("docs/how-to/durable-channels.md") as page:
        page.save("fanline.toml", "# fanline.toml")
        page.newcomer.serve()
        page.run("fanline pub build:7")
        page.save("read.py", "import json, trio")
        reader = page.newcomer.terminal("reader")
        said = reader.start(page.says("python read.py"), until='"test"').splitlines()[1:]
        shown = page.take('{"v":1,"t":"ok"').splitlines()
        for each, expected in zip(map(json.loads, said), map(json.loads, shown), strict=True):
            drawn = {"ep", "ts"} & expected.keys()
            assert {**each, **{key: expected[key] for key in drawn}} == expected


def test_let_clients_in_with_tokens(read: Read) -> None:
    with read("docs/how-to/let-clients-in-with-tokens.md") as page:
        page.newcomer.serve(page.take("export FANLINE_TOKENS_SECRET"))
        page.elsewhere("import os\nimport time\n\nimport jwt", "pages/programs/test_tokens.py")
        page.left_out("async function connect()", "a page of the reader's site")
        page.left_out("client = fanline.Client", "a part of a program, not a whole one")
        revoke = page.take("fanline revoke --user anna")
        token, share = page.lines("fanline token --sub anna")
        other, viewer = page.newcomer.terminal("other"), page.newcomer.terminal("viewer")
        viewer.start(f"FANLINE_TOKEN=$({token.partition('#')[0]}) fanline tail task:42", until="heard of")
        assert other.run(share).count(".") == 2
        other.run(revoke)
        viewer.wait_end(exit_code=1)


def test_show_who_is_online(read: Read) -> None:
    with read("docs/how-to/show-who-is-online.md") as page:
        page.save("fanline.toml", "# fanline.toml")
        page.newcomer.serve("fanline serve --auth token")
        other, watcher = page.newcomer.terminal("other"), page.newcomer.terminal("watcher")
        tokens = {user: other.run(f"fanline token --sub {user}").strip() for user in ("anna", "ben")}
        page.newcomer.give("online.py", page.take("import asyncio").replace('"..."', f'"{tokens["anna"]}"'))
        watcher.start("python online.py", until="['anna']")
        other.start(f"FANLINE_TOKEN={tokens['ben']} fanline sub room:lobby", until="")
        watcher.wait_for("join ben")


def test_read_an_inbox(read: Read) -> None:
    with read("docs/how-to/read-an-inbox.md") as page:
        page.newcomer.serve()
        page.run("fanline pub user:ann")
        code = page.take("import asyncio, os")
        assert page.says('client.inbox("ann")')
        page.newcomer.give("inbox.py", code.replace("client.inbox()", 'client.inbox("ann")'))
        reader = page.newcomer.terminal("reader")
        reader.start("python inbox.py", until="{'text': 'Your build is done'}")
        page.newcomer.terminal("other").run('fanline pub user:ann \'{"text": "The next"}\'')
        reader.wait_for("The next")
        reader.interrupt()
        reader.start("python inbox.py", until="")
        page.newcomer.terminal("other").run('fanline pub user:ann \'{"text": "Another"}\'')
        assert "Your build is done" not in reader.wait_for("Another")


def test_receive_in_a_web_page(read: Read) -> None:
    with read("docs/how-to/receive-in-a-web-page.md") as page:
        page.elsewhere("const FINAL", "pages/programs/test_web_page.py")
        page.elsewhere("<!doctype html>", "pages/programs/test_web_page.py")
        page.serve("FANLINE_ENGINE_ORIGINS=")
        page.left_out("python3 -m http.server", "a browser opens the page; the port may be taken here")
        job = page.newcomer.terminal("job")
        job.start(page.take("fanline run --task build-42"), until="[2/60]")
