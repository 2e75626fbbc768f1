"""Clusters of Dask and Ray on this machine, between whose parts messages are delayed.

Workers do not compute, they wait, as for an accelerator of their own. So two machines'
worth of them can be had on one, and what is measured is the way of the images to the
workers and of the features back.
"""

import asyncio
import contextlib
import os
import threading
import time

import joblib
from _common import HERE, serve
from _waiting_network import WaitingNet

from skdeepfeat import PretrainedFeatureExtractor


class DelayingProxy:
    """A TCP proxy that passes everything on after a delay, in its own thread.

    Parameters
    ----------
    target : (str, int)
        Host and port.
    seconds : float
        The delay in each direction.
    """

    def __init__(self, target, seconds):
        self._target, self._seconds = target, seconds
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._accept, "127.0.0.1", 0), self._loop
        ).result()
        self.port = server.sockets[0].getsockname()[1]

    async def _accept(self, reader, writer):
        there = await asyncio.open_connection(*self._target)
        await asyncio.gather(
            self._pass_on(reader, there[1]), self._pass_on(there[0], writer)
        )

    async def _pass_on(self, reader, writer):
        queue = asyncio.Queue()

        async def receive():
            while data := await reader.read(2**16):
                queue.put_nowait((self._loop.time() + self._seconds, data))
            queue.put_nowait((self._loop.time() + self._seconds, b""))

        with contextlib.suppress(ConnectionError):
            receiving = asyncio.ensure_future(receive())
            while True:
                due, data = await queue.get()
                await asyncio.sleep(max(0.0, due - self._loop.time()))
                if not data:
                    break
                writer.write(data)
                await writer.drain()
            await receiving
        writer.close()


@contextlib.contextmanager
def dask(n_workers, seconds):
    """Run workers and a client that reach the scheduler through a proxy."""
    from distributed import Client, LocalCluster, Nanny

    async def add_workers(cluster, address):
        workers = [
            Nanny(address, nthreads=1, dashboard=False) for _ in range(n_workers)
        ]
        for worker in workers:
            await worker
        return workers

    with LocalCluster(n_workers=0, dashboard_address="localhost:0") as cluster:
        address = cluster.scheduler_address
        if seconds:
            host, _, port = address.removeprefix("tcp://").partition(":")
            proxy = DelayingProxy((host, int(port)), seconds)
            address = f"tcp://127.0.0.1:{proxy.port}"
        workers = cluster.sync(add_workers, cluster, address)
        with Client(address) as client:
            client.wait_for_workers(n_workers, timeout=240)
            with joblib.parallel_config(backend="dask", n_jobs=n_workers):
                yield
        for worker in workers:
            cluster.sync(worker.close)


@contextlib.contextmanager
def ray(n_workers, seconds):
    """Run a Ray cluster of two nodes, each of whose messages is handled late."""
    microseconds = round(1e6 * seconds)
    if seconds:
        os.environ["RAY_testing_asio_delay_us"] = f"*={microseconds}:{microseconds}"
    import ray
    from ray.cluster_utils import Cluster
    from ray.util.joblib import register_ray

    register_ray()
    cluster = Cluster()
    for n_cpus in (n_workers - n_workers // 2, n_workers // 2):
        if n_cpus:
            cluster.add_node(num_cpus=n_cpus, include_dashboard=False)
    ray.init(address=cluster.address, log_to_driver=False)
    try:
        with joblib.parallel_config(backend="ray", n_jobs=n_workers):
            yield
    finally:
        ray.shutdown()
        cluster.shutdown()


def extract(job):
    """Extract twice. The first time, workers import torch and get the network."""
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"):
        os.environ[name] = "0"
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    )
    with open(job["list"], encoding="utf-8") as lines:
        paths = lines.read().splitlines()
    extractor = PretrainedFeatureExtractor(
        WaitingNet(job["seconds_per_image"]),
        image_size=8,
        batch_size=job["batch_size"],
        cache=None,
        device="cpu",
        runtime="torch",
        n_jobs=None,
    )
    cluster = {"dask": dask, "ray": ray}[job["backend"]]
    seconds = []
    with cluster(job["n_workers"], job["latency"]):
        for _ in range(1 + job["n"]):
            start = time.perf_counter()
            extractor.transform(paths)
            seconds.append(time.perf_counter() - start)
    return {"seconds": seconds}


if __name__ == "__main__":
    serve({"extract": extract})
