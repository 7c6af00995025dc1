"""What is published: the wheel and the sdist, opened, and the wheel installed where Node is not."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from microgpt import site

ROOT = Path(__file__).resolve().parent.parent

LIBRARIES = {
    "kernel.wasm",
    "linux-aarch64.so",
    "linux-x86_64.so",
    "macos-aarch64.dylib",
    "macos-x86_64.dylib",
    "windows-x86_64.dll",
}

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path | None = None, **environment: str) -> str:
    """Run a command that must succeed; its output."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the sdist and of the wheel, which is made from it with no Node in sight."""
    site.built_folder()  # the sdist builds the page if it is not current
    folder = tmp_path_factory.mktemp("dist")
    builder = [sys.executable, "-m", "build", "--no-isolation"]
    run(*builder, "--sdist", "--outdir", folder, ROOT)
    unpacked = folder / "unpacked"
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        archive.extractall(unpacked, filter="data")
    source = next(unpacked.iterdir())
    run(*builder, "--wheel", "--outdir", folder, source, PATH=without_node(folder))
    return folder


def without_node(folder: Path) -> str:
    """A PATH with the system's tools and no Node."""
    tools = folder / "tools"
    tools.mkdir(exist_ok=True)
    for name in ("sh", "env", "uname"):
        for place in ("/bin", "/usr/bin"):
            if (Path(place) / name).exists() and not (tools / name).exists():
                (tools / name).symlink_to(Path(place) / name)
    return str(tools)


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    return next(dist.glob("*.whl"))


def test_the_wheel_carries_the_page_and_nothing_that_it_should_not(wheel: Path) -> None:
    built = site.built_folder()
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        for file in filter(Path.is_file, built.rglob("*")):
            name = f"microgpt/site/built/{file.relative_to(built).as_posix()}"
            assert archive.read(name) == file.read_bytes()
        metadata = archive.read(next(n for n in names if n.endswith("/METADATA"))).decode()
    assert {"microgpt/gpt.py", "microgpt/data/names.txt", "microgpt/py.typed"} <= names
    lab = Path(site.__file__).parents[1] / "lab"
    for file in (*lab.glob("collection/*/*.py"), lab / "parts.json"):
        assert f"microgpt/lab/{file.relative_to(lab).as_posix()}" in names
    assert [name for name in names if name.endswith("licenses/LICENSE")]
    assert [name for name in names if name.endswith("licenses/THIRD_PARTY.md")]
    for name in names:
        assert name.startswith(("microgpt/", "microgpt_explainer-")), name
        assert not re.search(r"node_modules|/tests?/|__pycache__|\.map$|\.DS_Store", name), name
    assert wheel.stat().st_size < 8_000_000
    assert re.search(r"^Requires-Python: >=3\.11$", metadata, re.MULTILINE)
    always = re.findall(r"^Requires-Dist: ([a-z-]+)[^;\n]*$", metadata, re.MULTILINE)
    assert sorted(always) == ["click", "joblib", "markdown-it-py", "rich"]


def test_the_sdist_can_build_the_page_and_carries_it(dist: Path) -> None:
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for wanted in (
        "microgpt/site/built/index.html",
        "web/package-lock.json",
        "web/scripts/build.py",
        "web/src/engine/worker.ts",
        "kernel/build.py",
        "kernel/kernel.c",
        "kernel/level.c",
        *(f"microgpt/engines/built/{name}" for name in LIBRARIES),
        "tests/test_wheel.py",
        "Makefile",
        "LICENSE",
        "README.md",
    ):
        assert wanted in names
    assert not [
        name
        for name in names
        if re.search(r"node_modules|web/generated|__pycache__|^build/|-double", name)
    ]


