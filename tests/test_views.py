"""The layout of the graph and the order of the x-ray, on runs of the file and of edits of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

WEB = Path(__file__).resolve().parent.parent / "web"


def test_views_of_real_runs() -> None:
    find = [sys.executable, str(WEB / "scripts" / "build.py"), "--which-node"]
    node = subprocess.run(find, capture_output=True, text=True, check=True).stdout.strip()
    done = subprocess.run(
        [node, "--test", "src/views/demo/views.test.mjs"],
        cwd=WEB,
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "# pass 0" not in done.stdout
