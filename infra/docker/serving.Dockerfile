# The service alone: no Dagster, no torch. One worker for each container; the orchestrator restarts a dead one.
FROM python:3.11.13-slim-bookworm

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PATH=/opt/venv/bin:$PATH
RUN pip install --no-cache-dir uv==0.13.9 && uv venv /opt/venv
WORKDIR /app
COPY requirements.txt pyproject.toml README.md LICENSE ./
COPY feature_repo feature_repo
COPY training training
COPY serving serving
COPY orchestration/__init__.py orchestration/__init__.py
RUN uv pip install --no-cache --python /opt/venv/bin/python --constraint requirements.txt ".[serve,passkey,trace]" \
    && useradd --create-home --uid 10001 mews && install -d -o mews /var/lib/mews /var/lib/mews/dagster
USER mews
VOLUME /var/lib/mews
EXPOSE 8080
CMD ["bentoml", "serve", "serving.service:Mews", "--host", "0.0.0.0", "--port", "8080", "--timeout-graceful-shutdown", "15"]
