# maskprism on the CPU, as a user without rights:
#   docker build -t maskprism .
#   docker run --rm -v "$PWD:/data" maskprism diagnose data.yaml --model best.onnx --out report
# With .pt files: docker build --build-arg EXTRAS=ultralytics,labels,tune,serve -t maskprism .
FROM python:3.13-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
COPY . /source
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels /source

FROM python:3.13-slim
ARG EXTRAS=labels,tune,serve
ENV PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
COPY --from=build /wheels /wheels
# Ultralytics installs opencv-python over the headless package; it needs libGL and X11, which are not in this image
RUN pip install --no-cache-dir "$(echo /wheels/maskprism-*.whl)[${EXTRAS}]" && rm -rf /wheels \
    && pip uninstall --yes opencv-python \
    && pip install --no-cache-dir --force-reinstall --no-deps opencv-python-headless \
    && useradd --create-home --uid 1000 maskprism
USER 1000
WORKDIR /data
ENTRYPOINT ["maskprism"]
CMD ["--help"]
