# The gateway as an image: docker build -t sentinel-gateway .
# It needs no write access but to /data (and /tmp), so it runs with a read-only root: see compose.yaml and deploy/.
ARG BASE=python:3.13-slim

FROM ${BASE} AS packages
COPY deploy/requirements.txt /tmp/
RUN python3 -m venv /opt/venv \
 && /opt/venv/bin/python -m pip install --no-cache-dir --disable-pip-version-check -r /tmp/requirements.txt

FROM ${BASE}
# The id is a number, so that Kubernetes can check `runAsNonRoot`.
RUN useradd --uid 10001 --user-group --home-dir /data --no-create-home --shell /usr/sbin/nologin sentinel \
 && install --directory --owner=sentinel --group=sentinel --mode=0700 /data
COPY --from=packages /opt/venv /opt/venv
COPY manage.py /app/
COPY sessions_sticky /app/sessions_sticky
COPY sentinel_project /app/sentinel_project
RUN /opt/venv/bin/python -m compileall -q /app
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    SENTINEL_DATA_DIR=/data
WORKDIR /app
USER 10001:10001
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
ENTRYPOINT ["python", "manage.py"]
CMD ["run", "--host", "0.0.0.0", "--workers", "2"]
