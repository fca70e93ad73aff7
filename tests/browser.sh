#!/usr/bin/env bash
# Swagger UI at /docs in a real browser that resolves no name: every route is shown, and nothing was asked of anybody
# else. Needs Chromium and target/debug/modal-gateway; skipped without a browser.
set -euo pipefail
cd "$(dirname "$0")/.."

browser=$(command -v chromium || command -v google-chrome) || { echo "browser: skipped: no Chromium" && exit 0; }
work=$(mktemp -d)
target/debug/modal-gateway demo --verify linked --http 127.0.0.1:0 --admin 127.0.0.1:0 >"$work/guide" 2>"$work/log" &
gateway=$!
trap 'kill "$gateway" 2>/dev/null || true; wait "$gateway" || true; rm -rf "$work"' EXIT
for _ in $(seq 100); do
    docs=$(sed -nE 's/^ *docs +//p' "$work/guide")
    if [ -n "$docs" ]; then break; fi
    kill -0 "$gateway" || { cat "$work/log" && exit 1; }
    sleep 0.1
done

"$browser" --headless=new --no-sandbox --disable-gpu --no-first-run --user-data-dir="$work/profile" \
    --host-resolver-rules='MAP * ~NOTFOUND, EXCLUDE 127.0.0.1' --virtual-time-budget=20000 \
    --dump-dom "$docs/" >"$work/dom" 2>/dev/null

shown=$(grep -o 'data-path="[^"]*"' "$work/dom" | sort)
expected=$(python3 - <<'PYTHON'
import json
paths = json.load(open("openapi/openapi.json"))["paths"]
print("\n".join(sorted(f'data-path="{path}"' for path, item in paths.items() for _ in item)))
PYTHON
)
[ "$(sort <<<"$shown")" = "$(sort <<<"$expected")" ] || { diff <(echo "$expected") <(echo "$shown"); exit 1; }
# What the page loads or calls; links to elsewhere are only followed by a click.
foreign=$(grep -oE '(src|action)="https?://[^"]*"|<link[^>]+href="https?://[^"]*"' "$work/dom" || true)
[ -z "$foreign" ] || { echo "browser: FAILED: $foreign" && exit 1; }
echo "browser: ok: $(wc -l <<<"$shown") operations shown, offline"
