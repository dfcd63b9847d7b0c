"""How each fault of a scenario strikes a world, and how it ends."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from zmesh.testing.network import Weather
from zmesh.testing.scenario import Fault, FaultKind

if TYPE_CHECKING:
    from zmesh.testing.world import World

_PARTING = {
    FaultKind.WEATHER, FaultKind.LAG, FaultKind.ONE_WAY, FaultKind.PARTITION, FaultKind.ISOLATION,
    FaultKind.BLACK_HOLE, FaultKind.CRASH, FaultKind.POWER_LOSS, FaultKind.LEAVE,
    FaultKind.DISK_DEATH,
}  # fmt: skip


def strike(world: "World[Any]", fault: Fault) -> None:
    """Let the fault happen, and plan its end."""
    if fault.kind in _PARTING or _is_long_stop(world, fault):
        _note_parting(world, fault)
    _HOW[fault.kind](world, fault)


def _is_long_stop(world: "World[Any]", fault: Fault) -> bool:
    """Whether a host is silent for so long that its nodes' sessions end, if it has no link."""
    if fault.kind not in (FaultKind.STALL, FaultKind.SUSPEND):
        return False
    scenario = world.scenario
    return scenario.level != "link" and fault.seconds > scenario.link.session_linger / 2


def _note_parting(world: "World[Any]", fault: Fault) -> None:
    others = range(len(world.lives)) if fault.is_of_one else [fault.other]
    for other in others:
        world.sever(fault.host, other)


def _darken(world: "World[Any]", fault: Fault) -> None:
    network, pair = world.network, (fault.host, fault.other)
    calm = network.calm
    share = fault.severity
    weather = Weather(delay=calm.delay, jitter=calm.jitter)
    if fault.kind is FaultKind.WEATHER:
        weather.loss = 0.4 * share
        weather.duplication = 0.5 * (1 - share)
        weather.reordering = 0.3 * share
    elif fault.kind is FaultKind.LAG:
        weather.delay = calm.delay + 0.5 * share
        weather.jitter = calm.jitter + 0.1 * share
    else:
        weather.corruption = 0.2 + 0.8 * share
    network.set_weather(*pair, weather)
    world.queue.after(fault.seconds, _clear, world, pair, weather)


def _clear(world: "World[Any]", pair: tuple[int, int], weather: Weather) -> None:
    """End this weather, unless other weather came meanwhile."""
    if world.network.weather(*pair) is weather:
        world.network.set_weather(*pair, None)


def _cut(world: "World[Any]", pairs: Iterable[tuple[int, int]], seconds: float) -> None:
    for pair in pairs:
        world.network.cut(*pair)
        world.queue.after(seconds, world.network.heal, *pair)


def _kill(world: "World[Any]", fault: Fault) -> None:
    if world.processes[fault.host] is not None:
        world.kill(fault.host, dark=fault.kind is FaultKind.POWER_LOSS)
        world.queue.after(fault.seconds, world.boot, fault.host)


def _stop(world: "World[Any]", fault: Fault) -> None:
    process = world.processes[fault.host]
    if process is None:
        return
    if fault.kind is FaultKind.STALL:
        process.stall(fault.seconds)
    else:
        process.suspend(fault.seconds)


def _one_way(world: "World[Any]", fault: Fault) -> None:
    _cut(world, [(fault.host, fault.other)], fault.seconds)


def _partition(world: "World[Any]", fault: Fault) -> None:
    _cut(world, [(fault.host, fault.other), (fault.other, fault.host)], fault.seconds)


def _isolate(world: "World[Any]", fault: Fault) -> None:
    host = fault.host
    others = [index for index in range(len(world.lives)) if index != host]
    pairs = [pair for other in others for pair in ((host, other), (other, host))]
    _cut(world, pairs, fault.seconds)


def _say_goodbye(world: "World[Any]", fault: Fault) -> None:
    world.queue.after(world.leave(fault.host), _kill, world, fault)


_HOW: dict[FaultKind, Callable[["World[Any]", Fault], None]] = {
    FaultKind.WEATHER: _darken,
    FaultKind.LAG: _darken,
    FaultKind.CORRUPTION: _darken,
    FaultKind.ONE_WAY: _one_way,
    FaultKind.PARTITION: _partition,
    FaultKind.ISOLATION: _isolate,
    FaultKind.BLACK_HOLE: lambda world, fault: world.network.black_hole(fault.host, fault.other),
    FaultKind.RESET: lambda world, fault: world.network.reset(fault.host, fault.other),
    FaultKind.CRASH: _kill,
    FaultKind.POWER_LOSS: _kill,
    FaultKind.LEAVE: _say_goodbye,
    FaultKind.STALL: _stop,
    FaultKind.SUSPEND: _stop,
    FaultKind.SLOW: lambda world, fault: world.slow(
        fault.host, fault.seconds, 0.01 + 0.5 * fault.severity
    ),
    FaultKind.ECHO: lambda world, fault: world.echo(fault.host, fault.other),
    FaultKind.GHOST: lambda world, fault: world.haunt(fault.host, fault.severity),
    FaultKind.STRANGER: lambda world, fault: world.intrude(fault.host),
    FaultKind.ATTACK: lambda world, fault: world.attack(fault.host, fault.other),
    FaultKind.DISK_DEATH: lambda world, fault: world.doom(fault),
    FaultKind.DISK_FULL: lambda world, fault: world.fill(fault),
}
