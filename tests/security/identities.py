"""Attacks by members on who is who: false claims, replays, relays, and what is others'."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import zmesh
from tests.discovery.waiting import until
from tests.security.attack import Attack
from tests.security.lures import Trap, relay, trap
from tests.security.member import MESH, Target, member
from tests.security.victim import TICKS
from zmesh.ids import NO_LINK, LinkId
from zmesh.message import Outcome, Tag, extra
from zmesh.security.node_key import NodeKey
from zmesh.wire.frames import (
    Ack,
    Bye,
    ByeCode,
    ControlData,
    Data,
    Error,
    ErrorCode,
    Fenced,
    Iam,
    Interest,
    Welcome,
    Who,
)

NOT_PROVED = "audited.not_proved"


async def claim_to_be_others(target: Target) -> None:
    """Claim other ids than the own key's, of others and of the victim, with proofs of no worth."""
    other = NodeKey.of(os.urandom(32))
    lies = (
        {"node": other.id},
        {"node": other.id, "key": other.public},
        {"node": target.node},
        {"proof": bytes(64)},
        {"key": b"", "proof": b""},
    )
    for lie in lies:
        async with member(target) as mallory:
            iam = await mallory.introduce()
            link = LinkId(os.urandom(8))
            await mallory.say(mallory.hello(iam, link, **lie), link=link)
            refused = await mallory.hear(Error)
            assert refused.code is ErrorCode.NOT_PROVED


async def end_the_links_of_others(target: Target) -> None:
    """Say on links of others that they are over: BYE, FENCED, ERROR, acknowledgements."""
    async with member(target) as mallory:
        await mallory.join()
        for _ in range(200):
            link = LinkId(os.urandom(8))
            await mallory.say(Bye(ByeCode.CLOSED, "gone"), link=link)
            await mallory.say(Fenced(1 << 40), link=link)
            await mallory.say(Error(ErrorCode.UNKNOWN_LINK, "say HELLO"), link=link)
            await mallory.say(Ack(1 << 40, 0, ((4, 1 << 40, ()),), ()), link=link)
        await mallory.is_heard()
    async with member(target) as mallory:  # and as nobody in particular
        for _ in range(50):
            await mallory.say(Bye(ByeCode.CLOSED, "gone"), link=LinkId(os.urandom(8)))
        await mallory.introduce()


async def dial_again_and_again(target: Target) -> None:
    """Join in a new name each time, and leave without a word."""
    for _ in range(30):
        async with member(target) as mallory:
            await mallory.join()


async def steal_a_routing_id(target: Target) -> None:
    """Claim the routing id of an honest peer's connection: ZeroMQ can be told to hand it over."""
    stolen = target.paths["honest"][:5]
    for _ in range(3):
        async with member(target, routing_id=stolen) as mallory:
            await mallory.say(Who(MESH, mallory.key.id), link=NO_LINK)
            await mallory.say(Bye(ByeCode.CLOSED, "gone"), link=LinkId(os.urandom(8)))
            assert await mallory.hears_nothing()


async def inherit_a_routing_id(target: Target) -> None:
    """Claim a routing id as soon as its owner has left, and speak on the owner's link."""
    routing_id = b"m" + os.urandom(4)
    async with member(target, routing_id=routing_id) as owner:
        await owner.join()
        await owner.say(ControlData(1, (Interest((("topic", TICKS),), ()),)))
        await owner.hear(Data)
        async with member(target, routing_id=routing_id) as early:
            await early.say(Who(MESH, early.key.id), link=NO_LINK)
            assert await early.hears_nothing()
    async with asyncio.timeout(10):
        while True:  # ZeroMQ ignores for good whoever came before the id was free
            async with member(target, routing_id=routing_id) as heir:
                await heir.say(Who(MESH, heir.key.id), link=NO_LINK)
                if await heir.hears_nothing():
                    continue
                await heir.hear(Iam)
                await heir.say(Ack(0, 0, (), ()), link=owner.link)
                refused = await heir.hear(Error)
                assert refused.code is ErrorCode.UNKNOWN_LINK
                assert await heir.hears_nothing(), "what was published to the one before"
                return


# Replays and relays


