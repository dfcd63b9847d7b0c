"""Which server key to dial an endpoint with: while a mesh changes its key there are several."""

from zmesh.transport.curve import CurveKeys


class Keyring:
    """Orders the keys, and remembers where another than the first was the right one."""

    def __init__(self, keys: CurveKeys | None, remembered_max: int) -> None:
        self._remembered_max = remembered_max
        self._worked: dict[str, bytes] = {}
        self.keys = keys

    def replace(self, keys: CurveKeys) -> None:
        """Dial with these from now on."""
        self.keys = keys

    def to_try(self, endpoint: str) -> list[bytes]:
        """Return the keys to dial an endpoint with, in order; one that is empty without CURVE."""
        if self.keys is None:
            return [b""]
        worked = self._worked.get(endpoint, b"")
        if worked not in self.keys.dialed:
            return list(self.keys.dialed)
        return [worked, *(key for key in self.keys.dialed if key != worked)]

    def on_worked(self, endpoint: str, key: bytes) -> None:
        """Remember which key was the right one, where it is not the first."""
        self._worked.pop(endpoint, None)
        if self.keys is None or key == self.keys.dialed[0]:
            return
        if len(self._worked) >= self._remembered_max:
            del self._worked[next(iter(self._worked))]
        self._worked[endpoint] = key
