"""What is installed has one name, `fanline`, and goes together with whatever a user calls their own modules."""

import csv
import io
import select
import shutil
import signal
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import fanline
from tests.support.paths import ROOT
from tests.support.programs.installs import (
    SECONDS,
    Environment,
    build_sdist,
    build_wheel,
    clean_environ,
    copy_tree,
    requirements_of,
)

NAME = f"fanline-{fanline.__version__}"
DIST_INFO = f"{NAME}.dist-info"
ROOMS = ("protocol", "engine", "workers", "loadtest")
OWN = {
    "protocol.py": "WHOSE = 'protocol of the user'",
    "engine/__init__.py": "WHOSE = 'engine of the user'",
    "workers.py": "WHOSE = 'workers of the user'",
    "loadtest/__init__.py": "WHOSE = 'loadtest of the user'",
}
USES_BOTH = """
import protocol, engine, workers, loadtest
import fanline
assert fanline.Task.__module__ == "fanline.producer.task"
print(*(module.WHOSE for module in (protocol, engine, workers, loadtest)), sep=", ")
"""
USES_THE_SDK = """
import fanline, sys, trio

async def main(url: str, nats: str) -> None:
    async with fanline.Client(url) as client, client.task("build") as updates:
        async with fanline.Task("build", nats=nats) as task:
            task.progress(percent=50)
        async for _ in updates:
            if updates.snapshot.state == "completed":
                break
    print(updates.snapshot.state)

trio.run(main, *sys.argv[1:])
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh clone."""
    return copy_tree(tmp_path_factory.mktemp("clone") / "tree")


