# syntax=docker/dockerfile:1

# Two images of one server:
#
#   docker build --target cpu -t inflight:cpu .
#   docker build --target gpu -t inflight:gpu .
#   docker run --rm -p 8001:8001 -p 8000:8000 -v "$PWD/models:/models:ro" inflight:cpu
#   docker run --rm --gpus all -p 8001:8001 -p 8000:8000 -v "$PWD/models:/models:ro" inflight:gpu
#
# Each target has a build stage of its own, so that compilers, pip's cache and the sources stay out
# of the image.

ARG PYTHON_VERSION=3.11
# The version of CUDA that onnxruntime-gpu 1.31 is built with; driver 580 or later. The `gpu` extra
# brings the libraries, CUDA 13 and cuDNN 9 from PyPI and TensorRT 10 from NVIDIA's own index, so
# the image without them will do.
ARG CUDA_IMAGE=nvidia/cuda:13.0.1-base-ubuntu24.04
ARG NVIDIA_INDEX=https://pypi.nvidia.com

# ---- cpu: the virtual environment, then the image it is copied into -------------------------

FROM python:${PYTHON_VERSION}-slim-bookworm AS cpu-build
WORKDIR /src
RUN python -m venv /opt/inflight
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY protos ./protos
COPY client ./client
COPY optimizer ./optimizer
COPY server ./server
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/inflight/bin/pip install --constraint constraints.txt '.[cpu,sklearn,openvino,tables,sql]'

FROM python:${PYTHON_VERSION}-slim-bookworm AS cpu
RUN useradd --uid 1000 --create-home --shell /usr/sbin/nologin inflight \
    && mkdir -p /models /var/lib/inflight \
    && chown inflight:inflight /var/lib/inflight
COPY --from=cpu-build /opt/inflight /opt/inflight
ENV PATH=/opt/inflight/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    INFLIGHT_HOST=0.0.0.0 \
    INFLIGHT_MODELS=/models \
    INFLIGHT_STATE_DIR=/var/lib/inflight
USER 1000:1000
WORKDIR /home/inflight
VOLUME /var/lib/inflight
EXPOSE 8000 8001
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f'http://127.0.0.1:{os.environ.get(\"INFLIGHT_HTTP_PORT\", \"8000\")}/v2/health/ready', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["inflight"]
CMD ["serve"]

# ---- gpu: the same, on NVIDIA's image -------------------------------------------------------

FROM ${CUDA_IMAGE} AS gpu-build
ARG NVIDIA_INDEX
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
RUN python3 -m venv /opt/inflight
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY protos ./protos
COPY client ./client
COPY optimizer ./optimizer
COPY server ./server
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/inflight/bin/pip install --extra-index-url "${NVIDIA_INDEX}" \
        --constraint constraints.txt '.[gpu]'
# ONNX Runtime finds TensorRT by name only, wherever Python put it. (CUDA and cuDNN the server loads.)
RUN ln -s "$(/opt/inflight/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
        /opt/inflight/packages

FROM ${CUDA_IMAGE} AS gpu
# Ubuntu's image has a user at 1000 already.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* \
    && present="$(getent passwd 1000 | cut -d: -f1)" \
    && if [ -n "$present" ]; then userdel --remove "$present"; fi \
    && useradd --uid 1000 --create-home --shell /usr/sbin/nologin inflight \
    && mkdir -p /models /var/lib/inflight \
    && chown inflight:inflight /var/lib/inflight
COPY --from=gpu-build /opt/inflight /opt/inflight
ENV PATH=/opt/inflight/bin:$PATH \
    LD_LIBRARY_PATH=/opt/inflight/packages/tensorrt_libs:$LD_LIBRARY_PATH \
    PYTHONUNBUFFERED=1 \
    INFLIGHT_HOST=0.0.0.0 \
    INFLIGHT_MODELS=/models \
    INFLIGHT_STATE_DIR=/var/lib/inflight
USER 1000:1000
WORKDIR /home/inflight
VOLUME /var/lib/inflight
EXPOSE 8000 8001
HEALTHCHECK --interval=10s --timeout=5s --start-period=300s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f'http://127.0.0.1:{os.environ.get(\"INFLIGHT_HTTP_PORT\", \"8000\")}/v2/health/ready', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["inflight"]
CMD ["serve"]
