"""Whom a node trusts, and for what: keys by name, those that were revoked, and rules."""

from collections.abc import Iterable, Mapping

from zmesh.ids import NodeId
from zmesh.options import TrustOptions
from zmesh.security import node_key
from zmesh.security.coverage import ONE, REST, flaw_in
from zmesh.security.rules import ALL_ALLOWED, Action, Decision, Rules
from zmesh.security_errors import InvalidTrust

NAME_BYTES_MAX = 255
"""Of a key: as a name of a file may have."""

NOT_LISTED = Decision(allowed=False, rule="its key is not trusted")
KEY_REVOKED = Decision(allowed=False, rule="its key was revoked")


def check_name(name: str, where: str) -> None:
    """Raise InvalidTrust unless a key may be called so: as a topic without wildcards."""
    if not isinstance(name, str):
        raise InvalidTrust(where, f"{name!r} is no name of a key: it must be a text")
    flaw = flaw_in(name)
    if ONE in name or REST in name:
        flaw = f"{ONE!r} and {REST!r} are for patterns"
    if not name.isprintable() or "/" in name:
        flaw = "it must be printable, without '/'"
    if len(name.encode(errors="replace")) > NAME_BYTES_MAX:
        flaw = f"it has more than {NAME_BYTES_MAX} bytes"
    if flaw:
        raise InvalidTrust(where, f"{name!r} is no name of a key: {flaw}")


def _check_types(keys: object, revoked: object, rules: object) -> None:
    """Raise InvalidTrust where something is not even of the type that it must have."""
    if not isinstance(keys, Mapping):
        raise InvalidTrust("keys", f"texts of keys by name are needed, and not {_type(keys)}")
    if isinstance(revoked, str | bytes) or not isinstance(revoked, Iterable):
        raise InvalidTrust("revoked", f"a list is needed, and not {_type(revoked)}")
    if rules is not None and not isinstance(rules, str):
        raise InvalidTrust("rules", f"the text of the rules is needed, and not {_type(rules)}")


def _type(value: object) -> str:
    return type(value).__name__


class Trust:
    """The nodes that get a link, and what each may do. Never changes; a new one replaces it.

    ```python
    trust = zmesh.Trust({"camera-1": "zmn1..."}, rules=Path("rules.toml").read_text())
    ```
    """

    def __init__(
        self,
        keys: Mapping[str, str],
        *,
        revoked: Iterable[str] = (),
        rules: str | None = None,
        options: TrustOptions = TrustOptions(),  # noqa: B008  # frozen
    ) -> None:
        """Trust these keys.

        Args:
            keys: the text of each node's public key, by the name rules call it.
            revoked: names out of `keys`, or texts of keys, that are trusted no more.
            rules: TOML; without it whose key is listed may do everything.
            options: bounds.

        Raises:
            InvalidTrust: a name, a list or rules that cannot work; it tells where.
            InvalidKey: a text that is no key.
        """
        _check_types(keys, revoked, rules)
        publics: dict[str, bytes] = {}
        for name, text in keys.items():
            check_name(name, "keys")
            publics[name] = node_key.from_text(text, f"key {name!r}")
        gone, gone_names = set[bytes](), set[str]()
        for each in revoked:
            if not isinstance(each, str):
                raise InvalidTrust("revoked", f"names or keys are needed, and not {_type(each)}")
            if each.startswith(node_key.PREFIX):
                gone.add(node_key.from_text(each, "revoked"))
            elif each not in publics:  # a slip of the pen must not leave somebody trusted
                raise InvalidTrust("revoked", f"there is no key {each!r} in keys")
            else:
                gone_names.add(each)
        made = None if rules is None else Rules.parse(rules, publics, "rules", options)
        self._set(publics, gone, gone_names, made, options)

    @classmethod
    def of(
        cls,
        keys: Mapping[str, bytes],
        revoked: Iterable[bytes],
        revoked_names: Iterable[str],
        rules: Rules | None,
        options: TrustOptions,
    ) -> "Trust":
        """Return the trust in public keys, read already.

        Raises:
            InvalidTrust: two names of one key, or too many keys.
        """
        made = cls.__new__(cls)
        made._set(keys, revoked, revoked_names, rules, options)  # noqa: SLF001  # its own
        return made

    def _set(
        self,
        keys: Mapping[str, bytes],
        revoked: Iterable[bytes],
        revoked_names: Iterable[str],
        rules: Rules | None,
        options: TrustOptions,
    ) -> None:
        names_gone = set(revoked_names)
        gone = set(revoked) | {key for name, key in keys.items() if name in names_gone}
        for count in (len(keys), len(gone)):
            if count > options.trusted_keys_max:
                raise InvalidTrust(
                    "trust", f"{count} keys are more than {options.trusted_keys_max}"
                )
        names: dict[bytes, str] = {}
        for name, key in keys.items():
            if key in names:
                raise InvalidTrust("trust", f"{names[key]!r} and {name!r} are the same key")
            names[key] = name
        self.rules = rules
        self.keys = dict(keys)
        self.revoked = frozenset(gone)
        self._names = {
            node_key.node_id_of(key): name for key, name in names.items() if key not in gone
        }
        self._revoked_ids = frozenset(map(node_key.node_id_of, gone))

    def __len__(self) -> int:
        """Count the keys that are trusted."""
        return len(self._names)

    def __repr__(self) -> str:
        return f"<Trust in {len(self)} keys, {len(self.revoked)} revoked>"

    def admits(self, node: NodeId) -> bool:
        """Return whether a node gets a link. Its id, once proved, stands for its key."""
        return node in self._names

    def is_revoked(self, node: NodeId) -> bool:
        """Return whether a node's key was revoked."""
        return node in self._revoked_ids

    def name_of(self, node: NodeId) -> str | None:
        """Return what a trusted node's key is called; None where it is not trusted."""
        return self._names.get(node)

    def judge(self, node: NodeId, action: Action, target: str) -> Decision:
        """Decide whether a node may do something; see `Rules.judge`."""
        name = self._names.get(node)
        if name is None:
            return KEY_REVOKED if self.is_revoked(node) else NOT_LISTED
        return ALL_ALLOWED if self.rules is None else self.rules.judge(name, action, target)

    def judge_any(self, node: NodeId, action: Action, pattern: str) -> Decision:
        """Decide whether it may do something to any of the names that match a pattern."""
        name = self._names.get(node)
        if name is None:
            return KEY_REVOKED if self.is_revoked(node) else NOT_LISTED
        return ALL_ALLOWED if self.rules is None else self.rules.judge_any(name, action, pattern)