@pytest.fixture(scope="module")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tree, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_sdist(tree, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """`pip install 'fanline[server]'` from a wheel."""
    environment = Environment(tmp_path_factory.mktemp("installed"), requirements_of(wheel, "server"))
    environment.install(str(wheel))
    return environment


@pytest.fixture(scope="module")
def editable(wheel: Path, tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """`pip install --editable '.[server]'` in a clone."""
    requirements = [*requirements_of(wheel, "server"), Requirement("setuptools")]
    environment = Environment(tmp_path_factory.mktemp("editable"), requirements)
    environment.install("--editable", str(tree))
    return environment


@pytest.fixture(params=["installed", "editable"])
def either(request: pytest.FixtureRequest) -> Environment:
    """From a wheel, and editable."""
    environment: Environment = request.getfixturevalue(request.param)
    return environment


@pytest.fixture
def users_folder(tmp_path: Path) -> Path:
    """A folder whose modules have the names of our rooms."""
    folder = tmp_path / "project"
    for name, source in OWN.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(source)
    return folder


def sources() -> set[str]:
    """What Fanline is made of, by its path in an environment."""
    found = set()
    for room in ("fanline", *ROOMS):
        prefix = "" if room == "fanline" else "fanline/"
        for file in (ROOT / room).rglob("*"):
            if file.suffix in (".py", ".c", ".h") or file.name == "py.typed":
                found.add(prefix + file.relative_to(ROOT).as_posix())
    return found


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


# --- what is in it ------------------------------------------------------------------------------------------------


def test_the_wheel_holds_fanline_alone_and_every_source_file_once(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.partition("/")[0] for name in names} == {"fanline", DIST_INFO}
    assert sorted(name for name in names if not name.startswith(DIST_INFO)) == sorted(sources())
    assert {"fanline/py.typed", "fanline/engine/server.py"} <= set(names)
    assert {".c", ".h"} <= {Path(name).suffix for name in names if name.startswith("fanline/loadtest/bench/")}


def test_the_source_distribution_holds_every_source_file_once(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        files = [member.name.removeprefix(f"{NAME}/") for member in archive.getmembers() if member.isfile()]
    assert {name.partition("/")[0] for name in files if "/" in name} == {"src", "docs"}
    code = [name for name in files if name.endswith((".py", ".c", ".h", "py.typed"))]
    assert sorted(code) == sorted(f"src/{name}" for name in sources())


def test_the_source_distribution_builds_the_same_wheel(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    assert contents(build_wheel(sdist, tmp_path)) == contents(wheel)


def test_a_tree_whose_symlinks_became_text_is_not_built_into_an_empty_wheel(tree: Path, tmp_path: Path) -> None:
    """As pip unpacks a zip archive."""
    spoilt = copy_tree(tmp_path / "tree")
    (spoilt / "src" / "fanline").unlink()
    (spoilt / "src" / "fanline").write_text("../fanline")
    builder = Environment(tmp_path / "builder", [Requirement("setuptools")])
    code = "from setuptools import build_meta; build_meta.build_wheel('.')"
    ended = builder.run("python", "-P", "-c", code, cwd=spoilt)
    assert ended.stderr.splitlines()[-1] == "ModuleNotFoundError: fanline"
    assert list(spoilt.glob("*.whl")) == []


def test_uninstalling_removes_nothing_but_fanline(installed: Environment) -> None:
    record = (installed.packages / DIST_INFO / "RECORD").read_text()
    paths = {path for path, *_ in csv.reader(io.StringIO(record))}
    assert paths - {"../../../bin/fanline"} == {
        path for path in paths if path.startswith(("fanline/", f"{DIST_INFO}/"))
    }


# --- beside what users have ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("environ", [{}, {"PYTHONPATH": "."}], ids=["plain", "PYTHONPATH"])
def test_a_user_may_have_modules_with_the_names_of_our_rooms(
    either: Environment, users_folder: Path, environ: dict[str, str]
) -> None:
    (users_folder / "script.py").write_text(USES_BOTH)
    for arguments in (("script.py",), ("-m", "script"), ("-c", USES_BOTH)):
        ended = either.run("python", *arguments, cwd=users_folder, environ=environ)
        assert (ended.stdout, ended.stderr) == (", ".join(f"{room} of the user" for room in ROOMS) + "\n", "")


@pytest.mark.parametrize("environ", [{}, {"PYTHONPATH": "."}], ids=["plain", "PYTHONPATH"])
def test_a_server_and_a_task_run_in_a_folder_that_has_them(
    either: Environment, users_folder: Path, environ: dict[str, str], tmp_path: Path
) -> None:
    environ = {**environ, "FANLINE_STATE_DIR": str(tmp_path / "state")}
    with serving(either, users_folder, environ):
        ended = either.run("fanline", "run", "--task", "greet", "echo", "hello", cwd=users_folder, environ=environ)
        assert (ended.returncode, ended.stdout) == (0, "hello\n")
        viewed = either.run("fanline", "tail", "task:greet", cwd=users_folder, environ=environ)
        assert (viewed.returncode, viewed.stdout) == (0, "hello\n")


@pytest.mark.parametrize("environ", [{}, {"PYTHONPATH": "."}], ids=["plain", "PYTHONPATH"])
def test_a_clone_called_fanline_beside_a_script_does_not_hide_what_is_installed(
    either: Environment, tmp_path: Path, environ: dict[str, str]
) -> None:
    copy_tree(tmp_path / "fanline")
    (tmp_path / "script.py").write_text("import fanline.engine\nprint(fanline.Task.__name__)")
    for arguments in (("script.py",), ("-m", "script"), ("-c", "import script")):
        ended = either.run("python", *arguments, cwd=tmp_path, environ=environ)
        assert (ended.stdout, ended.stderr) == ("Task\n", "")


@contextmanager
def serving(environment: Environment, folder: Path, environ: Mapping[str, str]) -> Iterator[list[str]]:
    """`fanline serve` in a folder; the words of its ready line."""
    command = (str(environment.scripts / "fanline"), "serve", "--port", "0", "--workers", "1", "--data-dir", "data")
    errors = folder / "stderr.txt"
    with (
        errors.open("w") as stderr,
        subprocess.Popen(
            command, cwd=folder, env=clean_environ(environ), stdout=subprocess.PIPE, stderr=stderr, text=True
        ) as server,
    ):
        try:
            assert server.stdout is not None
            readable, _, _ = select.select([server.stdout], [], [], SECONDS)
            line = server.stdout.readline() if readable else ""
            assert line.startswith("fanline ready: "), errors.read_text()
            yield line.split()
            server.send_signal(signal.SIGINT)
            assert server.wait(SECONDS) == 0
        finally:
            server.kill()  # its children die with it


# --- the extras ---------------------------------------------------------------------------------------------------


def test_the_base_alone_is_the_sdk_and_the_command_line(
    wheel: Path, installed: Environment, users_folder: Path, tmp_path: Path
) -> None:
    base = Environment(tmp_path / "base", requirements_of(wheel))
    base.install(str(wheel))
    missing = base.run("python", "-c", "import nats", cwd=tmp_path)
    assert "No module named 'nats'" in missing.stderr
    usage = base.run("fanline", "--help", cwd=tmp_path)
    assert (usage.returncode, usage.stderr) == (0, "")
    environ = {"FANLINE_STATE_DIR": str(tmp_path / "state")}
    with serving(installed, users_folder, environ) as ready:
        url = next(word for word in ready if word.startswith("ws://"))
        nats = base.run("fanline", "nats-url", cwd=tmp_path, environ=environ).stdout.strip()
        ended = base.run("python", "-c", USES_THE_SDK, url, nats, cwd=tmp_path)
    assert (ended.stdout, ended.stderr) == ("completed\n", "")


def test_the_load_tests_have_what_they_import(wheel: Path, tmp_path: Path) -> None:
    environment = Environment(tmp_path / "loadtest", requirements_of(wheel, "loadtest"))
    environment.install(str(wheel))
    locustfile = str(environment.packages / "fanline" / "loadtest" / "locustfile.py")
    users = environment.run("python", "-m", "locust", "-f", locustfile, "--list", cwd=tmp_path)
    assert (users.returncode, "Viewer" in users.stdout) == (0, True), users.stderr
    usage = environment.run("python", "-m", "fanline.loadtest.bench", "--help", cwd=tmp_path)
    assert (usage.returncode, usage.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler (cc), and the bench's programs are in C")
def test_an_installed_bench_starts_the_installed_server(installed: Environment, tmp_path: Path) -> None:
    bench = ("python", "-m", "fanline.loadtest.bench", "fanout", "--subscribers", "2", "--rate", "5", "--seconds", "1")
    ended = installed.run(*bench, cwd=tmp_path, environ={"HOME": str(tmp_path)})
    assert (ended.returncode, ended.stderr) == (0, "")


def test_the_lock_file_of_the_readme_has_all_that_the_server_needs_with_hashes(wheel: Path) -> None:
    readme = (ROOT / "README.md").read_text()
    assert "pip install --require-hashes -r /path/to/fanline/requirements-run.lock" in readme
    lock = (ROOT / "requirements-run.lock").read_text()
    pinned = {
        line.partition("==")[0].lower(): line
        for line in lock.replace("\\\n", " ").splitlines()
        if "==" in line and not line.startswith((" ", "#"))
    }
    missing = [each.name for each in requirements_of(wheel, "server") if each.name.lower() not in pinned]
    assert missing == []
    assert all("--hash=sha256:" in line for line in pinned.values())
