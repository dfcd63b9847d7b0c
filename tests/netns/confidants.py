"""Two nodes that use everything zmesh has, with words that are found wherever they are readable.

`python -m tests.netns.confidants ROLE PLACE SETTINGS`: the role is `ada`, who offers all, or
`bob`, who uses it and prints `done`. Files and, where the settings ask for it, storage are in the
place. Both end when their standard input does.
"""

import asyncio
import json
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import zmesh
from tests.processes import say

KINDS = (
    "service", "body", "reply", "stream", "part", "topic", "header", "value", "type", "key",
    "queue", "job", "group", "parcel", "survey", "file", "content", "direct", "map", "entry",
    "attribute",
)  # fmt: skip
WORDS = {kind: f"Zq{kind}qZ" for kind in KINDS}
"""What must not be readable, by what it is."""

NAMES = {"ada": "ZqadaqZ", "bob": "ZqbobqZ"}
"""The nodes' names, which are announced where that is wanted."""

WITHIN = 30.0


async def be_ada(node: zmesh.Node, place: Path) -> None:
    """Offer everything there is, and take what comes."""

    @node.service(WORDS["service"])
    async def serve(_: zmesh.Message) -> str:
        return WORDS["reply"]

    @node.service(WORDS["stream"])
    async def stream(_: zmesh.Message) -> Any:
        yield WORDS["part"]

    @node.service(WORDS["survey"])
    async def survey(_: zmesh.Message) -> str:
        return WORDS["reply"]

    node.describe(**{WORDS["attribute"]: WORDS["value"]})
    async with AsyncExitStack() as stack:
        incoming = place / "incoming"
        await asyncio.to_thread(incoming.mkdir)
        sources = [
            node.inbox(),
            await stack.enter_async_context(node.subscribe(f"{WORDS['topic']}.*")),
            await stack.enter_async_context(node.pull(WORDS["queue"])),
            await stack.enter_async_context(node.join(WORDS["group"])),
            await stack.enter_async_context(node.receive_files(incoming)),
        ]
        tasks = [asyncio.create_task(_take(each)) for each in sources]
        replica = await node.shared(WORDS["map"])
        await replica.set("mine", WORDS["entry"])
        await asyncio.to_thread(sys.stdin.read)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _take(source: Any) -> None:
    async for _ in source:
        pass


async def be_bob(node: zmesh.Node, place: Path) -> None:
    """Use what the other one offers."""
    await node.peers.wait_for(service=WORDS["service"], timeout=WITHIN)
    await node.peers.wait_for(group=WORDS["group"], timeout=WITHIN)
    headers = {WORDS["header"]: WORDS["value"]}
    body = {"said": WORDS["body"]}
    assert await node.call(WORDS["service"], body, timeout=WITHIN) == WORDS["reply"]
    assert [part async for part in node.stream(WORDS["stream"], body)] == [WORDS["part"]]
    assert [reply async for reply in node.survey(WORDS["survey"], timeout=1)]
    await node.send(NAMES["ada"], WORDS["direct"], headers=headers, timeout=WITHIN)
    receipt = await node.publish(f"{WORDS['topic']}.x", body, type=WORDS["type"], key=WORDS["key"])
    assert await receipt == 1
    await (await node.push(WORDS["queue"], WORDS["job"], key=WORDS["key"]))
    report = await node.fan_out(WORDS["group"], WORDS["parcel"], timeout=WITHIN)
    assert not report.failed
    parcel = place / WORDS["file"]
    parcel.write_text(WORDS["content"] * 100, encoding="ascii")
    await node.send_file(NAMES["ada"], parcel, timeout=WITHIN)
    replica = await node.shared(WORDS["map"])
    await replica.set(WORDS["key"], WORDS["entry"])
    await node.flush()
    say("done")
    await asyncio.to_thread(sys.stdin.read)


async def main(role: str, place: str, settings: dict[str, Any]) -> None:
    here = Path(place)
    await asyncio.to_thread(here.mkdir)
    if settings.pop("stores"):
        settings["storage"] = here / "journal.db"
    async with zmesh.Node(NAMES[role], **settings) as node:
        await {"ada": be_ada, "bob": be_bob}[role](node, here)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3])))
