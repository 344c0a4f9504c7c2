# The command alone, without the lab: mount the estate folder at /estate.
#   docker build -t continuity .
#   docker run --rm -v "$PWD/estate:/estate" continuity status
FROM python:3.11-slim AS build
WORKDIR /src
COPY requirements/ requirements/
RUN python -m venv /opt/continuity \
 && /opt/continuity/bin/pip install --no-cache-dir --require-hashes --no-deps --only-binary :all: -r requirements/runtime.txt
COPY pyproject.toml README.md ./
COPY orchestrator/ orchestrator/
# setuptools is needed here only and stays out of the image.
RUN python -m venv /opt/build \
 && /opt/build/bin/pip install --no-cache-dir --require-hashes --no-deps -r requirements/build.txt \
 && /opt/build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /tmp/wheels . \
 && /opt/continuity/bin/pip install --no-cache-dir --no-deps /tmp/wheels/*.whl

FROM python:3.11-slim
RUN apt-get update \
 && apt-get install --yes --no-install-recommends openssh-client \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --create-home --shell /usr/sbin/nologin continuity \
 && install -d -o continuity -g continuity /estate
COPY --from=build /opt/continuity /opt/continuity
ENV PATH=/opt/continuity/bin:$PATH CONTINUITY_ESTATE=/estate/estate.yaml
USER continuity
WORKDIR /estate
ENTRYPOINT ["continuity"]
CMD ["--help"]
