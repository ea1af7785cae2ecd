"""How to run and watch a server, and to let others in, followed."""

import json
import re

import pytest

from tests.pages.conftest import Read
from tests.support.servers.free_port import free_port
from tests.support.servers.serve import children_of

pytestmark = pytest.mark.process
UPGRADE = (
    "-H 'Upgrade: websocket' -H 'Connection: upgrade' -H 'Sec-WebSocket-Version: 13' "
    "-H 'Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg=='"
)


def test_watch_the_server(read: Read) -> None:
    with read("docs/how-to/watch-the-server.md") as page:
        other = page.newcomer.terminal("other")
        page.newcomer.serve()
        page.newcomer.wait_control()
        create = page.take("KEY=$(fanline apikey create watch")
        assert other.run(f"{create}\necho $KEY").strip()
        page.left_out("websocat", "a program of its own; tests/integration/monitor plays its part")
        page.left_out('{"type": "disconnect_user"', "typed into websocat")
        other.run(page.take("fanline admin stats-history"))
        page.newcomer.terminal("server").interrupt()
        page.save("fanline.toml", "[alarms.errors]")
        page.newcomer.serve()
        page.newcomer.wait_control()
        assert "night_shift" in page.run("fanline admin alarms")


def test_serve_with_tls(read: Read) -> None:
    with read("docs/how-to/serve-with-tls.md") as page:
        other = page.newcomer.terminal("other")
        page.run("openssl req -x509")
        page.save("fanline.toml", "# fanline.toml")
        said = page.newcomer.serve().strip().split("  ")
        shown = page.newcomer.own(page.take("fanline ready: wss://")).split("  ")
        assert said[:2] + said[3:] == shown[:2] + shown[3:]
        curl, subscribe, publish = page.lines("curl --cacert")
        assert other.run(curl)
        subscriber = page.newcomer.terminal("subscriber")
        subscriber.start(subscribe, until="")
        page.newcomer.wait_subscribed("news:all")
        other.run(publish)
        subscriber.wait_for("over TLS")
        find, kill = page.lines("pgrep -af")
        found = {line.partition(" ")[0] for line in other.run(find).splitlines()}
        ours = [pid for pid, _ in children_of(page.newcomer.supervisor()) if str(pid) in found]
        assert len(ours) == 2, found
        other.run(kill.replace("PID", str(ours[0])))
        page.newcomer.terminal("server").wait_for("is back")


def test_serve_behind_a_proxy(read: Read) -> None:
    with read("docs/how-to/serve-behind-a-proxy.md") as page:
        other = page.newcomer.terminal("other")
        page.take("# fanline.toml")
        for proxy in ("app.example {", "location /ws {"):
            page.left_out(proxy, "Caddy and nginx are programs of their own")
        page.take("# fanline.toml")
        page.save("fanline.toml", "# fanline.toml")
        page.newcomer.serve()
        ask = "curl -s -o answer -w '%{http_code}' http://127.0.0.1:8080"
        assert other.run(f"{ask}/readyz") == "200"
        refused = f"{ask}/ws {UPGRADE} -H 'Origin: http://localhost:3001'"
        assert other.run(refused) == "403"
        shown = page.take("worker 0: refused a request").partition(": ")[2]
        server = page.newcomer.terminal("server")
        assert shown.replace(":3000", ":3001") in server.wait_for("refused a request")


def test_run_several_servers(read: Read) -> None:
    with read("docs/how-to/run-several-servers.md") as page:
        newcomer, nats_port = page.newcomer, str(free_port())
        newcomer.give("nats.conf", page.take("port: 4222").replace("4222", nats_port))
        newcomer.terminal("nats").start(page.take("nats-server -c"), until="Server is ready")
        newcomer.give("fanline.toml", page.take("# fanline.toml").replace("4222", nats_port))
        exports = newcomer.terminal("other").run(page.take("export FANLINE_NATS_USER") + "\nenv | grep ^FANLINE_")
        for terminal in ("server", "second"):
            newcomer.terminal(terminal).environ |= dict(line.split("=", 1) for line in exports.splitlines())
        first = page.take("fanline serve --port 8080").replace("8080", "0")
        newcomer.serve(page.take("fanline serve --port 8081").replace("8081", "0"), terminal="second")
        port = newcomer.own("8080")
        newcomer.serve(first)
        subscribe, publish, stats = page.lines("fanline sub chat:lobby")
        subscriber = newcomer.terminal("subscriber")
        subscriber.start(subscribe.removesuffix(" &").replace("8081", port), until="")
        newcomer.wait_subscribed("chat:lobby")
        newcomer.terminal("other").run(publish)
        assert '"hello"' in subscriber.wait_end()
        assert "workers.missing" in newcomer.terminal("other").run(stats)


