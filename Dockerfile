# The service without weights: collections lie under /data, and so do weights once they are fetched.
#
#   docker build -t clipsieve .
#
# By itself pip installs the build of torch for CUDA, which works on a CPU too and takes several GB. TORCH_INDEX_URL, the
# address of torch's index of CPU builds, brings the small one.
ARG PYTHON=3.11-slim-bookworm
ARG NODE=22-bookworm-slim

FROM node:${NODE} AS page
WORKDIR /src/front
COPY front/package.json front/package-lock.json front/.npmrc ./
RUN npm ci
COPY front ./
RUN npm run build

FROM python:${PYTHON} AS wheel
ARG PIP_INDEX_URL=""
ARG PIP_EXTRA_INDEX_URL=""
WORKDIR /src
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY clipsieve clipsieve
COPY inference inference
COPY index index
COPY back back
COPY --from=page /src/back/static back/static
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:${PYTHON} AS installed
ARG PIP_INDEX_URL=""
ARG PIP_EXTRA_INDEX_URL=""
ARG TORCH_INDEX_URL=""
ARG TORCH="torch torchvision"
ARG EXTRAS="cpu,redis"
RUN python -m venv /opt/clipsieve
ENV PATH=/opt/clipsieve/bin:$PATH
# hadolint ignore=DL3013  # any that pyproject.toml allows; TORCH pins one
RUN pip install --no-cache-dir ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} ${TORCH}
COPY --from=wheel /wheels /wheels
RUN pip install --no-cache-dir "$(echo /wheels/*.whl)[${EXTRAS}]"

FROM installed AS test
ARG PIP_INDEX_URL=""
ARG PIP_EXTRA_INDEX_URL=""
ARG EXTRAS="cpu,redis"
WORKDIR /src
COPY --chown=10001:10001 . .
RUN pip install --no-cache-dir --editable ".[${EXTRAS},dev]" && chown 10001:10001 /src
ENV HOME=/src
USER 10001:10001
CMD ["python", "-m", "pytest", "-q", "-m", "not slow"]

FROM python:${PYTHON} AS service
RUN useradd --uid 10001 --user-group --home-dir /data --no-create-home --shell /usr/sbin/nologin clipsieve \
    && install --directory --owner=clipsieve --group=clipsieve /data
COPY --from=installed /opt/clipsieve /opt/clipsieve
ENV PATH=/opt/clipsieve/bin:$PATH HOME=/data
WORKDIR /data
VOLUME /data
USER 10001:10001
EXPOSE 1234
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:1234/healthz', timeout=4)"]
ENTRYPOINT ["clipsieve"]
CMD ["back", "--host", "0.0.0.0"]
