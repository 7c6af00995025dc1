#!/bin/sh
# Sees to it that there is a Chromium for the browser tests: one that is installed, or Debian's.
set -e

for name in chromium chromium-browser google-chrome google-chrome-stable; do
  if command -v "$name" >/dev/null 2>&1; then exit 0; fi
done

become=""
if [ "$(id -u)" != 0 ]; then become="sudo -n"; fi
if command -v apt-get >/dev/null 2>&1 && $become true 2>/dev/null; then
  echo "  installing Chromium for the browser tests"
  log=$(mktemp)
  if { $become apt-get -q update && DEBIAN_FRONTEND=noninteractive $become apt-get -q install -y --no-install-recommends chromium; } >"$log" 2>&1; then
    rm -f "$log"
    exit 0
  fi
  tail -20 "$log"
  rm -f "$log"
fi
echo "The browser tests need Chromium, and it could not be installed: install chromium or Google Chrome, then run make test again." >&2
exit 1
