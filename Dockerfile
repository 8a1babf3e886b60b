# Spile as an image: `docker build -t spile .`, then see docs/how-to/compose.md.

FROM python:3.11-slim AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY feeds ./feeds
COPY listeners ./listeners
COPY broker ./broker
RUN python -m venv /opt/spile && /opt/spile/bin/pip install --no-cache-dir '.[postgresql,objects]'

FROM python:3.11-slim
LABEL org.opencontainers.image.title="Spile" \
      org.opencontainers.image.description="Documents in, changes out on MQTT" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --system --uid 10001 --home-dir /var/lib/spile --create-home spile \
    && install --directory --owner=10001 --group=10001 /var/lib/spile/blobs
COPY --from=build /opt/spile /opt/spile
ENV PATH=/opt/spile/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    SPILE_DATA=/var/lib/spile
USER 10001:10001
WORKDIR /var/lib/spile
EXPOSE 8000 1883
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s --start-interval=1s \
    CMD ["spile", "health", "--url", "http://127.0.0.1:8000"]
ENTRYPOINT ["spile"]
# Reachable from outside the container, so it refuses to start without SPILE_TOKEN.
CMD ["serve", "--http", "0.0.0.0:8000", "--mqtt", "0.0.0.0:1883"]
