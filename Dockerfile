# The gateway as an image. Plain instructions only, so that the classic builder and BuildKit both build it.
FROM rust:1.95-bookworm AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends cmake \
    && rm -rf /var/lib/apt/lists/*
# Tests choose others, for a shorter build: they ask whether the containers work, not how fast.
ARG OPT_LEVEL=3
ARG LTO=fat
ARG CODEGEN_UNITS=1
ARG DEBUG=line-tables-only
ENV CARGO_PROFILE_RELEASE_OPT_LEVEL=$OPT_LEVEL \
    CARGO_PROFILE_RELEASE_LTO=$LTO \
    CARGO_PROFILE_RELEASE_CODEGEN_UNITS=$CODEGEN_UNITS \
    CARGO_PROFILE_RELEASE_DEBUG=$DEBUG
WORKDIR /src

# The dependencies alone, against an empty crate: this layer lasts until Cargo.toml or Cargo.lock changes.
# The targets that Cargo.toml names (`[[bench]]`) are left out, since their files are not there yet.
COPY Cargo.toml Cargo.lock ./
RUN sed -i '/^\[\[/,/^$/d' Cargo.toml \
    && mkdir src \
    && echo 'fn main() {}' > src/main.rs \
    && touch src/lib.rs \
    && cargo build --release --locked --bin modal-gateway

COPY . .
# The repository is not here: this names its commit.
ARG GATEWAY_COMMIT
# COPY keeps times of modification, and Cargo would take a file older than the empty crate for unchanged.
RUN touch src/main.rs src/lib.rs \
    && cargo build --release --locked --bin modal-gateway

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates libstdc++6 \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 modal \
    && useradd --uid 10001 --gid modal --no-create-home --no-log-init --home-dir /data --shell /usr/sbin/nologin modal \
    && install -d -o modal -g modal -m 0750 /data
COPY --from=build /src/target/release/modal-gateway /usr/local/bin/
COPY tests/fixtures/randomx-chain-61.ndjson /usr/share/modal-gateway/chain.ndjson

# Pages of 2 MiB where the kernel has them, for RandomX: see docs/operations.md#memory.
ENV GLIBC_TUNABLES=glibc.malloc.hugetlb=1

# Numbers, so that an orchestrator can tell that it isn't root. Database, identity key: all in /data.
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8080 10001 10002
ENTRYPOINT ["modal-gateway"]
CMD ["serve", "--http", "0.0.0.0:8080"]
