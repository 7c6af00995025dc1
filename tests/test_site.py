"""The built page: what is in it, the server that hands it out, and the export for other servers."""

from __future__ import annotations

import ast
import errno
import gzip
import http.client
import importlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from microgpt import bridge, site
from microgpt.errors import MicrogptError
from microgpt.site import EXPORT_MARK, FIRST_PORT, POLICY, Server

ROOT = Path(__file__).resolve().parent.parent
ALIASES = {"collections.abc": "_collections_abc", "os.path": "posixpath"}  # made by their parents


@pytest.fixture(scope="module")
def built() -> Path:
    return site.built_folder()


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small page in place of the built one, for tests of the server and of the export."""
    folder = tmp_path / "package" / "built"
    (folder / "assets").mkdir(parents=True)
    for name in ("index.html", "licences.txt", "assets/a.js", "assets/b.mjs", "assets/c.wasm"):
        (folder / name).write_text(f"this is {name}", encoding="utf-8")
    monkeypatch.setattr(site, "built_folder", lambda: folder)
    return folder


# ---- What is in the built page ----


def test_a_checkout_without_a_page_says_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site, "__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(MicrogptError, match="make site"):
        site.built_folder()


def test_the_page_states_its_policy_first(built: Path) -> None:
    html = (built / "index.html").read_text(encoding="utf-8")
    found = re.search(r'<head>\s*<meta http-equiv="Content-Security-Policy" content="(.*?)">', html)
    assert found, "the policy must stand before anything that it rules"
    # frame-ancestors has no meaning in a <meta>
    assert found[1] == POLICY.replace("; frame-ancestors 'none'", "")
    assert "unsafe-inline" not in found[1]
    assert "'unsafe-eval'" not in found[1]


def test_the_page_asks_no_other_host_for_anything(built: Path) -> None:
    html = (built / "index.html").read_text(encoding="utf-8")
    program = html.partition('<pre id="source"')[0]  # before the text of the program
    links = re.findall(r'\b(?:src|href)="([^"]*)"', program)
    assert len(links) >= 3
    for link in links:
        assert link.startswith("./"), f"{link} would break below a folder, or leave the host"
        assert (built / link).is_file(), link
    for style in built.rglob("*.css"):
        assert not re.search(r"url\(\s*['\"]?(?:https?:)?//", style.read_text(encoding="utf-8"))


def test_the_page_has_nothing_inline(built: Path) -> None:
    html = (built / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<script(?![^>]*\bsrc=)", html)
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=", html.partition('<pre id="source"')[0])


def test_the_page_carries_its_parts_and_no_tools(built: Path) -> None:
    names = {path.relative_to(built).as_posix() for path in built.rglob("*") if path.is_file()}
    for wanted in (
        r"index\.html",
        r"licences\.txt",
        r"recording\.json\.gz",
        r"assets/index-[\w-]{8}\.js",
        r"assets/index-[\w-]{8}\.css",
        r"assets/worker-[\w-]{8}\.js",
        r"assets/python-[0-9a-f]{10}/pyodide\.asm\.wasm",
        r"assets/python-[0-9a-f]{10}/stdlib\.zip",
        r"assets/python-[0-9a-f]{10}/core\.zip",
    ):
        assert [name for name in names if re.fullmatch(wanted, name)], wanted
    assert not [name for name in names if re.search(r"test|\.map$|node_modules|lock\.json", name)]
    assert sum((built / name).stat().st_size for name in names) < 16_000_000


def test_the_recording_is_of_this_file_and_small(built: Path) -> None:
    packed = (built / "recording.json.gz").read_bytes()
    assert len(packed) <= 60_000
    recording = json.loads(gzip.decompress(packed))
    assert recording["boot"]["source"] == (ROOT / "microgpt" / "gpt.py").read_text(encoding="utf-8")
    assert len(recording["losses"]) == 1000


def test_the_page_carries_the_kernel_and_its_first_run_where_there_is_a_compiler(
    built: Path,
) -> None:
    kernel = ROOT / "microgpt" / "engines" / "built" / "kernel.wasm"
    carried = list(built.rglob("kernel-*.wasm"))
    if not kernel.is_file():
        assert not carried
        return
    assert [file.read_bytes() for file in carried] == [kernel.read_bytes()]
    packed = (built / "first.pack.gz").read_bytes()
    assert len(packed) <= 60_000
    assert gzip.decompress(packed) == bridge.first()


def test_the_package_in_the_page_is_this_one(built: Path) -> None:
    with zipfile.ZipFile(next(built.rglob("core.zip"))) as archive:
        names = archive.namelist()
        for name in names:
            if not name.endswith(".pyc"):
                assert archive.read(name) == (ROOT / name).read_bytes(), f"{name}: run make site"
    assert {"microgpt/gpt.py", "microgpt/bridge.py", "microgpt/data/names.txt"} <= set(names)
    assert not [name for name in names if re.search(r"cli|__main__|/site/", name)]
    assert not [name for name in names if re.search(r"engines/(fast|kernel|built)", name)]
    compiled = {name for name in names if name.endswith(".pyc")}
    assert len(compiled) == len([name for name in names if name.endswith(".py")])


def imports(source: str) -> Iterator[str]:
    """Every module that a source names in an import, wherever it stands."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module


