# Dagster's webserver and daemon, and MLflow: everything of the lock but what only training imports.
FROM python:3.11.13-slim-bookworm

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PATH=/opt/venv/bin:$PATH
RUN pip install --no-cache-dir uv==0.13.9 && uv venv /opt/venv
WORKDIR /app
COPY requirements.txt ./
RUN grep -vE '^(torch|torchmetrics|lightning|pytorch-lightning)==' requirements.txt > lock.txt \
    && uv pip sync --no-cache --python /opt/venv/bin/python lock.txt
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
CMD ["mews", "--help"]
