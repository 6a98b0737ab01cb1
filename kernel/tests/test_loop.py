"""Items between the event loop and threads: none lost, none out of order, few wake-ups."""

import asyncio
import threading
from queue import Empty

import anyio
import pytest
from anyio import to_thread
from trivet.loop import LoopInbox, LoopOutbox

pytestmark = pytest.mark.anyio


async def test_what_many_threads_post_is_delivered_once_and_in_the_order_of_each() -> None:
    seen: list[tuple[int, int]] = []
    done = asyncio.Event()
    count = 2000

    def deliver(item: tuple[int, int]) -> None:
        seen.append(item)
        if len(seen) == 3 * count:
            done.set()

    inbox = LoopInbox(asyncio.get_running_loop(), deliver)

    def post(thread: int) -> None:
        for number in range(count):
            inbox.post((thread, number))

    threads = [threading.Thread(target=post, args=(thread,)) for thread in range(3)]
    for thread in threads:
        thread.start()
    await done.wait()
    for thread in range(3):
        assert [number for sender, number in seen if sender == thread] == list(range(count))


async def test_posts_that_come_together_wake_the_loop_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    seen: list[int] = []
    inbox = LoopInbox(loop, seen.append)
    drains: list[None] = []
    drain = inbox._take_turn
    monkeypatch.setattr(LoopInbox, "_take_turn", lambda _: (drains.append(None), drain()))
    for number in range(10):
        inbox.post(number)
    await asyncio.sleep(0)
    await to_thread.run_sync(lambda: None)
    assert seen == list(range(10))
    assert len(drains) == 1


@pytest.mark.timeout(30)
async def test_posts_without_end_leave_the_loop_to_others() -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    seen: list[int] = []

    def deliver(number: int) -> None:
        seen.append(number)
        if not stop.is_set():
            inbox.post(number + 2)  # as a model does whose responses are taken from it

    inbox = LoopInbox(loop, deliver)
    inbox.post(0)
    inbox.post(1)
    await asyncio.sleep(0.02)
    stop.set()
    count = len(seen)
    await asyncio.sleep(0.02)
    assert count > 2
    assert seen == list(range(len(seen)))
    assert len(seen) == count + 2


async def test_threads_find_all_that_was_put_in_one_iteration_of_the_loop() -> None:
    outbox: LoopOutbox[int] = LoopOutbox(asyncio.get_running_loop())
    for number in range(5):
        outbox.put(number)
    assert len(outbox) == 5
    assert outbox.ready() == 0
    await anyio.lowlevel.checkpoint()
    assert outbox.ready() == 5
    taken = await to_thread.run_sync(lambda: [outbox.get(), *(outbox.get_nowait() for _ in range(4))])
    assert taken == list(range(5))
    with pytest.raises(Empty):
        outbox.get_nowait()
    assert len(outbox) == 0