def test_every_module_that_the_core_imports_is_in_the_page(built: Path) -> None:
    with zipfile.ZipFile(next(built.rglob("stdlib.zip"))) as archive:
        library = set(archive.namelist())
    with zipfile.ZipFile(next(built.rglob("core.zip"))) as archive:
        sources = {n: archive.read(n).decode() for n in archive.namelist() if n.endswith(".py")}
    checked = set()
    for path, source in sources.items():
        for name in imports(source):
            top = name.partition(".")[0]
            if top == "microgpt":
                continue
            assert top in sys.stdlib_module_names, f"{path} imports {name}"
            checked.add(name)
            name = ALIASES.get(name, name)
            file = getattr(importlib.import_module(name), "__file__", None) or ""
            if file.endswith(".py"):  # the others are inside the interpreter
                forms = {f"{name.replace('.', '/')}{end}" for end in (".pyc", "/__init__.pyc")}
                assert forms & library, f"{path} imports {name}"
    assert len(checked) > 20


def test_the_library_in_the_page_is_trimmed_and_compiled(built: Path) -> None:
    archive = next(built.rglob("stdlib.zip"))
    with zipfile.ZipFile(archive) as library:
        names = library.namelist()
        assert all(name.endswith(".pyc") for name in names)
        header = library.read(names[0])[:8]
    assert int.from_bytes(header[4:], "little") == 1, (
        "compiled files must not look for their source"
    )
    assert not [n for n in names if n.split("/")[0] in {"test", "tkinter", "unittest", "idlelib"}]
    assert archive.stat().st_size < 2_000_000


def test_the_licences_are_complete_and_the_table_is_current(built: Path) -> None:
    texts = (built / "licences.txt").read_text(encoding="utf-8")
    table = (ROOT / "THIRD_PARTY.md").read_text(encoding="utf-8")
    generated = ROOT / "web" / "generated" / "THIRD_PARTY.md"
    assert table == generated.read_text(encoding="utf-8"), f"copy {generated} over THIRD_PARTY.md"
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|", table, re.MULTILINE)[1:]
    assert {"Pyodide", "svelte", "@codemirror/view"} <= {name for name, _, _ in rows}
    for name, version, licence in rows:
        assert f"{name} {version}\nLicence: {licence}\n" in texts
    for words in (
        "Mozilla Public License",
        "PYTHON SOFTWARE FOUNDATION LICENSE",
        "the microgpt authors",
    ):
        assert words.lower() in texts.lower()


# ---- The walk in it ----


@pytest.fixture(scope="module")
def walk(built: Path) -> dict[str, str]:
    """The pages of the walk, by name."""
    pages = {p.stem: p.read_text(encoding="utf-8") for p in (built / "walk").glob("*.html")}
    assert {"index", "glossary", "references", "made", "attention"} <= set(pages)
    return pages


def test_every_page_of_the_walk_states_the_policy_first(walk: dict[str, str]) -> None:
    for name, html in walk.items():
        found = re.search(
            r'<head>\s*<meta http-equiv="Content-Security-Policy" content="(.*?)">', html
        )
        assert found, name
        assert found[1] == POLICY.replace("; frame-ancestors 'none'", ""), name


def test_the_walk_has_nothing_inline_and_asks_no_other_host(walk: dict[str, str]) -> None:
    for name, html in walk.items():
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style", html), name
        assert not re.search(r"<[a-z][^>]*\s(?:style|on[a-z]+)=", html), name
        for link in re.findall(r'\bsrc="([^"]*)"|<link[^>]*href="([^"]*)"', html):
            assert "".join(link).startswith("../"), f"{name}: {link}"


def test_every_link_of_the_walk_leads_somewhere(built: Path, walk: dict[str, str]) -> None:
    for name, html in walk.items():
        for link in re.findall(r'\b(?:src|href|data-from)="([^"]*)"', html):
            if link.startswith(("https:", "mailto:")):
                continue
            path, _, place = link.partition("#")
            file = (built / "walk" / path).resolve() if path else built / "walk" / f"{name}.html"
            assert file.is_file(), f"{name}: {link}"
            if place and file.suffix == ".html":
                assert f'id="{place}"' in file.read_text(encoding="utf-8"), f"{name}: {link}"


