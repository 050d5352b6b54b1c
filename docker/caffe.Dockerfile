# Real Caffe 1.0 in a container, for hosts without apt and dpkg; the same packages as tools/install_caffe.py.
# If Debian's mirror no longer has Debian 11, the packages come from Debian's archive, whose keys may have expired.
#   docker build -t caffe -f docker/caffe.Dockerfile .
#   docker run --rm -v "$PWD":/project -w /project caffe python3 -c "import caffe; print(caffe.__version__)"
FROM debian:11
RUN (apt-get update || { \
        echo "deb [check-valid-until=no] http://archive.debian.org/debian bullseye main" > /etc/apt/sources.list; \
        apt-get update; }) \
    && apt-get install -y --no-install-recommends \
    python3-caffe caffe libopenblas0-pthread python3-lmdb python3-opencv python3-skimage python3-pytest \
    && rm -rf /var/lib/apt/lists/*
