# CPU only; runs the demo: docker build -t skeleton . && docker run skeleton
FROM python:3.12.11-slim-bookworm

# Paddle needs OpenMP's runtime. Debian keeps one version of a package: a pinned one disappears.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/*

RUN useradd --uid 1000 --create-home user
USER 1000
WORKDIR /home/user/app
ENV PATH="/home/user/.local/bin:$PATH"

COPY --chown=user requirements.txt constraints.txt ./
RUN pip install --no-cache-dir --user -r requirements.txt
COPY --chown=user . .

CMD ["python", "tools/demo.py"]
