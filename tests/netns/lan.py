"""A LAN of machines that share nothing but a switch: network namespaces, joined by a bridge.

The bridge lives in a namespace too, and nothing leads out of it: the machine that runs the tests
keeps its network as it was. All is deleted with `Lan.delete`.
"""

import os
import secrets
import subprocess
from typing import Self

_OURS = f"zmesh-{os.getpid()}-"
"""How the names of our namespaces begin; several runs at a time do not meet."""

_DEFAULT = "net.ipv6.conf.default"
_DAD = ("accept_dad", "dad_transmits")


class Machine:
    """A namespace with an interface `eth0`, plugged into a switch; `eth1` may come later."""

    def __init__(self, namespace: str, switch: str, number: int) -> None:
        self.namespace = namespace
        self._switch = switch
        self._number = number
        self.addresses = {4: f"10.77.0.{number}/24", 6: f"fd00:77::{number}/64"}

    def ip(self, *lines: str) -> None:
        """Run lines of `ip` inside."""
        ip(self.namespace, *lines)

    def run(self, *command: str) -> str:
        """Run a program inside, and return what it prints."""
        return run("ip", "netns", "exec", self.namespace, *command)

    def plug(self, number: int, *addresses: str) -> None:
        """Add `eth` and this number with a cable to the switch of this number, and bring it up."""
        interface, port = f"eth{number}", self._port(number)
        ip(
            self._switch,
            f"link add {port} type veth peer name {interface} netns {self.namespace}",
            f"link set {port} master br{number} up",
        )
        given = [f"addr add {each} dev {interface}" for each in addresses]
        self.ip(*given, f"link set {interface} up")

    def check_duplicates(self) -> None:
        """Have IPv6 addresses of interfaces to come checked for duplicates, as is the default."""
        self.run("sysctl", "-qw", *(f"{_DEFAULT}.{each}=1" for each in _DAD))

    def pull_cable(self, number: int = 0) -> None:
        """Take the carrier away from an interface."""
        ip(self._switch, f"link set {self._port(number)} down")

    def replug_cable(self, number: int = 0) -> None:
        """Give the carrier back."""
        ip(self._switch, f"link set {self._port(number)} up")

    def _port(self, number: int) -> str:
        return f"p{self._number}-{number}"

    def firewall(self, rule: str) -> None:
        """Add a rule of `iptables`, for both IP versions."""
        for command in ("iptables", "ip6tables"):
            self.run(command, "-w", "-A", *rule.split())

    def firewall_off(self) -> None:
        """Drop all rules."""
        for command in ("iptables", "ip6tables"):
            self.run(command, "-w", "-F")

    def connections(self) -> set[tuple[str, str]]:
        """Return the ports of its TCP connections with others: its own port, and theirs."""
        lines = self.run("ss", "-Htn", "state", "established").splitlines()
        ends = [line.split()[2:4] for line in lines if "127.0.0.1" not in line]
        return {(ours.rpartition(":")[2], theirs.rpartition(":")[2]) for ours, theirs in ends}


class Lan:
    """Machines on one switch, with another switch beside, for as long as `with Lan(...)` lasts.

    Args:
        names: of the machines; they get 10.77.0.1 and on, with fd00:77::1 and on.
        families: which IP versions the machines have addresses of; IPv6 always comes with
            link-local ones.
    """

    def __init__(self, *names: str, families: tuple[int, ...] = (4, 6)) -> None:
        self._prefix = f"{_OURS}{secrets.token_hex(3)}"
        self._switch = f"{self._prefix}-switch"
        self._names = names
        self._families = families
        self.machines: dict[str, Machine] = {}

    def __enter__(self) -> Self:
        try:
            self._build()
        except BaseException:
            self.delete()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.delete()

    def __getitem__(self, name: str) -> Machine:
        return self.machines[name]

    def _build(self) -> None:
        run("ip", "netns", "add", self._switch)
        for bridge in ("br0", "br1"):
            # Without snooping, as on most LANs: what it learns is as slow as its queries.
            options = "type bridge stp_state 0 mcast_snooping 0"
            ip(self._switch, f"link add {bridge} {options}", f"link set {bridge} up")
        for number, name in enumerate(self._names, start=1):
            machine = Machine(f"{self._prefix}-{name}", self._switch, number)
            run("ip", "netns", "add", machine.namespace)
            machine.run("sysctl", "-qw", *_ipv6_settings(6 in self._families))
            machine.ip("link set lo up")
            machine.plug(0, *(machine.addresses[family] for family in self._families))
            self.machines[name] = machine

    def delete(self) -> None:
        """Delete every namespace, and so every interface in them."""
        for name in namespaces():
            if name.startswith(f"{self._prefix}-"):
                run("ip", "netns", "del", name)


def _ipv6_settings(wanted: bool) -> list[str]:
    if not wanted:
        return [f"net.ipv6.conf.{which}.disable_ipv6=1" for which in ("all", "default")]
    # An address nobody else has need not be asked for, which takes a second or two.
    return [f"{_DEFAULT}.{each}=0" for each in _DAD]


def namespaces() -> list[str]:
    """Return the names of all namespaces of this process."""
    names = [line.split()[0] for line in run("ip", "netns").splitlines()]
    return [name for name in names if name.startswith(_OURS)]


def ip(namespace: str, *lines: str) -> None:
    """Run lines of `ip` in a namespace, all at once."""
    run("ip", "-n", namespace, "-batch", "-", told="\n".join(lines) + "\n")


def run(*command: str, told: str = "") -> str:
    """Run a command, and return what it prints.

    Raises:
        RuntimeError: with what it said, where it failed.
    """
    done = subprocess.run(command, check=False, input=told, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise RuntimeError(f"{' '.join(command)} failed: {said}")
    return done.stdout


def why_not() -> str:
    """Return why there can be no LAN here; empty where there can."""
    if os.name != "posix" or os.geteuid() != 0:
        return "network namespaces need root"
    try:
        with Lan("probe"):
            return ""
    except (OSError, RuntimeError) as error:
        return f"network namespaces with a bridge do not work here: {error}"


def why_no_firewall() -> str:
    """Return why packets cannot be dropped here; empty where they can."""
    try:
        with Lan("probe") as lan:
            lan["probe"].firewall("INPUT -p tcp --sport 1 -j REJECT --reject-with tcp-reset")
            lan["probe"].firewall("INPUT -m statistic --mode random --probability 0.5 -j DROP")
            return ""
    except (OSError, RuntimeError) as error:
        return f"iptables does not work here: {error}"