def test_a_chapter_is_whole_without_scripts(walk: dict[str, str]) -> None:
    chapters = [html for html in walk.values() if 'data-page="chapter"' in html]
    assert len(chapters) >= 10
    for html in chapters:
        assert html.count('<section class="step"') >= 2
        for drawing in re.findall(r'<div class="drawing"[^>]*>(.{400})', html, re.DOTALL):
            assert "</figure>" not in drawing, "a figure was not drawn"
        for ask in re.findall(r'<div class="ask".*?<div class="alive"', html, re.DOTALL):
            assert "<details>" in ask, "the answer to a question is not there"


def test_the_pane_of_a_chapter_holds_the_file(walk: dict[str, str]) -> None:
    html = walk["attention"].partition('<aside class="pane"')[2].partition("</aside>")[0]
    rows = re.findall(r'data-line="\d+">.*?<code>(.*?)</code>', html, re.DOTALL)
    text = [re.sub(r"<[^>]*>", "", row) for row in rows]
    for escape, sign in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&amp;", "&")):
        text = [row.replace(escape, sign) for row in text]
    assert "\n".join(text) + "\n" == (ROOT / "microgpt" / "gpt.py").read_text(encoding="utf-8")


def test_the_figures_of_a_chapter_have_their_answers(built: Path, walk: dict[str, str]) -> None:
    found = re.search(r'data-from="(.*?)"', walk["attention"])
    assert found
    data = json.loads((built / "walk" / found[1]).read_text(encoding="utf-8"))
    drawn = set(re.findall(r'data-island="figure" data-id="(.*?)"', walk["attention"]))
    assert drawn == set(data["figures"])
    assert {figure["figure"] for figure in data["figures"].values()} >= {"attention", "matrix"}
    assert all(figure["answer"] for figure in data["figures"].values())


def test_what_answers_the_walk_is_in_the_page_and_its_texts_are_not(built: Path) -> None:
    with zipfile.ZipFile(next(built.rglob("core.zip"))) as archive:
        names = {name for name in archive.namelist() if name.startswith("microgpt/lessons/")}
    assert {"instruments.py", "exercises.py"} <= {name.rpartition("/")[2] for name in names}
    assert not [name for name in names if re.search(r"\.md$|__main__|parse|facts", name)]


def test_a_chapter_is_light(built: Path, walk: dict[str, str]) -> None:
    for name, html in walk.items():
        pattern = r'(?:src|href|data-from)="((?:\.\./(?:assets|theme|icon)|data/)[^"]*)"'
        files = [built / "walk" / link for link in set(re.findall(pattern, html))]
        parts = [html.encode(), *(file.read_bytes() for file in files)]
        assert sum(len(gzip.compress(part)) for part in parts) <= 150_000, name


# ---- The server ----


@pytest.fixture
def server(page: Path) -> Iterator[Server]:
    with Server(page, 0) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def ask(
    server: Server, path: str, method: str = "GET", host: str | None = None
) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=5)
    try:
        connection.putrequest(method, path, skip_host=True)
        connection.putheader("Host", f"127.0.0.1:{server.server_port}" if host is None else host)
        connection.endheaders()
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("path", "kind", "cache"),
    [
        ("/", "text/html; charset=utf-8", "no-cache"),
        ("/index.html?a=b", "text/html; charset=utf-8", "no-cache"),
        ("/assets/a.js", "text/javascript; charset=utf-8", "max-age=31536000, immutable"),
        ("/assets/b.mjs", "text/javascript; charset=utf-8", "max-age=31536000, immutable"),
        ("/assets/c.wasm", "application/wasm", "max-age=31536000, immutable"),
    ],
)
def test_it_serves_files_with_their_types(
    server: Server, page: Path, path: str, kind: str, cache: str
) -> None:
    response, body = ask(server, path)
    assert response.status == 200
    assert response.headers["Content-Type"] == kind
    assert response.headers["Cache-Control"] == cache
    assert response.headers["Content-Security-Policy"] == POLICY
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    name = path.partition("?")[0].lstrip("/") or "index.html"
    assert body == (page / name).read_bytes()
    head, nothing = ask(server, path, "HEAD")
    assert head.headers["Content-Length"] == str(len(body))
    assert nothing == b""


