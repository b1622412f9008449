# The definitions and every run. The base is plain: torch's Linux wheel brings CUDA, the driver comes from the host.
FROM python:3.11.13-slim-bookworm

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PATH=/opt/venv/bin:$PATH
RUN pip install --no-cache-dir uv==0.13.9 && uv venv /opt/venv
WORKDIR /app
COPY requirements.txt ./
# The lock names torch for any machine; the second line adds the CUDA libraries that its wheel asks for.
RUN uv pip sync --no-cache --python /opt/venv/bin/python requirements.txt \
    && uv pip install --no-cache --python /opt/venv/bin/python --reinstall-package torch torch==2.13.0
COPY pyproject.toml README.md LICENSE ./
COPY feature_repo feature_repo
COPY training training
COPY serving serving
COPY orchestration orchestration
COPY infra infra
RUN uv pip install --no-cache --no-deps --python /opt/venv/bin/python --editable . \
    && useradd --create-home --uid 10001 mews && install -d -o mews /var/lib/mews /var/lib/mews/dagster
USER mews
VOLUME /var/lib/mews
CMD ["python", "-m", "training", "--help"]
