#!/usr/bin/env bash
# Builds and runs docker-compose.yml as it stands and asks it what a user would ask; skipped where no
# Docker engine answers. Everything but the images is removed again at the end. `run.sh images` only builds them.
set -euo pipefail
cd "$(dirname "$0")/../.."

readonly deadline_seconds=90
# A port that is free, on loopback only; the file's own default is 8080.
export GATEWAY_PORT=${GATEWAY_PORT:-127.0.0.1:0}
export GATEWAY_COMMIT=0123456789ab
export COMPOSE_PROJECT_NAME=modal-gateway-test
work=$(mktemp -d)
checks=0

say() { printf 'compose: %s\n' "$*"; }
ok() { checks=$((checks + 1)) && say "ok: $*"; }
fail() { say "FAILED: $*" && exit 1; }
skip() { say "skipped: $*" && exit 0; }

if ! timeout 20 docker info >/dev/null 2>&1; then skip "no Docker engine answers"; fi
if docker compose version >/dev/null 2>&1; then
    compose() { docker compose "$@"; }
elif command -v docker-compose >/dev/null; then
    compose() { docker-compose "$@"; }
else
    skip "no Compose tool"
fi
scripts/setup.sh compose

cleanup() {
    local status=$?
    trap - EXIT
    if [ "$status" != 0 ]; then
        compose ps || true
        compose logs --no-color --tail=40 || true
    fi
    compose --profile prometheus --profile scale down --volumes --remove-orphans --timeout 5 >/dev/null 2>&1 || say "could not remove everything"
    rm -rf "$work"
    exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# ask PATH: sets `status`; the headers and the body go to $work
ask() {
    status=$(curl --silent --max-time 20 --dump-header "$work/headers" --output "$work/body" \
        --write-out '%{http_code}' "http://$address$1") || status=none
}

# header NAME: its value in the last answer
header() { sed -nE "s/^$1: *([^ \r]+).*/\1/ip" "$work/headers"; }
source_of() { header x-modal-source; }

# until_deadline WHAT COMMAND…: repeats the command until it succeeds
until_deadline() {
    local end=$((SECONDS + deadline_seconds)) what=$1
    shift
    until "$@"; do
        if [ "$SECONDS" -ge "$end" ]; then fail "$what within $deadline_seconds s"; fi
        sleep 0.5
    done
}

# up [OPTION…]: quiet unless it fails
up() {
    if ! compose up --detach "$@" >"$work/up.log" 2>&1; then
        tail -n 60 "$work/up.log"
        fail "up"
    fi
}

# Quiet unless it fails. Without most of the optimisation, which takes half of the time.
build() {
    local arguments=(--build-arg OPT_LEVEL=1 --build-arg LTO=off --build-arg CODEGEN_UNITS=16 --build-arg DEBUG=false)
    if ! compose --profile scale build "${arguments[@]}" >"$work/build.log" 2>&1; then
        tail -n 60 "$work/build.log"
        fail "build"
    fi
}

answers() { ask "$1" && [ "$status" = 200 ]; }
container() { compose ps -q "$1"; }
healthy() { [ "$(docker inspect --format '{{.State.Health.Status}}' "$(container "$1")")" = healthy ]; }

# expect_epoch_0 SOURCE: whether the last answer is epoch 0, from a source that matches this pattern
expect_epoch_0() {
    local source
    source=$(source_of)
    if [ "$status" != 200 ]; then fail "epoch 0: status $status"; fi
    # shellcheck disable=SC2053
    if [[ $source != $1 ]]; then fail "epoch 0 came from '$source', expected $1"; fi
    python3 -c '
import json, sys
answer = json.load(open(sys.argv[1]))
indexes = [block["index"] for block in answer["data"]["blocks"]]
sys.exit(not (answer["ok"] and answer["data"]["count"] == 41 and indexes == list(range(41))))' "$work/body" ||
        fail "epoch 0 is not blocks 0 to 40"
}

readonly epoch='/data/miner_block/epoch?epoch=0'

for profile in prometheus scale; do
    compose --profile "$profile" config >/dev/null || fail "the profile $profile is not valid"
done
compose --profile prometheus --profile scale down --volumes --remove-orphans >/dev/null 2>&1 || true
tests/compose/build-base-images.sh
start=$SECONDS
build
if [ "${1:-}" = images ]; then say "images built in $((SECONDS - start)) s" && exit 0; fi
up
say "built and up in $((SECONDS - start)) s"

address=$(compose port gateway 8080)
for service in postgres node gateway; do until_deadline "$service healthy" healthy "$service"; done
ok "postgres, node and gateway are healthy"

compose exec -T gateway modal-gateway --version | grep -q "(commit $GATEWAY_COMMIT)" || fail "the image names no commit"
ok "the image names the commit that it is built from"

services=$(docker ps --filter "label=com.docker.compose.project=$COMPOSE_PROJECT_NAME" \
    --format '{{.Label "com.docker.compose.service"}}' | sort | xargs)
[ "$services" = "gateway node postgres" ] || fail "without a profile these run: $services"
ok "Prometheus runs only where its profile is named"

ask /health/ready
[ "$status" = 200 ] || fail "/health/ready: $status"
ok "/health/ready: 200"

ask "$epoch"
expect_epoch_0 local
cp "$work/body" "$work/local"
ok "epoch 0: 41 blocks, from the gateway's store"

ask "$epoch&peer=any"
peer=$(source_of)
expect_epoch_0 'peer:*'
cmp "$work/body" "$work/local" || fail "the node's answer differs from the store's"
ok "epoch 0 with peer=any: the same bytes, from the node"

ask "$epoch&peer=node"
expect_epoch_0 "$peer"
ok "the node is reached by its alias"

# beyond INDEX: whether the gateway's tip is; sets `tip_index` and `tip_hash`
beyond() {
    ask /data/miner_block/chain_info
    IFS=: read -r tip_index tip_hash <<<"$(header x-modal-tip)"
    [ "$status" = 200 ] && [ "${tip_index:-0}" -gt "$1" ]
}

# The bundled chain ends at 60. A block takes some ten seconds, and chance may make it several times that.
until_deadline "the gateway follows the node" beyond 60
ask "/data/miner_block/range?from_index=$tip_index&to_index=$tip_index&peer=node"
[ "$status" = 200 ] || fail "the node's block $tip_index: $status"
python3 -c '
import json, sys
[block] = json.load(open(sys.argv[1]))["data"]["blocks"]
sys.exit(block["hash"] != sys.argv[2])' "$work/body" "$tip_hash" || fail "block $tip_index differs from the node's"
ok "the node mines, and the gateway has its block $tip_index"

for service in postgres node gateway; do
    [ "$(compose exec -T "$service" id -u)" != 0 ] || fail "$service runs as root"
    [ "$(docker inspect --format '{{.HostConfig.ReadonlyRootfs}}' "$(container $service)")" = true ] ||
        fail "$service can write to its image"
done
ok "no service runs as root or writes to its image"

id=$(container node)
compose stop node >/dev/null 2>&1
[ "$(docker inspect --format '{{.State.ExitCode}}' "$id")" = 0 ] || fail "the node did not stop cleanly"
answers "$epoch" || fail "without the node, the store answers $status"
ask "$epoch&peer=any"
[[ $status =~ ^(404|502|503|504)$ ]] || fail "without the node, peer=any is $status"
ok "the node stops cleanly; the store goes on answering, peer=any is $status"

compose start node >/dev/null 2>&1
until_deadline "the node is back" answers "$epoch&peer=any"
[ "$(source_of)" = "$peer" ] || fail "the node came back as $(source_of), was $peer"
ok "the gateway comes back to the node, which kept its identity and chain"

compose restart postgres >/dev/null 2>&1
until_deadline "the store is back" answers "$epoch"
ok "the gateway outlives a restart of Postgres"

up
until_deadline "epoch 0 after a second up" answers "$epoch"
cmp "$work/body" "$work/local" || fail "a second up changed the store"
ok "a second up imports nothing twice"

[ "$(docker inspect --format '{{.RestartCount}}' "$(container gateway)")" = 0 ] || fail "the gateway had to be restarted"
ok "the gateway was never restarted"

# With the profile: Prometheus reaches the admin listener by its token, and has read the alerts.
export COMPOSE_PROFILES=prometheus PROMETHEUS_PORT=127.0.0.1:0
export GATEWAY_ADMIN=0.0.0.0:9090 GATEWAY_ADMIN_TOKEN=a-token-for-the-test
up
scrapes() {
    compose exec -T prometheus promtool query instant http://127.0.0.1:9090 'up{job="modal-gateway"} == 1' |
        grep -q modal-gateway
}
until_deadline "Prometheus scrapes the gateway" scrapes
until_deadline "Prometheus is healthy" healthy prometheus
alerts=$(curl --silent --max-time 20 "http://$(compose port prometheus 9090)/api/v1/rules?type=alert" |
    grep -o '"name":"Modal[A-Za-z]*"' | sort -u | wc -l)
[ "$alerts" -ge 10 ] || fail "Prometheus has $alerts alerts"
ok "Prometheus scrapes the gateway and has $alerts alerts"

# Several machines in small: the gateways behind HAProxy read from the replica, and outlive one another and the replica.
export COMPOSE_PROFILES=scale SCALE_PORT=127.0.0.1:0
compose rm --stop --force prometheus gateway >/dev/null 2>&1
up
for service in replica pgbouncer gateway-1 gateway-2 gateway-3; do until_deadline "$service healthy" healthy "$service"; done
address=$(compose port haproxy 8080)
until_deadline "HAProxy has a gateway" answers "$epoch"
cmp "$work/body" "$work/local" || fail "a gateway behind HAProxy differs from the first one"
ok "three gateways answer behind HAProxy, from the same store"

compose exec -T gateway-1 modal-gateway health --synced >/dev/null || fail "gateway-1 is not in sync"
standby=$(compose exec -T replica psql --host=127.0.0.1 --username=modal --tuples-only --no-align \
    --command='SELECT pg_is_in_recovery(), length >= 61 FROM chain' modal)
[ "$standby" = "t|t" ] || fail "the replica: $standby"
ok "the replica has the chain"

compose kill gateway-1 replica >/dev/null 2>&1
for _ in 1 2 3 4 5 6; do
    answers "$epoch" || fail "without gateway-1 and the replica: $status"
done
beyond 0 || fail "the tip without the replica: $status"
ok "without one gateway and the replica the others go on"
say "$checks checks passed in $((SECONDS - start)) s"