@pytest.mark.parametrize(
    "path",
    [
        "/assets/",
        "/assets",
        "/nothing",
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/assets/..%2f..%2fsecret.txt",
        "/..%5csecret.txt",
        "//etc/passwd",
        "/link.txt",
        "/index.html%00",
        "/" + "a" * 3000,
    ],
)
def test_it_serves_nothing_else(server: Server, page: Path, path: str) -> None:
    (page.parent / "secret.txt").write_text("secret", encoding="utf-8")
    (page / "link.txt").symlink_to(page.parent / "secret.txt")
    response, body = ask(server, path)
    assert response.status == 404
    assert body == b"404 Not Found\n"


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8150", "", "127.0.0.1.evil.example"]
)
def test_it_answers_to_its_own_names_only(server: Server, host: str) -> None:
    response, body = ask(server, "/", host=host)
    assert response.status == 421
    assert b"this is" not in body
    assert ask(server, "/", host=f"localhost:{server.server_port}")[0].status == 200


def test_it_takes_no_orders(server: Server) -> None:
    assert ask(server, "/", "POST")[0].status == 501


def test_a_port_in_use_is_one_sentence(page: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(MicrogptError, match=f"^Port {port} is in use: .*--port"):
            Server(page, port)
    with pytest.raises(MicrogptError, match="Port 70000 does not exist"):
        Server(page, 70000)


def test_the_first_free_port_is_taken(page: Path) -> None:
    with Server(page) as first, Server(page) as second:
        assert FIRST_PORT <= first.server_port < second.server_port


def test_ctrl_c_ends_it_quietly(built: Path) -> None:
    environment = {
        key: value for key, value in os.environ.items() if key not in ("DISPLAY", "BROWSER")
    }
    serving = subprocess.Popen(
        [sys.executable, "-c", "from microgpt import site; site.serve()"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment,
    )  # fmt: skip
    assert serving.stdout
    first, second = serving.stdout.readline(), serving.stdout.readline()
    found = re.search(r"http://127\.0\.0\.1:(\d+)/", first)
    assert found, first
    assert "Ctrl-C" in second
    connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=5)
    connection.request("GET", "/")
    assert connection.getresponse().read() == (built / "index.html").read_bytes()
    connection.close()
    serving.send_signal(signal.SIGINT)
    rest, complaints = serving.communicate(timeout=10)
    assert serving.returncode == 0
    assert (rest, complaints) == ("", "")


def test_it_serves_the_index_of_a_folder_and_sends_on_to_it(server: Server, page: Path) -> None:
    (page / "walk").mkdir()
    (page / "walk" / "index.html").write_text("the contents", encoding="utf-8")
    response, body = ask(server, "/walk/?text=mia")
    assert (response.status, body) == (200, b"the contents")
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    response, body = ask(server, "/walk")
    assert (response.status, response.headers["Location"], body) == (301, "walk/", b"")


# ---- The export ----


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8")
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("made_before", [False, True])
def test_it_writes_a_new_or_empty_folder(page: Path, tmp_path: Path, made_before: bool) -> None:
    target = tmp_path / "a" / "site"
    if made_before:
        target.mkdir(parents=True)
    site.export(target)
    written = contents(target)
    assert written.pop(EXPORT_MARK)
    assert written == contents(page)
    assert list(target.parent.iterdir()) == [target], "nothing is left beside it"


def test_it_replaces_an_earlier_export_and_keeps_what_is_not_its_own(
    page: Path, tmp_path: Path
) -> None:
    target = tmp_path / "site"
    site.export(target)
    (target / "CNAME").write_text("microgpt.example", encoding="utf-8")
    (page / "assets" / "a.js").rename(page / "assets" / "a2.js")
    site.export(target)
    written = contents(target)
    assert written["CNAME"] == "microgpt.example"
    assert "assets/a2.js" in written
    assert "assets/a.js" not in written


def test_it_refuses_a_folder_with_something_else(page: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    target.mkdir()
    (target / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(MicrogptError, match="is not empty"):
        site.export(target)
    assert contents(target) == {"thesis.txt": "years of work"}


def test_it_refuses_a_file_and_its_own_folder(page: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(MicrogptError, match="is a file"):
        site.export(tmp_path / "file")
    for folder in (page, page / "inside", page.parent):
        with pytest.raises(MicrogptError, match="where the package itself is"):
            site.export(folder)
    with pytest.raises(MicrogptError, match="could not be written"):
        site.export("/dev/null/site")


def test_a_full_disk_leaves_the_earlier_export(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "site"
    site.export(target)
    before = contents(target)

    def full(source: Path, *arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copytree", full)
    with pytest.raises(MicrogptError, match=r"could not be written to .*: No space left"):
        site.export(target)
    assert contents(target) == before
    assert not [entry for entry in tmp_path.iterdir() if entry.name.startswith(".")]
