# One image for all commands of ServiceLink, and with the SDK, so that `helm test` can make a call. Built from the
# repository's root; what is installed is what uv.lock pins.
FROM python:3.11-slim-bookworm AS build
RUN python -m venv /opt/uv && /opt/uv/bin/pip install --quiet --no-cache-dir 'uv>=0.9'
WORKDIR /src
ENV UV_PROJECT_ENVIRONMENT=/app/.venv UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_NO_CACHE=1 UV_PYTHON_DOWNLOADS=never
COPY pyproject.toml uv.lock ./
COPY contract contract
COPY core core
COPY devcluster/pyproject.toml devcluster/pyproject.toml
COPY operator operator
COPY sdk sdk
RUN /opt/uv/bin/uv sync --frozen --no-dev --no-editable --package servicelink-operator --package servicelink

FROM python:3.11-slim-bookworm
COPY --from=build /app/.venv /app/.venv
# Nothing is written at run time: the root file system may be read-only.
ENV PATH=/app/.venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["servicelink-operator"]
CMD ["run"]