def test_react_to_what_happens(read: Read) -> None:
    with read("docs/how-to/react-to-what-happens.md") as page:
        test = "pages/programs/test_hooks.py"
        page.elsewhere("from fanline.hooks import", test)
        page.elsewhere("# fanline.toml", test)
        page.elsewhere("fanline serve", test)
        page.elsewhere('> {"type":"connect"', test)
        page.elsewhere("[[webhooks]]", "integration/hooks/test_webhooks.py")
        page.elsewhere("import base64, hashlib, hmac", "integration/hooks/test_webhooks.py")


def test_authenticate_with_your_own_code(read: Read) -> None:
    with read("docs/how-to/authenticate-with-your-own-code.md") as page:
        for begins in ("import sqlite3", "# fanline.toml", "fanline serve", "FANLINE_TOKEN=", "fanline unsubscribe"):
            page.elsewhere(begins, "pages/programs/test_own_code.py")
        page.left_out("# authorizer = ", "the nats command is a download of its own")


@pytest.mark.parametrize(
    ("name", "shop"),
    [
        ("use-fastapi.md", "integration/backends/test_web_shops.py"),
        ("use-django.md", "integration/backends/test_web_shops.py"),
        ("use-celery.md", "integration/backends/test_celery_shop.py"),
    ],
)
def test_use_a_framework(read: Read, name: str, shop: str) -> None:
    with read(f"docs/how-to/{name}") as page:
        page.elsewhere('"""The', "pages/programs/test_backends.py")
        page.elsewhere("[", "pages/programs/test_backends.py")
        page.elsewhere("fanline serve &", shop)
        page.elsewhere("fanline sub", shop)
        if name == "use-django.md":
            page.left_out("import django", "a project with users and a database")


def test_progress_of_queues(read: Read) -> None:
    with read("docs/how-to/celery-progress.md") as page:
        page.elsewhere("import fanline.celery", "pages/programs/test_celery.py")
        page.elsewhere(">>> resize.delay", "pages/programs/test_celery.py")
        page.elsewhere("import fanline.celery", "integration/queues/test_celery.py")


def test_progress_of_other_queues(read: Read) -> None:
    with read("docs/how-to/rq-dramatiq-arq.md") as page:
        other = page.newcomer.terminal("other")
        page.left_out("rq worker", "needs Redis; tests/integration/queues has a stand-in")
        page.left_out("import fanline.rq", "needs Redis; tests/integration/queues has a stand-in")
        for name, begins in (("drama.py", "import dramatiq"), ("jobs.py", "import fanline\nimport fanline.arq")):
            page.save(name, begins)
            other.run(f"python -W error {name}")
        page.save("app.py", "import fanline\nimport fanline.fastapi")
        page.newcomer.serve()
        page.newcomer.terminal("app").start("hypercorn -b 127.0.0.1:0 app:app", until="Running on")
        found = re.search(r"Running on (http://\S+)", page.newcomer.terminal("app").text())
        assert found
        answer = other.run(f"curl -sf -X POST {found[1]}/reports")
        assert "completed" in other.run(f"fanline tail task:{json.loads(answer)['task']}")


def test_tasks_from_any_language(read: Read) -> None:
    with read("docs/how-to/tasks-from-any-language.md") as page:
        for begins in ("fanline tail", '"""A task in Python', "// A task in Node", "// A task in Go", "#!", "#!"):
            page.elsewhere(begins, "integration/producers/test_any_language.py")


def test_watch_a_test_run(read: Read) -> None:
    with read("docs/how-to/watch-a-test-run.md") as page:
        page.newcomer.serve()
        page.newcomer.give("test_shop.py", "def test_it():\n    pass\n")
        command, shown, dots = page.lines("$ pytest --fanline=nightly")
        assert dots == "..."
        assert shown in page.newcomer.terminal("other").run(command.removeprefix("$ "))
        assert "1 passed" in page.newcomer.terminal("other").run("fanline tail task:nightly")


def test_move_from_an_existing_system(read: Read) -> None:
    with read("docs/how-to/move-from-an-existing-system.md") as page:
        page.elsewhere("from fanline.compat import broadcast", "pages/programs/test_compat.py")
        page.elsewhere("from fanline.compat import emit", "pages/programs/test_compat.py")
        page.elsewhere("import asyncio\nfrom fanline.compat import initialize", "pages/programs/test_compat.py")
        page.elsewhere("import asyncio\nfrom fanline.compat import WebSocketManager", "pages/programs/test_compat.py")
        page.elsewhere("# fanline.toml", "pages/programs/test_compat.py")
