"""How to report from jobs, and watch them, followed."""

import re
import shutil

import pytest

from tests.pages.conftest import Read
from tests.pages.newcomer import GO_ON, Page, give_makefile

pytestmark = pytest.mark.process


def test_report_progress(read: Read) -> None:
    with read("docs/how-to/report-progress.md") as page:
        page.newcomer.serve()
        give_makefile(page.newcomer, "all")
        page.newcomer.give(GO_ON, "")
        assert "[2/2] compile" in page.run("fanline run --task nightly")
        _reads_stdin(page)
        for begins in (
            'import fanline\n\nwith fanline.Task("build-42"',
            'import fanline\n\nwith fanline.Task("deploy-7"',
            "import asyncio",
            "import fanline\nimport trio",
            "import logging",
            "from fanline import tqdm",
        ):
            page.elsewhere(begins, "pages/programs/test_report_progress.py")
        page.left_out("export FANLINE_NATS=tls://n1.example", "the NATS of another machine")
        page.elsewhere("import concurrent.futures", "pages/programs/test_report_progress.py")


def _reads_stdin(page: Page) -> None:
    page.newcomer.give("install.sh", '#!/bin/sh\nread answer\necho "got $answer"\n')
    installer, viewer = page.newcomer.terminal("other"), page.newcomer.terminal("viewer")
    installer.start(page.says("tail -f /dev/null | fanline run --input -- ./install.sh"), until="")
    tasks = viewer.run("until fanline tasks --once | grep install; do :; done")
    (task,) = set(re.findall(r"install\S*-\w+", tasks))
    viewer.run(f"fanline tail {task} --input yes", None)
    installer.wait_for("got yes")


def test_report_from_a_shell_script(read: Read) -> None:
    with read("docs/how-to/report-from-a-shell-script.md") as page:
        newcomer = page.newcomer
        newcomer.serve()
        give_makefile(newcomer, "all")
        newcomer.give(GO_ON, "")
        newcomer.give("deploy.sh", "#!/bin/sh\necho deployed\n")
        origin = "git init -q .; git -c user.name=a -c user.email=a@b.c commit -q --allow-empty -m begin"
        newcomer.terminal("other").run(f"(mkdir o; cd o; {origin}); git clone -q o c; mv c/.git .")
        run = page.take("fanline run --task nightly")
        page.save("build.sh", "#!/bin/sh")
        newcomer.terminal("job").start(run, until="[2/2] compile")
        viewer = newcomer.terminal("viewer")
        viewer.start("fanline tail task:nightly", until="Deploy to production?")
        newcomer.terminal("other").run("fanline tail task:nightly --approve")
        assert "deployed" in newcomer.terminal("job").wait_end()
        assert re.search(r"\b[0-9a-f]{40}\b", viewer.wait_end())
        _a_question_decides(page)
        _output_is_read(page)
        _has_a_terminal(page)
        page.save("report.py", "import fanline")
        newcomer.terminal("other").run("python report.py")
        newcomer.terminal("other").run("fanline run --task python -- python report.py")
        assert "compiling" in newcomer.terminal("other").run("fanline tail task:python")


def _a_question_decides(page: Page) -> None:
    page.newcomer.give("ask.sh", page.take('if fanline ask "Deploy?"'))
    job, viewer = page.newcomer.terminal("job"), page.newcomer.terminal("viewer")
    job.start("fanline run --task asks -- sh ./ask.sh", until="")
    viewer.run("until fanline tail task:asks --approve; do sleep 0.1; done")
    assert "deployed" in job.wait_end()
    page.newcomer.give("by.sh", page.says('fanline ask "Deploy?" --json | jq -r .by'))
    job.start("fanline run --task by -- sh ./by.sh", until="")
    viewer.run("until fanline tail task:by --reject; do sleep 0.1; done")
    assert job.wait_end().strip()


def _output_is_read(page: Page) -> None:
    page.newcomer.give("train.sh", "#!/bin/sh\necho epoch 3 of 4\n")
    page.newcomer.give("import.sh", "#!/bin/sh\necho 3 done, 4 in all\n")
    page.newcomer.give("check-coverage.sh", "#!/bin/sh\necho 75%\n")
    for line, seen in zip(page.lines("fanline run --progress-pattern"), (True, True, False), strict=True):
        page.newcomer.terminal("other").run(line.replace("fanline run", "fanline run --task reads"))
        said = page.newcomer.terminal("viewer").run("fanline tail task:reads --json")
        assert ('"percent":75' in said) is seen, said


def _has_a_terminal(page: Page) -> None:
    page.newcomer.give("package.json", '{"scripts": {"test": "test -t 1 && echo a terminal"}}')
    command = page.take("fanline run --tty -- npm test")
    if shutil.which("npm"):
        assert page.newcomer.terminal("other").run(command).count("a terminal") == 2


def test_watch_a_task(read: Read) -> None:
    with read("docs/how-to/watch-a-task.md") as page:
        newcomer = page.newcomer
        newcomer.serve()
        give_makefile(newcomer, "all")
        run, tail = page.lines("fanline run --task build-42")
        job, viewer = newcomer.terminal("job"), newcomer.terminal("viewer")
        job.start(run, until="[1/2]")
        viewer.start(tail, until="[1/2]")
        newcomer.give(GO_ON, "")
        assert "completed" in viewer.wait_end()
        newcomer.give("publish.sh", "#!/bin/sh\ncp nightly.log published.log\n")
        saved, percent, ids = page.lines("fanline tail nightly-")
        job.start("fanline run --task nightly-$(date +%F) -- make", until="[1/2]")
        viewer.run(saved)
        assert "[2/2] compile" in (newcomer.here / "published.log").read_text()
        viewer.start(percent, until="heard of")
        (newcomer.here / GO_ON).unlink()
        job.start("fanline run --task nightly -- make", until="[1/2]")
        in_table = f"until {ids} | grep -x nightly; do sleep 0.1; done"  # the table may be a second old
        newcomer.terminal("other").run(in_table)
        newcomer.give(GO_ON, "")
        assert viewer.wait_end().splitlines()[-1] == "100"
        page.save("view.py", "import asyncio\nimport fanline")
        assert "[2/2] compile" in viewer.run("python view.py")
        page.left_out("from fanline import TaskEvent", "a part of a program, not a whole one")
        page.left_out("import fanline\n\nasync def deploy(task)", "a part of a program, not a whole one")


def test_follow_many_tasks(read: Read) -> None:
    with read("docs/how-to/follow-many-tasks.md") as page:
        page.newcomer.serve()
        page.save("board.py", "import asyncio\nfrom collections import Counter")
        board, jobs = page.newcomer.terminal("board"), page.newcomer.terminal("jobs")
        board.start("python board.py", until="")
        job = "fanline run --task job-$n -- sh -c 'until [ -e go-on ]; do sleep 0.1; done'"
        jobs.start(f"for n in 1 2 3; do {job} & done; wait", until="")
        board.wait_for("{'running': 3}")
        page.newcomer.give(GO_ON, "")
        jobs.wait_end()
        board.wait_for("{'completed': 3}")
