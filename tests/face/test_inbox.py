"""Loops over an inbox: what is accepted, what is given back, and that nothing gets lost."""

import asyncio
import threading

import pytest

from tests.face.support import SOURCE, Verdicts, raw_delivery
from zmesh.actions import Delivery
from zmesh.errors import AlreadySettled, Closed, InvalidOption, UsageError
from zmesh.face.inbox import CHUNK_MAX, DeliveryQueue, Inbox
from zmesh.face.received import Message
from zmesh.message import Outcome, Record, Tag, with_extra

ACCEPTED, MODIFIED, RELEASED = Outcome.ACCEPTED, Outcome.MODIFIED, Outcome.RELEASED


class Bench:
    """A queue with its inbox and verdicts."""

    def __init__(self) -> None:
        self.verdicts = Verdicts()
        self.queue = DeliveryQueue(asyncio.get_running_loop(), self.verdicts.settlements)
        self.inbox = Inbox(self.queue, "auto")
        self.manual = Inbox(self.queue, "manual")

    def put(self, first_seq: int, count: int) -> None:
        self.queue.put(self.verdicts.settlements, raw_delivery(first_seq, count), 0, count)

    def settled(self) -> list[tuple[int, int, Outcome]]:
        return self.verdicts.take()


async def read(inbox: Inbox, count: int) -> None:
    async for _ in inbox:
        count -= 1
        if not count:
            break


async def test_asking_for_the_next_accepts_the_one_before() -> None:
    bench = Bench()
    bench.put(1, 3)
    loop = aiter(bench.inbox)
    await anext(loop)
    assert bench.settled() == []
    await anext(loop)
    assert bench.settled() == [(1, 1, ACCEPTED)]
    await anext(loop)
    assert bench.settled() == [(2, 2, ACCEPTED)]


async def test_break_accepts_the_last_and_keeps_the_rest() -> None:
    bench = Bench()
    bench.put(1, 5)
    await read(bench.inbox, 3)
    assert bench.settled() == [(1, 3, ACCEPTED)]
    assert len(bench.inbox) == 2
    await read(bench.inbox, 2)
    assert bench.settled() == [(4, 5, ACCEPTED)]


async def test_exception_gives_the_last_back() -> None:
    bench = Bench()
    bench.put(1, 3)

    async def fail_on_second() -> None:
        async for message in bench.inbox:
            if message.index == 1:
                _ = 1 / 0

    with pytest.raises(ZeroDivisionError):
        await fail_on_second()
    assert bench.settled() == [(1, 1, ACCEPTED), (2, 2, MODIFIED)]
    assert len(bench.queue) == 1


async def test_cancelling_the_handling_gives_the_message_back() -> None:
    bench = Bench()
    bench.put(1, 2)

    async def handle() -> None:
        async for _ in bench.inbox:
            await asyncio.sleep(60)

    task = asyncio.create_task(handle())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert bench.settled() == [(1, 1, MODIFIED)]
    assert len(bench.queue) == 1


async def test_idle_reader_has_its_verdicts_sent_at_once() -> None:
    bench = Bench()
    bench.put(1, 2)
    task = asyncio.create_task(read(bench.inbox, 3))
    await asyncio.sleep(0)
    assert bench.verdicts.now == 1
    assert bench.settled() == [(1, 2, ACCEPTED)]
    bench.put(3, 1)
    await task


async def test_several_deliveries_are_read_in_order() -> None:
    bench = Bench()
    for first in range(1, 31, 3):
        bench.put(first, 3)
    seqs = []
    async for message in bench.inbox:
        seqs.append(message._chunk.delivery.first_seq + message.index)
        if len(seqs) == 30:
            break
    assert seqs == list(range(1, 31))
    assert bench.settled() == [(1, 30, ACCEPTED)]


async def test_manual_loop_settles_nothing_by_itself() -> None:
    bench = Bench()
    bench.put(1, 3)
    messages: list[Message] = []
    async for message in bench.manual:
        messages.append(message)
        if len(messages) == 3:
            break
    assert bench.settled() == []
    await messages[2].accept()
    await messages[0].reject("no")
    assert bench.settled() == [(3, 3, ACCEPTED), (1, 1, Outcome.REJECTED)]


async def test_leaving_a_manual_loop_keeps_what_was_not_read() -> None:
    bench = Bench()
    bench.put(1, 3)
    await read(bench.manual, 1)
    assert bench.settled() == []
    assert len(bench.queue) == 2


