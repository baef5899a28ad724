# One image for the code location, the web server, the daemon and the runs: docs/deploy/.
#
#   docker build -t edgepack-assets .
#
# The base may be any Debian with or without Python 3.11 to 3.13. Name it by its digest where builds must be repeatable:
#   --build-arg BASE=python:3.12-slim-bookworm@sha256:...
ARG BASE=python:3.12-slim-bookworm

FROM ${BASE} AS build
# Debian's Python only if the base brings none.
RUN command -v python3 || { apt-get update && apt-get install --yes --no-install-recommends python3 python3-venv; }
WORKDIR /source
COPY requirements-dev.lock pyproject.toml README.md LICENSE ./
# Parts of the project that an installation may leave out, of pyproject.toml's optional dependencies.
ARG EXTRAS=postgres,kubernetes,container-apps
# The dependencies first, so that a change of the code alone does not download them again.
RUN python3 -m venv /opt/edgepack \
    && /opt/edgepack/bin/python -m pip install --no-cache-dir --constraint requirements-dev.lock uv \
    && mkdir edgepack_assets && echo '__version__ = "0"' > edgepack_assets/__init__.py \
    && /opt/edgepack/bin/uv pip install --python /opt/edgepack/bin/python --no-cache --compile-bytecode \
        --constraint requirements-dev.lock ".[${EXTRAS}]"
COPY edgepack_assets edgepack_assets
RUN /opt/edgepack/bin/uv pip install --python /opt/edgepack/bin/python --no-cache --compile-bytecode --no-deps \
        --reinstall-package edgepack-assets .

FROM ${BASE} AS edgepack
# bubblewrap isolates model code. Debian's Python 3.11 is for components, beside the base's own.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends bubblewrap ca-certificates python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home --shell /usr/sbin/nologin edgepack \
    && install --directory --owner edgepack --group edgepack /plant /plant/.edgepack /plant/dagster
COPY --from=build /opt/edgepack /opt/edgepack
# The instance of a container that gets no other one.
COPY --chown=10001:10001 edgepack_assets/default_dagster.yaml /plant/dagster/dagster.yaml
# What the Helm chart starts as `dagster-webserver` is the web server that refuses other web pages.
RUN printf '#!/bin/sh\nexec /opt/edgepack/bin/python -m edgepack_assets.defs.ui.webserver "$@"\n' \
        > /opt/edgepack/bin/dagster-webserver
ENV PATH=/opt/edgepack/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    EDGEPACK_CONFIG=/plant/edgepack.yaml \
    DAGSTER_HOME=/plant/dagster \
    DAGSTER_DISABLE_TELEMETRY=yes \
    SIMATICAI_TELEMETRY=deny
WORKDIR /plant
# A number, so that Kubernetes can see that it is not root.
USER 10001:10001
CMD ["edgepack", "doctor"]

# The loopback Azure of compose.azure.yaml, to try things without an account: `--target azure-dev`.
FROM edgepack AS azure-dev
USER root
RUN apt-get update && apt-get install --yes --no-install-recommends nodejs npm && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/azure-dev
COPY edgepack_assets_tests/__init__.py edgepack_assets_tests/
COPY edgepack_assets_tests/azure edgepack_assets_tests/azure
RUN python -c 'from edgepack_assets_tests.azure.storage import installed; installed()' \
    && install --directory --owner edgepack --group edgepack --mode 755 /azure
ENV TMPDIR=/azure
USER 10001:10001
CMD ["sh", "-c", "python -m edgepack_assets_tests.azure | tee /azure/printed"]

# What `docker build` makes without --target.
FROM edgepack
