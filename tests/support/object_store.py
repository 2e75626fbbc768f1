"""An S3 server on this machine, for tests: moto's, in a thread."""

import os

import pytest

KEYS = {"key": "testing", "secret": "testing-secret"}


@pytest.fixture(scope="session")
def s3_server():
    """Return the address of a server of buckets; nothing of it is real."""
    pytest.importorskip("s3fs", reason="s3:// needs s3fs")
    moto = pytest.importorskip("moto.server", reason="the S3 server is moto's")
    before = os.environ.get("AWS_DEFAULT_REGION")
    os.environ["AWS_DEFAULT_REGION"] = "us-east-1"
    server = moto.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://127.0.0.1:{port}"
    server.stop()
    if before is None:
        del os.environ["AWS_DEFAULT_REGION"]


@pytest.fixture
def s3_options(s3_server):
    """Return the storage_options that lead to the server, and empty it afterwards."""
    import fsspec

    options = {**KEYS, "client_kwargs": {"endpoint_url": s3_server}}
    fs = fsspec.filesystem("s3", skip_instance_cache=True, **options)
    fs.mkdir("bucket")
    yield options
    fs.invalidate_cache()
    for bucket in fs.ls("", detail=False):
        fs.rm(bucket, recursive=True)
