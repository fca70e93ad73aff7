#!/usr/bin/env bash
# Sees to the base images that Dockerfile and docker-compose.yml name: one that is there is kept, one that
# is missing is pulled, and where it can't be, made out of Debian packages and this machine's own Rust
# toolchain. One made here is made anew when its recipe or its ingredients change.
set -euo pipefail
cd "$(dirname "$0")"

readonly slim=debian:bookworm-slim postgres=postgres:15 rust=rust:1.95-bookworm prometheus=prom/prometheus:v2.42.0
readonly label=modal-gateway.recipe certificates=/usr/local/share/ca-certificates

log() { printf 'compose: %s\n' "$*" >&2; }

# A digest of everything that goes into the images and may change: it becomes their label.
recipe() {
    { cat build-base-images.sh postgres/* prometheus/* rust/* && rustc --version &&
        find "$certificates" -type f -exec cat {} +; } | sha256sum | cut -c1-16
}

build_slim() {
    local rootfs status=0
    ../../scripts/setup.sh images
    rootfs=$(mktemp -d)
    debootstrap --variant=minbase bookworm "$rootfs" >"$rootfs.log" 2>&1 &&
        rm -f "$rootfs"/etc/{resolv.conf,hostname} "$rootfs"/var/cache/apt/archives/*.deb &&
        tar -C "$rootfs" --exclude='./dev/*' --exclude='./proc/*' --exclude='./sys/*' -c . |
        docker import --change 'CMD ["bash"]' --change "LABEL $label=$1" - "$slim" >/dev/null || status=$?
    if [ "$status" != 0 ]; then tail -n 20 "$rootfs.log" >&2; fi
    rm -rf "$rootfs" "$rootfs.log"
    return "$status"
}

build_postgres() {
    docker build --quiet --label "$label=$1" --tag "$postgres" postgres >/dev/null
}

build_prometheus() {
    docker build --quiet --label "$label=$1" --tag "$prometheus" prometheus >/dev/null
}

build_rust() {
    local version
    version=$(rustc --version)
    if [[ $version != "rustc 1.95."* ]]; then
        log "$rust needs Rust 1.95 on this machine, which has $version"
        return 1
    fi
    # The context is streamed, so that the toolchain is not copied to disk first.
    mkdir -p "$certificates"
    tar -c -C "$PWD/rust" Dockerfile -C "$(rustc --print sysroot)" bin/cargo bin/rustc lib \
        -C "$(dirname "$certificates")" ca-certificates |
        docker build --quiet --label "$label=$1" --tag "$rust" - >/dev/null
}

# ensure IMAGE FUNCTION
ensure() {
    local made start=$SECONDS
    if made=$(docker image inspect --format "{{index .Config.Labels \"$label\"}}" "$1" 2>/dev/null); then
        # Without our label it comes from elsewhere.
        if [ -z "$made" ] || [ "$made" = "$digest" ]; then return; fi
    elif timeout 600 docker pull --quiet "$1" >/dev/null 2>&1; then
        log "pulled $1 in $((SECONDS - start)) s"
        return
    fi
    "$2" "$digest"
    log "built $1 in $((SECONDS - start)) s"
}

digest=$(recipe)
ensure "$slim" build_slim
ensure "$postgres" build_postgres
ensure "$prometheus" build_prometheus
ensure "$rust" build_rust
