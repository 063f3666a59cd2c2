# unclip on a CPU, with the bundled model and the server:
#
#   docker build -t unclip .
#   docker run --rm -v "$PWD:/work" unclip generate "a penguin on a pink background"
#   docker run --rm -p 127.0.0.1:8000:8000 unclip serve --host 0.0.0.0 --api-key SECRET
FROM python:3.12-slim AS build
RUN python -m venv /opt/unclip
ENV PATH=/opt/unclip/bin:$PATH
# The build of torch for CPUs; the one on PyPI brings gigabytes of CUDA libraries.
RUN pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu torch torchvision
WORKDIR /src
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY assets/sprites assets/sprites
COPY weights weights
COPY unclip unclip
RUN pip install --no-cache-dir '.[serve,video]'

FROM python:3.12-slim
COPY --from=build /opt/unclip /opt/unclip
ENV PATH=/opt/unclip/bin:$PATH
RUN useradd --create-home unclip && mkdir /work && chown unclip /work
USER unclip
WORKDIR /work
EXPOSE 8000
ENTRYPOINT ["unclip"]
CMD ["--help"]
