"""`zmesh invite` and `zmesh join`: a new device gets the mesh key by a short code."""

import argparse
import asyncio
import json
import math
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import zmesh
from zmesh.errors import InvalidOption, UsageError

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001

LINGER_S: Final = 60.0
"""For so long who comes too late is told why. Whose code was stolen types it within that time."""


def add_invite(commands: "Commands") -> None:
    """Add the command to a parser; its options have `run`."""
    invite = commands.add_parser(
        "invite",
        help="give the mesh key to another device, by a short code",
        description="Show a code that is good for one device, and wait until that was typed "
        "there: `zmesh join CODE`. Listens on all network interfaces unless told otherwise.",
    )
    invite.add_argument(
        "--mesh", metavar="NAME", help="the mesh (default: ZMESH_MESH, or default)"
    )
    invite.add_argument(
        "--key-file", type=Path, metavar="PATH", help="its key (default: where nodes look for it)"
    )
    _add_interfaces(invite)
    invite.add_argument(
        "--port", type=int, default=0, help="to listen on (default: any that is free)"
    )
    invite.add_argument("--no-mdns", action="store_true", help="do not announce it")
    invite.add_argument(
        "--expires", type=float, metavar="SECONDS", help="until it is over (default: 600)"
    )
    invite.add_argument(
        "--linger", type=float, default=LINGER_S, metavar="SECONDS",
        help="how long to tell those who come once it is over that it is, and why "
        f"(default: {LINGER_S:g})",
    )  # fmt: skip
    invite.add_argument(
        "--json", action="store_true", help="print a line of JSON for all that happens"
    )
    invite.set_defaults(run=_invite)


def add_join(commands: "Commands") -> None:
    """Add the command to a parser; its options have `run`."""
    join = commands.add_parser(
        "join",
        help="get the mesh key from another device, by the code it shows",
        description="Find the device that runs `zmesh invite`, get the mesh key from it, and keep "
        "it in a file for its owner alone, where nodes look for it.",
    )
    join.add_argument(
        "code", nargs="?", metavar="CODE", help="as it is shown; else it is asked for"
    )
    join.add_argument("--mesh", metavar="NAME", help="join no other (default: any)")
    join.add_argument(
        "--file", type=Path, metavar="PATH", help="where to keep the key; nothing may be there yet"
    )
    join.add_argument("--at", metavar="HOST:PORT", help="who invites, where mDNS does not reach")
    _add_interfaces(join)
    join.add_argument("--json", action="store_true", help="print one line of JSON and no more")
    join.set_defaults(run=_join)


def _add_interfaces(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--interfaces",
        nargs="+",
        metavar="NAME",
        help="names or addresses of network interfaces to use (default: all)",
    )


def _invite(options: argparse.Namespace) -> int:
    return asyncio.run(_inviting(options))


async def _inviting(options: argparse.Namespace) -> int:
    if not 0 <= options.linger < math.inf:
        raise InvalidOption("--linger", options.linger, "0 seconds or more")
    invitation = zmesh.invite(
        mesh=options.mesh,
        key=options.key_file,
        interfaces=options.interfaces,
        port=options.port,
        mdns=not options.no_mdns,
        expires=options.expires,
    )
    tell = _tell_json if options.json else _tell
    async with invitation:
        tell(
            "invited",
            code=invitation.code,
            mesh=invitation.mesh,
            fingerprint=invitation.fingerprint,
            endpoints=invitation.endpoints,
            mdns_failure=invitation.mdns_failure,
            expires=invitation.expires,
        )
        code = 1
        async for news in invitation:
            match news:
                case zmesh.AttemptFailed(address, why, left):
                    tell("attempt_failed", address=address, why=why, attempts_left=left)
                case zmesh.GuestJoined(address, is_saved):
                    fingerprint = invitation.fingerprint
                    tell("joined", address=address, saved=is_saved, fingerprint=fingerprint)
                    code = 0 if is_saved else 1
                case zmesh.InvitationEnded(state):
                    tell(state.value)
        await _linger(options)
    return code


async def _linger(options: argparse.Namespace) -> None:
    """Stay, so that a device that comes too late is told that the code was used, say."""
    if not options.linger:
        return
    if not options.json:
        print(f"Who comes later is told so, for {_duration(options.linger)}. Ctrl-C ends that.")
        sys.stdout.flush()
    with suppress(asyncio.CancelledError):  # by Ctrl-C: what was to be done is done
        await asyncio.sleep(options.linger)


def _tell_json(event: str, **facts: object) -> None:
    print(json.dumps({"event": event, **facts}), flush=True)


def _tell(event: str, **facts: object) -> None:
    print(_TEXTS[event](facts), flush=True)


def _invited(facts: dict[str, object]) -> str:
    endpoints = facts["endpoints"]
    first = endpoints[0] if isinstance(endpoints, list) and endpoints else "HOST:PORT"
    failure = facts["mdns_failure"]
    reach = (
        f"It is not announced by mDNS ({failure}); add: --at {first}"
        if failure
        else f"Where mDNS does not reach, add: --at {first}"
    )
    return (
        f"Invitation to mesh {facts['mesh']!r}, key {facts['fingerprint']}.\n"
        f"\n    zmesh join {facts['code']}\n\n"
        f"on the other device, within {_duration(facts['expires'])}. {reach}\n"
        "Whoever has the code first gets the key. Ctrl-C withdraws it."
    )


def _duration(seconds: object) -> str:
    assert isinstance(seconds, float | int)  # noqa: S101
    return f"{seconds / 60:g} minutes" if seconds >= 120 else f"{seconds:g} seconds"


_TEXTS: Final[dict[str, Callable[[dict[str, object]], str]]] = {
    "invited": _invited,
    "attempt_failed": lambda facts: (
        f"{facts['address']} tried in vain: {facts['why']}; {facts['attempts_left']} left."
    ),
    "joined": lambda facts: (
        f"{facts['address']} joined and keeps the key. It shows {facts['fingerprint']} too."
        if facts["saved"]
        else f"{facts['address']} knew the code and was sent the key, and did not say that it "
        "keeps it. Look there; if it has none, invite it again."
    ),
    "expired": lambda _: "Nobody came in time: the code is good for nothing now.",
    "dead": lambda _: (
        "Too many wrong attempts: the code is good for nothing now. If nobody mistyped it, "
        "somebody on the network guesses."
    ),
}


def _join(options: argparse.Namespace) -> int:
    joined = asyncio.run(
        zmesh.join(
            _code() if options.code is None else options.code,
            mesh=options.mesh,
            file=options.file,
            at=options.at,
            interfaces=options.interfaces,
        )
    )
    if options.json:
        facts = {
            "mesh": joined.mesh,
            "fingerprint": joined.fingerprint,
            "path": str(joined.path),
            "address": joined.address,
        }
        print(json.dumps(facts))
    else:
        print(
            f"In mesh {joined.mesh!r} by invitation of {joined.address}: its key "
            f"{joined.fingerprint} is in {joined.path}. The other device shows the same key."
        )
    return 0


def _code() -> str:
    # Standard output is for the result alone.
    print("Code: ", end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline()
    if not line:
        raise UsageError("no code was typed: give it as an argument, or on standard input")
    return line
