# syntax=docker/dockerfile:1
# Two images from one file:  docker build --target cpu -t alignda:cpu .    (the default)
#                            docker build --target cuda -t alignda:cuda .  (needs the NVIDIA container toolkit to run)
# Every native library (ecCodes, netCDF, Valkey, CUDA) comes inside a wheel: no system package is installed.
ARG PYTHON_VERSION=3.11

# --- build: virtual environments, thrown away but for /opt/alignda -------------------------------------------------
FROM python:${PYTHON_VERSION}-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore
RUN python -m venv /opt/alignda
ENV PATH=/opt/alignda/bin:$PATH
WORKDIR /src
COPY constraints.txt ./

# torch first, in a layer of its own: it is the largest part and changes only with its pin.
FROM build AS build-cpu
ARG TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install -c constraints.txt --extra-index-url "${TORCH_CPU_INDEX}" torch
COPY . .
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install -c constraints.txt ".[postgres]"

# The default wheel for Linux carries the CUDA libraries; only the driver comes from the host.
FROM build AS build-cuda
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install -c constraints.txt torch
COPY . .
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install -c constraints.txt ".[postgres]"

# --- runtime: a slim Python, one environment, a user without rights ------------------------------------------------
FROM python:${PYTHON_VERSION}-slim-bookworm AS runtime
LABEL org.opencontainers.image.title="alignda" \
      org.opencontainers.image.description="Generative data assimilation as a service" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 alignda \
    && useradd --uid 10001 --gid alignda --no-create-home --home-dir /data --shell /usr/sbin/nologin alignda \
    && install --directory --owner alignda --group alignda --mode 0750 /data
ENV PATH=/opt/alignda/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    MPLCONFIGDIR=/tmp/matplotlib \
    ALIGNDA_DATA_DIR=/data \
    ALIGNDA_HOST=0.0.0.0 \
    ALIGNDA_PORT=8750
WORKDIR /data
VOLUME /data
EXPOSE 8750
# Outside loopback the gateway refuses to start without ALIGNDA_API_KEYS: there is no default key.
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=4 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f\"http://127.0.0.1:{os.environ['ALIGNDA_PORT']}/healthz\", timeout=4)"]
# By number, so that Kubernetes can check runAsNonRoot.
USER 10001:10001
ENTRYPOINT ["alignda"]
CMD ["serve"]

FROM runtime AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=build-cuda /opt/alignda /opt/alignda

# Last, so that it is what `docker build .` makes.
FROM runtime AS cpu
COPY --from=build-cpu /opt/alignda /opt/alignda
