"""The examples do what they say, as separate processes that find each other by mDNS."""

import ast
import hashlib
import json
import lzma
import os
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random

import pytest

from tests.processes import ROOT, Child, run

EXAMPLES = sorted((ROOT / "examples").rglob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_is_short(path: Path) -> None:
    assert path.read_text(encoding="utf-8").count("\n") < 40


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_stays_on_this_machine_whatever_keys_there_are(path: Path) -> None:
    """And in a mesh of its own: who tries one may have a mesh at work here."""
    nodes = [
        {each.arg: ast.unparse(each.value) for each in call.keywords}
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "zmesh.Node"
    ]
    assert nodes
    assert all(told.get("key") == "()" and "mesh" in told for told in nodes)


async def test_example_runs_where_the_key_that_is_set_is_none() -> None:
    environment = {"ZMESH_KEY": "", "ZMESH_KEY_FILE": "/nowhere"}
    program = "examples/request_reply.py"
    async with run(program, "serve", environment=environment) as server:
        assert await server.line() == "serving"
        async with run(program, "call", "3", environment=environment) as caller:
            status, out, error = await caller.ended()
            assert (status, error) == (0, "")
            assert out.startswith("3! = 6 ")


async def test_hello() -> None:
    async with (
        run("examples/hello.py", "alice") as alice,
        run("examples/hello.py", "bob", "alice") as bob,
    ):
        assert await alice.ended() == (0, "bob says: hello alice, this is bob\n", "")
        assert await bob.ended() == (0, "alice says: hello bob\n", "")


async def test_request_reply() -> None:
    async with run("examples/request_reply.py", "serve") as server:
        assert await server.line() == "serving"
        async with run("examples/request_reply.py", "call", "9") as caller:
            status, out, error = await caller.ended()
            assert (status, error) == (0, "")
            assert out.startswith("9! = 362880 (computed by ")
        async with run("examples/request_reply.py", "call", "-1") as caller:
            status, out, error = await caller.ended()
            assert (status, error) == (0, "")
            assert "rejected the message: a negative number has no factorial" in out


async def test_call_later(tmp_path: Path) -> None:
    program, journal = "examples/call_later.py", str(tmp_path / "requests.zmesh")
    async with run(program, "ask", journal, "3", "4") as asking:
        assert await asking.ended() == (0, "waiting\nwaiting\n", "")
    async with run(program, "serve") as server:
        assert await server.line() == "serving"
        async with run(program, "fetch", journal) as fetching:
            status, out, error = await fetching.ended()
            assert (status, sorted(out.splitlines()), error) == (0, ["3! = 6", "4! = 24"], "")
    async with run(program, "fetch", journal) as fetching:
        assert await fetching.ended() == (0, "", "")


async def test_signed_messages() -> None:
    async with run("examples/signed_messages.py", "serve") as bank:
        assert await bank.line() == "serving"
        async with run("examples/signed_messages.py", "pay", "5") as till:
            told = (
                "signed by this node: True\n"
                "unsigned: it is not signed, and only signed messages are taken here\n"
            )
            assert await till.ended() == (0, told, "")


async def test_hedged_call() -> None:
    program = "examples/hedged_call.py"
    async with run(program, "slow") as slow, run(program, "quick"):
        async with run(program, "call") as caller:
            assert await caller.ended() == (0, "148933\n", "")
        assert await slow.line() == "somebody waits for it still: False"


async def test_publish_subscribe() -> None:
    program = "examples/publish_subscribe.py"
    told = [f"sensors.kitchen.temp {20 + n / 2} C" for n in range(1, 6)]
    for readers in (1, 3):
        async with AsyncExitStack() as stack:
            arguments = [str(readers)] if readers > 1 else []
            publisher = await stack.enter_async_context(run(program, "publish", *arguments))
            reading = [
                await stack.enter_async_context(run(program, "read")) for _ in range(readers)
            ]
            assert await publisher.ended() == (0, f"handled by {readers}\n" * 5, "")
            for reader in reading:
                status, out, error = await reader.ended()
                assert (status, out.splitlines(), error) == (0, ["reading", *told], "")


async def test_durable_subscription(tmp_path: Path) -> None:
    program = "examples/durable_subscription.py"
    shop, books = f"--journal={tmp_path}/shop", f"--journal={tmp_path}/books"
    async with run(program, "publish", shop) as publisher:
        for number in range(1, 4):
            assert await publisher.line() == f"order {number}"
        for first in (1, 3):
            async with run(program, "read", books, "--orders=2") as reader:
                billed = f"billed {first}\nbilled {first + 1}\n"
                assert await reader.ended() == (0, billed, "")


async def test_effectively_once(tmp_path: Path) -> None:
    program = str(ROOT / "examples" / "effectively_once.py")
    for number in (1, 2):
        async with run(program, "order", f"--number={number}", place=tmp_path) as ordering:
            assert await ordering.ended() == (0, "", "")
    async with run(program, "shop", place=tmp_path):
        async with run(program, "books", place=tmp_path) as books:
            assert [await books.line(), await books.line()] == ["billed order 1", "billed order 2"]
        async with run(program, "order", "--number=3", place=tmp_path) as ordering:
            assert await ordering.ended() == (0, "", "")
        async with run(program, "books", place=tmp_path) as books:
            assert await books.line() == "billed order 3"


async def test_fan_out(tmp_path: Path) -> None:
    program, firmware = "examples/fan_out.py", tmp_path / "firmware.bin"
    firmware.write_bytes(bytes(range(256)) * 1000)
    places = [tmp_path / name for name in ("one", "two")]
    async with AsyncExitStack() as stack:
        sender = await stack.enter_async_context(run(program, "send", str(firmware), "2"))
        members = []
        for place in places:
            place.mkdir()
            members.append(await stack.enter_async_context(run(program, "member", str(place))))
        assert await sender.ended() == (0, "accepted \n" * 2 + "2 have it\n", "")
        for member in members:
            assert await member.ended() == (0, "joined\n", "")
    for place in places:
        assert (place / "firmware.bin").read_bytes() == firmware.read_bytes()


async def test_survey() -> None:
    program = "examples/survey.py"
    async with (
        run(program, "serve", "kitchen") as one,
        run(program, "serve", "cellar") as other,
        run(program, "ask", "2") as asking,
    ):
        assert (await one.line(), await other.line()) == ("serving", "serving")
        status, out, error = await asking.ended()
        assert (status, error) == (0, "")
        *replies, failures = sorted(out.splitlines(), key=lambda line: line[0], reverse=True)
        assert [line.split(":")[0] for line in replies] == ["kitchen", "cellar"]
        assert failures == "0 did not answer"


async def test_presence() -> None:
    program = "examples/presence.py"
    async with run(program, "watch", "kitchen") as watcher:
        async with run(program, "announce", "cellar") as elsewhere:
            assert await elsewhere.ended() == (0, "announced\n", "")
        async with run(program, "announce", "kitchen", reads=True) as here:
            assert await here.line() == "announced"
            cores = f"{os.cpu_count()} cores"
            assert await watcher.line() == f"Joined {cores} None"
            for typed, status in (("cleaning", "cleaning"), ("", "None")):
                await here.tell(typed)
                assert await watcher.line() == f"Updated {cores} {status}"
            here.end_of_input()
            assert await here.ended() == (0, "", "")
            while (line := await watcher.line()).startswith("Updated"):
                pass  # it drains
            assert line == f"Left {cores} None"


async def test_typed_bodies() -> None:
    program = "examples/typed_bodies.py"
    async with run(program):
        for loan, told in (
            ({"sum": 9000, "months": 24}, "398.89\n"),
            ({"sum": 9000, "months": "24"}, "got `str` - at `$.months`\n"),
            ({"sum": 9000}, "missing required field `months`\n"),
        ):
            async with run(program, json.dumps(loan)) as caller:
                status, out, error = await caller.ended()
                assert (status, error) == (0, "")
                assert out.endswith(told)


async def test_shared_state() -> None:
    program = "examples/shared_state.py"
    async with AsyncExitStack() as stack:
        watchers = [await stack.enter_async_context(run(program, "watch")) for _ in range(2)]
        for watcher in watchers:
            assert await watcher.line() == "watching"
        for arguments, shown, change in (
            (["set", "rate", "5"], {"rate": "5"}, "rate 5"),
            (["set", "limit", "9"], {"rate": "5", "limit": "9"}, "limit 9"),
            (["show"], {"rate": "5", "limit": "9"}, ""),
            (["delete", "rate"], {"limit": "9"}, "rate deleted"),
        ):
            async with run(program, *arguments) as process:
                status, out, error = await process.ended()
                assert (status, error) == (0, "")
                assert ast.literal_eval(out) == shown
            for watcher in watchers:
                assert not change or await watcher.line() == change


async def test_send_file(tmp_path: Path) -> None:
    program, source = "examples/send_file.py", tmp_path / "photo.jpg"
    source.write_bytes(bytes(range(256)) * 4000)
    places = [tmp_path / name for name in ("one", "two")]
    async with AsyncExitStack() as stack:
        for count, place in enumerate(places, 1):
            place.mkdir()
            receiver = await stack.enter_async_context(run(program, "receive", str(place)))
            assert await receiver.line() == "receiving"
            async with run(program, "send", str(source), str(count)) as sender:
                status, out, error = await sender.ended()
            assert (status, error) == (0, "")
            told = (await receiver.line()).split()
            assert told[:3] == ["photo.jpg:", "1024000", "bytes,"]
            assert out.endswith(f"{told[3]}\n")
            assert (place / "photo.jpg").read_bytes() == source.read_bytes()


async def test_stream(tmp_path: Path) -> None:
    program = "examples/stream.py"
    lines = [f"{number} {'bread' if number % 3 == 0 else 'milk'}" for number in range(1, 10_000)]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    async with run(program, "serve", str(tmp_path)) as server:
        assert await server.line() == "serving"
        async with run(program, "find", "bread") as asking:
            status, out, error = await asking.ended()
        assert (status, error) == (0, "")
        assert out.splitlines() == [f"{n} bread" for n in range(3, 10_000, 3)]


async def test_work_queue(tmp_path: Path) -> None:
    program, source, target = "examples/work_queue.py", tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    bodies = {f"{n}.bin": Random(n).randbytes(n * 6000) for n in range(1, 21)}
    for name, body in bodies.items():
        (source / name).write_bytes(body)
    async with (
        run(program, "push", str(source)) as pusher,
        run(program, "compress", str(target)) as victim,
    ):
        assert await victim.line() == "ready"
        await victim.line()  # it is at work, and dies of it
        victim.process.kill()
        async with run(program, "compress", str(target)) as other:
            assert await other.line() == "ready"
            assert await pusher.ended() == (0, "20 files are compressed\n", "")
    for name, body in bodies.items():
        assert lzma.decompress((target / f"{name}.xz").read_bytes()) == body


TUTORIALS = "examples/rabbitmq_tutorials"


async def test_tutorial_hello_world() -> None:
    program = f"{TUTORIALS}/hello_world.py"
    async with run(program, "send") as sender, run(program, "receive") as receiver:
        assert await sender.ended() == (0, " [x] Sent 'Hello World!'\n", "")
        assert await receiver.line() == " [*] Waiting for messages. To exit press CTRL+C"
        assert await receiver.line() == " [x] Received Hello World!"


async def test_tutorial_work_queues() -> None:
    program = f"{TUTORIALS}/work_queues.py"
    words = [f"password {number}" for number in range(12)]
    async with run(program, "work") as one, run(program, "work") as other:
        for worker in (one, other):
            assert await worker.line() == " [*] Waiting for tasks. To exit press CTRL+C"
        async with run(program, "task", *words) as task:
            await one.line()  # it is at work, and dies of it
            one.process.kill()
            assert await task.ended() == (0, " [x] 12 done\n", "")
        done = [await other.line()]
        other.process.terminate()
        _, out, _ = await other.ended()
        for line in [*done, *out.splitlines()]:
            word, key = line.removeprefix(" [x] ").split(": ")
            wanted = hashlib.scrypt(word.encode(), salt=b"tutorial", n=2**14, r=8, p=1).hex()
            assert (word in words, key) == (True, wanted)


async def test_tutorial_publish_subscribe() -> None:
    program = f"{TUTORIALS}/publish_subscribe.py"
    async with run(program, "receive") as one, run(program, "receive") as other:
        for receiver in (one, other):
            assert await receiver.line() == " [*] Waiting for logs. To exit press CTRL+C"
        async with run(program, "emit", "hello", "--receivers", "2") as emitter:
            assert await emitter.ended() == (0, " [x] Sent 'hello' to 2\n", "")
        for receiver in (one, other):
            assert await receiver.line() == " [x] hello"


async def test_tutorial_routing() -> None:
    program = f"{TUTORIALS}/routing.py"
    async with (
        run(program, "receive", "info", "error") as screen,
        run(program, "receive", "error") as disk,
    ):
        for receiver in (screen, disk):
            assert await receiver.line() == " [*] Waiting for logs. To exit press CTRL+C"
        await emitted(program, "info", "Run.", screen)
        await emitted(program, "error", "Or it will explode.", screen, disk)


async def test_tutorial_topics() -> None:
    program = f"{TUTORIALS}/topics.py"
    async with (
        run(program, "receive", "kern.*", "*.critical") as one,
        run(program, "receive", "kern.#.critical") as other,
    ):
        for receiver in (one, other):
            assert await receiver.line() == " [*] Waiting for logs. To exit press CTRL+C"
        await emitted(program, "kern.info", "All is well", one)
        await emitted(program, "cron.critical", "Nobody came", one)
        await emitted(program, "kern.critical", "A critical kernel error", one, other)
        await emitted(program, "kern.disk.critical", "Full", other)


async def emitted(program: str, key: str, text: str, *receivers: Child) -> None:
    """Emit a message, and see that it came to all who want it, and was the next there."""
    count = str(len(receivers))
    async with run(program, "emit", key, text, "--receivers", count) as emitter:
        assert await emitter.ended() == (0, f" [x] Sent {key}: {text} to {count}\n", "")
    for receiver in receivers:
        assert await receiver.line() == f" [x] {key}: {text}"


async def test_tutorial_rpc() -> None:
    program = f"{TUTORIALS}/rpc.py"
    async with run(program, "serve") as server:
        assert await server.line() == " [x] Awaiting RPC requests"
        async with run(program, "call", "20") as caller:
            assert await caller.ended() == (0, " [.] Got 6765\n", "")
        assert await server.line() == " [.] fib(20)"


async def test_tutorial_publisher_confirms() -> None:
    program = f"{TUTORIALS}/publisher_confirms.py"
    async with run(program, "consume") as consumer, run(program, "publish") as publisher:
        assert await consumer.line() == "consuming"
        status, out, error = await publisher.ended(60)
        assert (status, error) == (0, "")
        lines = ["50 one by one", "5000 in batches", "5000 on the way at once"]
        assert [line.split(":")[0] for line in out.splitlines()] == lines


@pytest.mark.parametrize(
    ("path", "arguments"),
    [
        ("rabbitmq_tutorials/hello_world.py", []),
        ("rabbitmq_tutorials/work_queues.py", ["play"]),
        ("rabbitmq_tutorials/publish_subscribe.py", ["emit", "hello", "--receivers", "two"]),
        ("rabbitmq_tutorials/routing.py", ["receive", "fatal"]),
        ("rabbitmq_tutorials/topics.py", ["receive"]),
        ("rabbitmq_tutorials/rpc.py", ["call", "nine"]),
        ("rabbitmq_tutorials/publisher_confirms.py", ["confirm"]),
        ("hedged_call.py", ["serve"]),
        ("fan_out.py", ["send"]),
        ("hello.py", []),
        ("survey.py", ["ask"]),
        ("publish_subscribe.py", []),
        ("publish_subscribe.py", ["publish", "two"]),
        ("durable_subscription.py", ["bill"]),
        ("effectively_once.py", []),
        ("send_file.py", ["receive"]),
        ("shared_state.py", []),
        ("stream.py", ["find"]),
        ("shared_state.py", ["observe"]),
        ("work_queue.py", ["push"]),
        ("presence.py", ["watch"]),
        ("signed_messages.py", []),
        ("signed_messages.py", ["pay", "much"]),
        ("request_reply.py", []),
        ("request_reply.py", ["call", "nine"]),
    ],
)
async def test_wrong_arguments_are_answered_by_the_usage(path: str, arguments: list[str]) -> None:
    async with run(f"examples/{path}", *arguments) as program:
        status, out, error = await program.ended()
        assert (status, out) == (2, "")
        assert error.startswith(f"usage: {Path(path).name} ")
        assert "Traceback" not in error