async def test_accepting_by_word_in_an_automatic_loop_is_not_done_twice() -> None:
    bench = Bench()
    bench.put(1, 3)
    async for message in bench.inbox:
        await message.accept()
        if message.index == 2:
            break
    first, *rest = sorted(bench.settled())
    assert first[0] == 1
    assert sum(last - first + 1 for first, last, _ in [first, *rest]) == 3


async def test_competing_loops_get_each_message_once() -> None:
    bench = Bench()
    counts = [0, 0, 0]

    async def work(index: int) -> None:
        async for _ in bench.inbox:
            counts[index] += 1
            await asyncio.sleep(0)

    tasks = [asyncio.create_task(work(index)) for index in range(3)]
    await asyncio.sleep(0)
    bench.put(1, 90)
    for _ in range(200):
        await asyncio.sleep(0)
    assert sum(counts) == 90
    assert min(counts) >= 20
    assert sum(last - first + 1 for first, last, _ in bench.settled()) == 90
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_loop_that_joins_shares_what_the_first_had_taken() -> None:
    bench = Bench()
    bench.put(1, 100)
    first, bodies = aiter(bench.inbox), []
    bodies.append(await anext(first))
    second = aiter(bench.inbox)
    assert len(bench.queue) == 99
    for _ in range(49):
        bodies.append(await anext(second))
        bodies.append(await anext(first))
    bodies.append(await anext(second))
    assert [message.index for message in bodies] == list(range(100))
    del second
    assert len(bench.queue) == 0
    asking = asyncio.ensure_future(anext(first))
    await asyncio.sleep(0)
    assert sum(end - begin + 1 for begin, end, _ in bench.settled()) == 100
    asking.cancel()


async def test_loop_that_left_shares_nothing_twice() -> None:
    bench = Bench()
    bench.put(1, 10)
    await read(bench.inbox, 4)
    loops = [aiter(bench.inbox), aiter(bench.inbox)]
    seen = [(await anext(loops[number % 2])).index for number in range(6)]
    assert seen == [4, 5, 6, 7, 8, 9]
    assert len(bench.queue) == 0


async def test_cancelled_waiting_never_loses_a_message() -> None:
    bench = Bench()
    got: list[int] = []
    put = 0
    while len(got) < 2000:
        if put < 2000:
            put += 1
            asyncio.get_running_loop().call_soon(bench.put, put, 1)
        try:
            async with asyncio.timeout(0):
                message = await anext(bench.inbox)
            got.append(message._chunk.delivery.first_seq)
        except TimeoutError:
            continue
    assert got == list(range(1, 2001))


async def test_cancelled_wait_for_never_loses_a_message() -> None:
    bench = Bench()
    got: list[int] = []
    put = 0
    while len(got) < 500:
        if put < 500:
            put += 1
            asyncio.get_running_loop().call_soon(bench.put, put, 1)
        try:
            message = await asyncio.wait_for(anext(bench.inbox), 0.00001)
            got.append(message._chunk.delivery.first_seq)
        except TimeoutError:
            continue
    assert got == list(range(1, 501))


async def test_wake_up_of_a_cancelled_reader_goes_to_another() -> None:
    bench = Bench()
    first = asyncio.create_task(read(bench.inbox, 1))
    second = asyncio.create_task(read(bench.inbox, 1))
    await asyncio.sleep(0)
    bench.put(1, 1)
    first.cancel()
    await asyncio.wait([first, second], timeout=1)
    assert first.cancelled()
    assert second.done()


async def test_two_tasks_in_one_loop_are_refused() -> None:
    bench = Bench()
    loop = aiter(bench.inbox)
    task = asyncio.ensure_future(anext(loop))
    await asyncio.sleep(0)
    with pytest.raises(UsageError):
        await anext(loop)
    bench.put(1, 1)
    await task


# Single messages


async def test_single_message_is_accepted_as_it_is_taken_and_the_rest_stays() -> None:
    bench = Bench()
    bench.put(1, 3)
    message = await anext(Inbox(bench.queue, "auto"))
    assert bench.settled() == [(1, 1, ACCEPTED)]
    assert len(bench.queue) == 2
    with pytest.raises(AlreadySettled):
        await message.accept()
    del message
    assert bench.settled() == []
    await anext(Inbox(bench.queue, "auto"))
    assert bench.settled() == [(2, 2, ACCEPTED)]


async def test_single_message_taken_by_hand_stays_its_holders() -> None:
    bench = Bench()
    bench.put(1, 2)
    message = await anext(Inbox(bench.queue, "manual"))
    assert bench.settled() == []
    await message.reject("no")
    assert bench.settled() == [(1, 1, Outcome.REJECTED)]
    assert len(bench.queue) == 1


