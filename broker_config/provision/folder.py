"""Where everything lies in a provisioned folder.

```
provision.json            what was decided: names, lifetimes, who is in and who is revoked; no secrets
authority/                the private certificate authority; key.pem may be kept offline between two runs
broker/                   all that the broker's machine needs: configuration, rules, passwords, certificates
aggregator/  operator/    one bundle for each of the two accounts that are no device
devices/dev-1/            one bundle for each device
```
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["AGGREGATOR", "OPERATOR", "Folder"]

AGGREGATOR = "aggregator"
OPERATOR = "operator"
"""The account of whoever looks after a federation: it watches, and clears what a revoked device has left."""


@dataclass(frozen=True, slots=True)
class Folder:
    """A provisioned folder's places."""

    root: Path

    @property
    def record(self) -> Path:
        """What was decided."""
        return self.root / "provision.json"

    @property
    def authority_key(self) -> Path:
        """The authority's private key."""
        return self.root / "authority" / "key.pem"

    @property
    def authority(self) -> Path:
        """The authority's certificate."""
        return self.root / "authority" / "ca.pem"

    @property
    def broker(self) -> Path:
        """What the broker's machine needs; Mosquitto is started in it."""
        return self.root / "broker"

    @property
    def configuration(self) -> Path:
        """Mosquitto's configuration."""
        return self.broker / "mosquitto.conf"

    @property
    def rules(self) -> Path:
        """Mosquitto's access rules."""
        return self.broker / "rules"

    @property
    def passwords(self) -> Path:
        """Mosquitto's password file: hashes."""
        return self.broker / "passwords"

    @property
    def revocations(self) -> Path:
        """The revocation list, signed by the authority."""
        return self.broker / "revoked.pem"

    @property
    def revoked(self) -> Path:
        """The ids of revoked devices, for the aggregator."""
        return self.bundle(AGGREGATOR) / "revoked"

    def bundle(self, account: str) -> Path:
        """What one account's machine needs, and nothing that is another's."""
        return self.root / account if account in (AGGREGATOR, OPERATOR) else self.root / "devices" / account

    def name(self, path: Path) -> str:
        """A path in the folder as the record and the summary name it."""
        return path.relative_to(self.root).as_posix()
