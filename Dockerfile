# Builder and runtime are of the same Debian release, so the binary finds the C library it was linked against.
FROM rust:1.95-slim-bookworm AS build
# Packages without versions: the release names them, and its security updates are wanted.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY . .
RUN cargo build --locked --release --bin aftercall \
    && install -D target/release/aftercall /out/aftercall

FROM debian:bookworm-slim
# The TLS verifier reads the system's certificates.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --no-create-home --home-dir /var/lib/aftercall aftercall \
    && install -d -o aftercall -g aftercall -m 0750 /var/lib/aftercall
COPY --from=build /out/aftercall /usr/local/bin/aftercall
COPY LICENSE /usr/share/doc/aftercall/LICENSE

# By number, so that an orchestrator can see that it is not root.
USER 10001:10001
# aftercall.toml is looked for here, and aftercall-data is made here.
WORKDIR /var/lib/aftercall
VOLUME /var/lib/aftercall
# Loopback inside a container reaches nobody.
ENV AFTERCALL__API__LISTEN=0.0.0.0:8080
EXPOSE 8080
# A stop drains for up to 20 s: give it more than Docker's 10 (`docker stop --timeout 30`).
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s --retries=3 CMD ["aftercall", "healthcheck"]
ENTRYPOINT ["aftercall"]
CMD ["run"]
