# Aggregator and clients, one image.
FROM python:3.12-slim

# A CPU build of PyTorch, where the default index has another: give an index that has one with --build-arg.
ARG PIP_EXTRA_INDEX_URL
# A layer of its own, since it is large and seldom changes.
RUN pip install --no-cache-dir torch==2.13.0

COPY pyproject.toml README.md LICENSE /build/
COPY schemas /build/schemas
COPY transport /build/transport
COPY broker_config /build/broker_config
COPY tasks /build/tasks
COPY aggregator /build/aggregator
COPY edge_client /build/edge_client
COPY fedmq /build/fedmq
# `secure` is for a federation that `fedmq provision` has made, whose messages are signed: 18 MB, PyTorch has 750.
RUN pip install --no-cache-dir "/build[torch,secure]"

# A new volume takes its owner from the folder that it is mounted on.
RUN useradd --uid 10001 --create-home fedmq && install -d -o fedmq -g fedmq /state
USER fedmq
WORKDIR /home/fedmq
ENTRYPOINT ["fedmq"]
CMD ["--help"]
