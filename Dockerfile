# crossmatch without CUDA: docker build -t crossmatch . && docker run --rm -v "$PWD:/models" crossmatch verify /models/merged
FROM python:3.11-slim AS build
RUN pip install --no-cache-dir uv
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src ./src
# uv chooses the build of torch without CUDA, which is 5 GB smaller.
RUN uv venv /opt/crossmatch \
 && VIRTUAL_ENV=/opt/crossmatch uv pip install --no-cache --compile-bytecode --torch-backend cpu \
    --constraint constraints.txt ".[gguf,signing]"

FROM python:3.11-slim
COPY --from=build /opt/crossmatch /opt/crossmatch
RUN useradd --create-home --uid 10001 crossmatch
USER crossmatch
ENV PATH=/opt/crossmatch/bin:$PATH
WORKDIR /models
ENTRYPOINT ["crossmatch"]
CMD ["--help"]
