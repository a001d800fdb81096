# docker build -t ribcage .
# docker run --rm -v "$PWD:/data" ribcage demo --out demo
# docker run --rm --gpus all --ipc=host -v "$PWD:/data" ribcage finetune --data data/nih --out runs/x
# docker run --rm ribcage doctor
FROM python:3.11-slim
ENV PYTHONUTF8=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 HF_HOME=/data/.cache/huggingface NUMBA_CACHE_DIR=/tmp/numba
COPY . /src
RUN pip install --constraint /src/constraints.txt '/src[serve]' && rm -rf /src
# Files that it makes belong to you with: docker run --user "$(id -u):$(id -g)" …
WORKDIR /data
ENTRYPOINT ["ribcage"]
CMD ["--help"]