@asynccontextmanager
async def trapped(target: Target) -> AsyncIterator[Trap]:
    """Have an honest node say HELLO to somebody who is not the victim."""
    async with trap(target) as lure:
        address = lure.endpoint.removeprefix("tcp://")
        async with zmesh.Node(
            "carol", key=target.key, mdns=False, interfaces=["127.0.0.1"], peers=[address]
        ):
            await until(lambda: bool(lure.hellos), 10)
            yield lure


async def replay_a_hello(target: Target) -> None:
    """Say to the victim what an honest node said to another member, as it was, and readdressed."""
    async with trapped(target) as lure:
        packet, said = lure.hellos[0]
        for hello in (said, replace(said, to=target.node)):
            async with member(target) as mallory:
                await mallory.introduce()
                await mallory.say(hello, link=packet.link)
                refused = await mallory.hear(Error)
                is_readdressed = hello.to == target.node
                assert refused.code is (
                    ErrorCode.NOT_PROVED if is_readdressed else ErrorCode.WRONG_NODE
                )


async def replay_their_own_hello(target: Target) -> None:
    """Say what was once accepted again, on another connection."""
    async with member(target) as first:
        iam = await first.introduce()
        link = LinkId(os.urandom(8))
        hello = first.hello(iam, link)
        await first.say(hello, link=link)
        await first.hear(Welcome)
        async with member(target) as second:
            await second.introduce()
            await second.say(hello, link=link)
            refused = await second.hear(Error)
            assert refused.code is ErrorCode.NOT_PROVED


async def replay_a_signed_call(target: Target) -> None:
    """Be called by an honest node, which signs that, and pass the call on, again and again."""
    calls: list[zmesh.Message] = []
    settings: dict[str, Any] = {"key": target.key, "mdns": False, "interfaces": ["127.0.0.1"]}
    async with zmesh.Node("lure", **settings) as lure:

        @lure.service("echo")
        async def echo(message: zmesh.Message) -> None:
            calls.append(message)

        async with zmesh.Node("erin", sign=True, peers=lure.endpoints, **settings) as erin:
            await erin.peers.wait_for(service="echo", timeout=20)
            await erin.call("echo", "pay 5", timeout=20)
    async with member(target) as mallory:
        await mallory.join()
        (kind, service, body, *_), lane = calls[0]._record, calls[0].priority
        signature = extra(calls[0]._record, Tag.SIGNATURE)
        assert signature is not None
        for number in range(1, 6):  # as calls of its own, which are no copies of each other
            extras = (int(Tag.CORRELATION), number, int(Tag.SIGNATURE), signature)
            await mallory.say(Data(lane, number, ((kind, service, body, extras),)))
        # Nothing says that it was not for the victim as well; but for once.
        settled = await mallory.settled(5)
        assert settled == {Outcome.ACCEPTED: 1, Outcome.REJECTED: 4}, settled


async def relay_between_two(target: Target) -> None:
    """Stand between an honest node and the victim, and pass on what both say."""
    async with relay(target) as endpoint:
        address = endpoint.removeprefix("tcp://")
        async with zmesh.Node(
            "dave", key=target.key, mdns=False, interfaces=["127.0.0.1"], peers=[address]
        ) as dave:
            audit = dave.audit()
            async with asyncio.timeout(10):
                event = await anext(audit)
            assert (event.kind, event.endpoint) == (zmesh.AuditKind.NOT_PROVED, endpoint)
            assert not list(dave.peers)


IDENTITIES = (
    Attack(claim_to_be_others, {NOT_PROVED: 5, "defects.not proved": 5}),
    Attack(end_the_links_of_others, {"engine.packets_unknown": 50}),
    Attack(dial_again_and_again, {"transport.inbound_ended": 30}),
    Attack(steal_a_routing_id, {"transport.handshakes": 3}),
    Attack(inherit_a_routing_id, {"engine.packets_unknown": 1}),
    Attack(replay_a_hello, {NOT_PROVED: 1, "defects.wrong node": 1}),
    Attack(replay_their_own_hello, {NOT_PROVED: 1}),
    Attack(replay_a_signed_call, {"audited.replayed": 4}),
    Attack(relay_between_two),
)