def test_the_wheel_carries_the_kernel_for_every_system(wheel: Path) -> None:
    folder = "microgpt/engines/built/"
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.startswith(folder)]
        assert {name.removeprefix(folder) for name in names} == LIBRARIES
        for name in names:
            assert archive.read(name) == (ROOT / name).read_bytes()
    assert wheel.name.endswith("-py3-none-any.whl"), "one wheel serves every system"


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean environment with the wheel in it; the folder of its commands."""
    folder = tmp_path_factory.mktemp("clean") / "venv"
    run(sys.executable, "-m", "venv", folder)
    commands = folder / ("Scripts" if os.name == "nt" else "bin")
    run(commands / "python", "-m", "pip", "install", "--quiet", wheel)
    return commands


@pytest.fixture
def elsewhere(tmp_path: Path) -> dict[str, str]:
    """An environment without Node, outside the checkout."""
    return {"PATH": without_node(tmp_path), "PYTHONPATH": "", "HOME": str(tmp_path)}


def test_the_command_runs_where_it_is_installed(
    installed: Path, elsewhere: dict[str, str], tmp_path: Path
) -> None:
    with open(ROOT / "pyproject.toml", encoding="utf-8") as file:
        version = re.search(r'^version = "(.+)"$', file.read(), re.MULTILINE)
    assert version
    told = run(installed / "microgpt", "--version", cwd=tmp_path, **elsewhere)
    assert version[1] in told
    output = run(
        installed / "microgpt", "train", "--steps", "3", "--json", cwd=tmp_path, **elsewhere
    )
    losses = [row["loss"] for row in map(json.loads, output.splitlines()) if "loss" in row]
    assert len(losses) >= 3
    assert all(2 < loss < 5 for loss in losses)


def test_the_kernel_loads_where_it_is_installed(
    installed: Path, elsewhere: dict[str, str], tmp_path: Path
) -> None:
    program = (
        "from microgpt.engines.kernel import Kernel, kernel; found = kernel();"
        "print(found.level if isinstance(found, Kernel) else found)"
    )
    told = run(installed / "python", "-c", program, cwd=tmp_path, **elsewhere)
    assert re.fullmatch(r"v\d\s*", told)


def test_it_serves_the_page_where_it_is_installed(
    installed: Path, elsewhere: dict[str, str], tmp_path: Path
) -> None:
    serving = subprocess.Popen(
        [installed / "python", "-c", "from microgpt import site; site.serve(open_browser=False)"],
        cwd=tmp_path, env={**os.environ, **elsewhere}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert serving.stdout
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", serving.stdout.readline())
        assert found
        connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=10)
        connection.request("GET", "/")
        page = connection.getresponse().read().decode()
        assert "Content-Security-Policy" in page
        script = re.search(r'src="\./(assets/index-[^"]+\.js)"', page)
        assert script
        connection.request("GET", "/" + script[1])
        answer = connection.getresponse()
        assert answer.status == 200
        assert len(answer.read()) > 50_000
        connection.close()
    finally:
        serving.terminate()
        serving.communicate(timeout=10)


def test_it_exports_the_page_where_it_is_installed(
    installed: Path, elsewhere: dict[str, str], tmp_path: Path
) -> None:
    run(installed / "microgpt", "export", "site", cwd=tmp_path, **elsewhere)
    assert (tmp_path / "site" / "index.html").is_file()


def test_an_editable_install_needs_nothing_built() -> None:
    """The hook of the build leaves an editable install alone, and asks for nothing."""
    program = (
        "import sys; sys.path.insert(0, 'web/scripts'); import hatch_build as h\n"
        "hook = h.BuiltHook.__new__(h.BuiltHook); h._builder = None\n"
        "type(hook).root = property(lambda self: '.'); hook.initialize('editable', {})\n"
        "def get_requires_for_build_editable(): return hook.dependencies()\n"
        "print(get_requires_for_build_editable())"
    )
    assert run(sys.executable, "-c", program, cwd=ROOT).strip() == "[]"


def test_a_wheel_asks_for_the_compiler_only_when_something_changed() -> None:
    program = (
        "import sys; sys.path.insert(0, 'web/scripts'); import hatch_build as h\n"
        "hook = h.BuiltHook.__new__(h.BuiltHook); load = h._builder\n"
        "type(hook).root = property(lambda self: '.')\n"
        "def builder(path):\n"
        "    module = load(path); module.current = lambda target: sys.argv[1] == 'current'\n"
        "    return module\n"
        "h._builder = builder; print(*hook.dependencies())"
    )
    told = run(sys.executable, "-c", program, "current", cwd=ROOT)
    assert "ziglang" not in told
    assert "ziglang==" in run(sys.executable, "-c", program, "changed", cwd=ROOT)
