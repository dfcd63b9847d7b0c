"""What signatures cost: made alone, and end to end between two nodes of one process, one core.

Rates are by the second of processor time, of all threads together: what one quiet core does.

`python -m benchmarks.signing [COUNT]`
"""

import asyncio
import os
import sys
from collections.abc import Callable
from time import process_time, time_ns

import zmesh
from zmesh.ids import NO_LINK, JournalId
from zmesh.message import Record, Tag, extra
from zmesh.options import LinkOptions, WireLimits
from zmesh.security.node_key import NodeKey
from zmesh.security.signing import Addressing, Signature, signer
from zmesh.wire.codec import encode
from zmesh.wire.frames import Data, Packet

BODY = bytes(200)
COUNT = 20_000
TO = "ab" * 16
INLINE = LinkOptions().inline_bytes_max


def rate(count: int, work: Callable[[], object]) -> float:
    begun = process_time()
    work()
    return count / (process_time() - begun)


def alone(count: int) -> None:
    """Sign and encode; verify."""
    sign = signer(NodeKey.of(b"k" * 32), JournalId(b"j" * 16), Addressing.NODE, 4, TO, None)
    record: Record = (0, "", BODY)
    now = time_ns() // 1_000_000
    records: list[Record] = []

    def make() -> None:
        for at in range(0, count, 100):
            some = [sign(record, at + each, now, now + 1000) for each in range(100)]
            encode(Packet(NO_LINK, 1, (Data(4, at + 1, tuple(some)),)), WireLimits(), INLINE)
            records.extend(some)

    def verify() -> None:
        for each in records:
            signature = Signature.of(extra(each, Tag.SIGNATURE))
            assert signature is not None
            assert signature.holds(each, TO, each[2])

    print(f"sign and encode   {rate(count, make):9,.0f}/s")
    print(f"verify            {rate(count, verify):9,.0f}/s")


async def between_nodes(count: int, *, sign: bool) -> None:
    async with (
        zmesh.Node("ada", mdns=False) as ada,
        zmesh.Node("bob", mdns=False, peers=ada.endpoints) as bob,
    ):
        await ada.peers.wait_for(count=1)

        async def read() -> None:
            seen = 0
            async for message in bob.inbox():
                assert (message.signer == ada.id) is sign
                seen += 1
                if seen == count:
                    return

        begun = process_time()
        reading = asyncio.create_task(read())
        receipt = await ada.post_many("bob", [BODY] * count, sign=sign)
        await reading
        await receipt
        took = process_time() - begun
        assert bob.statistics().verified == (count if sign else 0)
        print(f"post_many, {'signed  ' if sign else 'unsigned'} {count / took:9,.0f}/s")


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else COUNT
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # both nodes, and libzmq's threads
    alone(count)
    asyncio.run(between_nodes(count, sign=False))
    asyncio.run(between_nodes(count, sign=True))


if __name__ == "__main__":
    main()
