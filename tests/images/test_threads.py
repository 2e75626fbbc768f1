"""The thread pool and the byte budget."""

import contextlib
import threading
from concurrent.futures import CancelledError

import pytest

from skdeepfeat.images import ByteBudget, ThreadPool, _thread_pool
from skdeepfeat.images._thread_pool import Share

TIMEOUT = 60  # seconds, for what never takes so long


class TestThreadPool:
    def test_results_come_in_order(self):
        with ThreadPool(4, "test") as pool:
            assert list(pool.map(lambda i: i * i, range(100))) == [
                i * i for i in range(100)
            ]

    @pytest.mark.parametrize("n_per_task", [1, 3, 100])
    def test_a_task_can_have_several_items(self, n_per_task):
        with ThreadPool(2, "test") as pool:
            assert list(pool.map(abs, range(10), n_per_task)) == list(range(10))

    def test_a_limited_number_of_tasks_wait(self, monkeypatch):
        monkeypatch.setattr(_thread_pool, "_TASKS_AHEAD", 4)
        begun = []
        with ThreadPool(1, "test") as pool:
            results = pool.map(begun.append, range(100))
            next(results)
            # Tasks run in order, so all that were submitted before are done.
            pool.submit(len, "ab").result(TIMEOUT)
            assert begun == [0, 1, 2, 3]

    def test_errors_are_those_of_the_function(self):
        with ThreadPool(2, "test") as pool:
            future = pool.submit(lambda: 1 // 0)
            with pytest.raises(ZeroDivisionError):
                future.result(TIMEOUT)
            assert pool.submit(len, "ab").result(TIMEOUT) == 2

    def test_abandoned_work_is_not_waited_for(self):
        begun, released, done = (threading.Event() for _ in range(3))

        def work():
            begun.set()
            released.wait(TIMEOUT)
            done.set()

        with ThreadPool(1, "test") as pool:
            running, waiting = pool.submit(work), pool.submit(work)
            assert begun.wait(TIMEOUT)
        assert not done.is_set()
        for future in (running, waiting):
            with pytest.raises(CancelledError):
                future.result(TIMEOUT)
        with pytest.raises(CancelledError):
            pool.submit(work)
        released.set()
        assert done.wait(TIMEOUT)

    def test_its_threads_keep_no_process_alive(self):
        with ThreadPool(1, "test") as pool:
            assert pool.submit(lambda: threading.current_thread().daemon).result(
                TIMEOUT
            )


class TestByteBudget:
    def test_bytes_in_use_are_bounded(self):
        budget, guard = ByteBudget(100), threading.Lock()
        used, most = [0], [0]

        def work(n_bytes):
            with Share(budget) as share:
                share.take(n_bytes)
                with guard:
                    used[0] += n_bytes
                    most[0] = max(most[0], used[0])
                threading.Event().wait(0.001)
                with guard:
                    used[0] -= n_bytes

        with ThreadPool(8, "test") as pool:
            list(pool.map(work, [30, 60, 10, 45] * 20))
        assert 60 < most[0] <= 100

    def test_more_than_all_of_it_goes_alone(self):
        budget, alone = ByteBudget(100), []

        def work(n_bytes):
            with Share(budget) as share:
                share.take(n_bytes)
                alone.append(budget._used == n_bytes or n_bytes <= 100)

        with ThreadPool(4, "test") as pool:
            list(pool.map(work, [500, 20, 30, 500] * 10))
        assert len(alone) == 40 and all(alone)

    def test_those_that_wait_for_more_do_not_block_each_other(self):
        budget, barrier = ByteBudget(100), threading.Barrier(3)

        def work(_):
            with Share(budget) as share:
                share.take(30)
                barrier.wait(TIMEOUT)
                share.take(80)

        with ThreadPool(3, "test") as pool:
            list(pool.map(work, range(3)))
        assert budget._used == 0

    def test_closed_while_waited_for(self):
        budget, ended = ByteBudget(100), threading.Event()

        def wait():
            with contextlib.suppress(CancelledError), Share(budget) as share:
                share.take(60)
            ended.set()

        with Share(budget) as share:
            share.take(60)
            thread = threading.Thread(target=wait)
            thread.start()
            budget.close()
            assert ended.wait(TIMEOUT)
            thread.join()

    def test_without_a_budget(self):
        with Share(None) as share:
            share.take(2**60)
            assert share.n_bytes == 0
