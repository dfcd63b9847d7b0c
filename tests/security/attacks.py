"""All attacks, each with what the victim must have counted when it is over."""

from tests.security.attack import Attack
from tests.security.discoveries import DISCOVERIES
from tests.security.identities import IDENTITIES
from tests.security.links import LINKS
from tests.security.packets import PACKETS
from tests.security.strangers import STRANGERS

ATTACKS: tuple[Attack, ...] = (*STRANGERS, *PACKETS, *LINKS, *IDENTITIES)

BY_NAME = {attack.name: attack for attack in (*ATTACKS, *DISCOVERIES)}