async def test_tasks_that_share_an_inbox_do_not_accept_each_others_messages() -> None:
    bench = Bench()
    bench.put(1, 40)
    held: dict[int, list[Message]] = {0: [], 1: []}

    async def take(index: int) -> None:
        for _ in range(20):
            held[index].append(await anext(bench.manual))
            await asyncio.sleep(0)

    await asyncio.gather(take(0), take(1))
    assert bench.settled() == []
    for message in held[1]:
        await message.accept()
    settled = [seq for first, last, _ in bench.settled() for seq in range(first, last + 1)]
    assert settled == [message.index + 1 for message in held[1]]
    assert sorted(message.index for each in held.values() for message in each) == list(range(40))


async def test_several_tasks_wait_for_single_messages_at_once() -> None:
    bench = Bench()
    tasks = [asyncio.ensure_future(anext(bench.inbox)) for _ in range(3)]
    await asyncio.sleep(0)
    bench.put(1, 3)
    assert [(await task).index for task in tasks] == [0, 1, 2]
    assert bench.settled() == [(1, 3, ACCEPTED)]


async def test_single_message_is_shared_from_what_a_loop_had_taken() -> None:
    bench = Bench()
    bench.put(1, 10)
    loop = aiter(bench.inbox)
    assert (await anext(loop)).index == 0
    assert (await anext(bench.inbox)).index == 1
    assert (await anext(loop)).index == 2
    assert len(bench.queue) == 0


async def test_loop_leaves_something_to_who_waits_for_a_single_message() -> None:
    bench = Bench()
    loop = aiter(bench.inbox)
    first = asyncio.ensure_future(anext(loop))
    await asyncio.sleep(0)
    single = asyncio.ensure_future(anext(bench.inbox))
    await asyncio.sleep(0)
    bench.put(1, 10)
    assert ((await first).index, (await single).index) == (0, 1)


async def test_taking_single_messages_lets_others_have_their_turn() -> None:
    bench = Bench()
    bench.put(1, 3 * CHUNK_MAX)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(count())
    for _ in range(3 * CHUNK_MAX):
        await anext(Inbox(bench.queue, "auto"))
    task.cancel()
    assert turns >= 2


async def test_closing_ends_the_wait_for_a_single_message() -> None:
    bench = Bench()
    task = asyncio.ensure_future(anext(bench.inbox, None))
    await asyncio.sleep(0)
    bench.queue.close()
    assert await task is None


# Closing


async def test_closing_ends_all_loops() -> None:
    bench = Bench()
    task = asyncio.create_task(read(bench.inbox, 9))
    await asyncio.sleep(0)
    bench.put(1, 2)
    await asyncio.sleep(0)
    bench.put(3, 2)
    bench.queue.close()
    await task
    assert bench.settled() == [(1, 2, ACCEPTED), (3, 4, RELEASED)]


async def test_loop_ends_after_the_message_it_has_in_hand() -> None:
    bench = Bench()
    bench.put(1, 5)
    read = []
    async for message in bench.inbox:
        read.append(message.index)
        if message.index == 1:
            bench.queue.close()
    assert read == [0, 1]
    assert bench.settled() == [(3, 5, RELEASED), (1, 2, ACCEPTED)]


async def test_failure_ends_all_loops_with_closed() -> None:
    bench = Bench()
    task = asyncio.create_task(read(bench.inbox, 9))
    await asyncio.sleep(0)
    bench.queue.close("node, after an internal error,")
    with pytest.raises(Closed, match="internal error"):
        await task


async def test_long_run_lets_others_have_their_turn() -> None:
    bench = Bench()
    bench.put(1, 10 * CHUNK_MAX)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(count())
    await read(bench.inbox, 10 * CHUNK_MAX)
    task.cancel()
    assert turns >= 9


async def test_loop_dropped_in_another_thread_is_settled_in_its_own() -> None:
    bench = Bench()
    bench.put(1, 3)
    loops = [aiter(bench.inbox)]
    await anext(loops[0])
    thread = threading.Thread(target=loops.clear)
    thread.start()
    thread.join()
    assert bench.settled() == []
    await asyncio.sleep(0)
    assert [outcome for _, _, outcome in bench.settled()] == [MODIFIED]
    assert len(bench.queue) == 2


# Batches


async def test_batch_is_what_is_there_and_asking_for_the_next_accepts_it() -> None:
    bench = Bench()
    bench.put(1, 3)
    bench.put(4, 4)
    loop = aiter(bench.inbox.batches(5))
    assert [message.index for message in await anext(loop)] == [0, 1, 2, 0, 1]
    assert bench.settled() == []
    assert [message.index for message in await anext(loop)] == [2, 3]
    assert bench.settled() == [(1, 5, ACCEPTED)]
    assert len(bench.queue) == 0


