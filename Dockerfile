# qlnet for the CPU, in an image with nothing else but the C library and certificates. The built-in model and ten
# pictures of digits are in it:
#
#     docker build -t qlnet .
#     docker run --rm qlnet classify /samples/digits --model qlnet-digits
#     docker run --rm -v "$PWD:/work:ro" -v qlnet-cache:/home/nonroot/.cache qlnet classify photo.png
#
# The build asks no host but those of the images, of Debian's packages and of crates.io.
FROM docker.io/library/rust:1.95-slim-bookworm AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends nasm \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin qlnet \
    && ./target/release/qlnet classify samples/digits --model qlnet-digits > /dev/null \
    && scripts/licences.sh "$(rustc --version --verbose | sed -n 's/^host: //p')" > THIRD-PARTY-LICENCES.txt \
    && mkdir -p /image/cache /image/work

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /src/target/release/qlnet /usr/local/bin/qlnet
COPY --from=build /src/samples /samples
COPY --from=build /src/LICENSE /src/THIRD-PARTY-LICENCES.txt /usr/share/doc/qlnet/
# What is downloaded and packed is kept here; a volume in its place keeps it for the next container.
COPY --from=build --chown=65532:65532 /image/cache /home/nonroot/.cache
COPY --from=build --chown=65532:65532 /image/work /work
ENV HOME=/home/nonroot
WORKDIR /work
ENTRYPOINT ["/usr/local/bin/qlnet"]
CMD ["--help"]