async def test_batch_waits_for_a_first_message_and_accepts_the_one_before_meanwhile() -> None:
    bench = Bench()
    bench.put(1, 2)
    loop = aiter(bench.inbox.batches())
    await anext(loop)
    task = asyncio.ensure_future(anext(loop))
    await asyncio.sleep(0)
    assert bench.verdicts.now == 1
    assert bench.settled() == [(1, 2, ACCEPTED)]
    bench.put(3, 2)
    assert len(await task) == 2


async def test_batch_waits_for_more_as_long_as_it_is_told() -> None:
    bench = Bench()
    bench.put(1, 2)
    task = asyncio.ensure_future(anext(aiter(bench.inbox.batches(4, 60.0))))
    await asyncio.sleep(0)
    bench.put(3, 1)
    await asyncio.sleep(0)
    assert not task.done()
    bench.put(4, 5)
    assert len(await task) == 4
    assert len(bench.queue) == 4


async def test_break_accepts_the_batch_and_an_exception_gives_all_of_it_back() -> None:
    bench = Bench()
    bench.put(1, 4)
    async for _ in bench.inbox.batches(2):
        break
    assert bench.settled() == [(1, 2, ACCEPTED)]

    async def fail() -> None:
        async for batch in bench.inbox.batches(2):
            await batch[1].reject("no")
            _ = 1 / 0

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert bench.settled() == [(4, 4, Outcome.REJECTED), (3, 3, MODIFIED)]


async def test_manual_batches_settle_nothing_by_themselves() -> None:
    bench = Bench()
    bench.put(1, 4)
    async for batch in bench.manual.batches(2):
        await batch[0].accept()
        if batch[0].index == 2:
            break
    assert bench.settled() == [(1, 1, ACCEPTED), (3, 3, ACCEPTED)]


async def test_loop_and_batches_share_what_is_there() -> None:
    bench = Bench()
    bench.put(1, 10)
    single = aiter(bench.inbox)
    assert (await anext(single)).index == 0
    batches = aiter(bench.inbox.batches(3))
    assert [message.index for message in await anext(batches)] == [1, 2, 3]
    assert (await anext(single)).index == 4
    assert len(bench.queue) == 5


async def test_cancelled_waiting_never_loses_a_message_of_a_batch() -> None:
    bench = Bench()
    got: list[int] = []
    put = 0
    while len(got) < 500:
        if put < 500:
            put += 1
            asyncio.get_running_loop().call_soon(bench.put, put, 1)
        loop = aiter(bench.inbox.batches(2, 0.00002))
        try:
            batch = await asyncio.wait_for(anext(loop), 0.00001)
            got += [message._chunk.delivery.first_seq for message in batch]
        except TimeoutError:
            continue
    assert got == list(range(1, 501))


async def test_closing_ends_batches() -> None:
    bench = Bench()
    task = asyncio.ensure_future(anext(aiter(bench.inbox.batches()), None))
    await asyncio.sleep(0)
    bench.queue.close()
    assert await task is None


async def test_two_tasks_that_ask_for_a_batch_in_one_loop_are_refused() -> None:
    bench = Bench()
    loop = aiter(bench.inbox.batches())
    task = asyncio.ensure_future(anext(loop))
    await asyncio.sleep(0)
    with pytest.raises(UsageError):
        await anext(loop)
    bench.put(1, 1)
    await task


@pytest.mark.parametrize(("max_count", "max_wait"), [(0, 0.0), (1, -1.0), (1, float("nan"))])
async def test_batches_of_no_size_or_time_are_refused(max_count: int, max_wait: float) -> None:
    with pytest.raises(InvalidOption):
        Bench().inbox.batches(max_count, max_wait)


# Extras


async def test_messages_with_extras_that_cannot_expire_are_taken_in_runs() -> None:
    bench = Bench()
    record = with_extra((0, "", b"x"), Tag.KEY, "k")
    bench.queue.put(bench.verdicts.settlements, Delivery(SOURCE, "p", 1, 9, [record] * 9), 0, 9)
    loop = aiter(bench.inbox)
    await anext(loop)
    assert len(bench.queue) == 0


async def test_messages_with_a_time_to_live_are_taken_one_by_one() -> None:
    bench = Bench()
    records: list[Record] = [(0, "", b"x")] * 8
    records.append(with_extra((0, "", b"x"), Tag.TTL_MS, 1000))
    bench.queue.put(bench.verdicts.settlements, Delivery(SOURCE, "p", 1, 9, records), 0, 9)
    loop = aiter(bench.inbox)
    await anext(loop)
    assert len(bench.queue) == 8
