"""Mosquitto's configuration for a federation, for 2.0.11 and later; its paths count from the broker's folder."""

from __future__ import annotations

from fedmq.broker_config.provision.record import Login, Record

__all__ = ["configuration"]

_CONFIGURATION = """\
# Mosquitto for federation {federation}. Written by `fedmq provision`; changes are lost.
# Start it with `fedmq broker --secure`, or in this folder, where all its files are, with `mosquitto -c mosquitto.conf`.
# All of them have to belong to the user that Mosquitto runs as: one that root starts becomes the user mosquitto.

listener {port}{listen}
allow_anonymous false
allow_zero_length_clientid false

# Who is who. The broker puts the name that was proved in the place of the client id that was given: so nobody takes
# another's session or connection, and two processes with one account take it from each other, as they should.
use_username_as_clientid true
acl_file rules
{login}
# TLS: the server's certificate and key are in one file, so that they are renewed in one step.
cafile ca.pem
certfile identity.pem
keyfile identity.pem
tls_version tlsv1.2

# A whole packet. Messages of FedMQ are of 120 KiB at most unless it is told otherwise, and larger limits do no good.
max_packet_size 131072
# So that the aggregator takes what waits for it at once, and not twenty messages at a time.
max_inflight_messages 200
# For each client: what is more is dropped, and FedMQ sends it again. What a flood has left here is in everybody's way.
max_queued_messages 5000
max_queued_bytes 67108864
# The longest time that FedMQ lets anyone be silent.
max_keepalive 1200
max_connections {connections}
# The last line of defence: where it is reached, Mosquitto ends connections.
memory_limit {memory}

# Without it small messages wait 40 ms for an acknowledgement of TCP.
set_tcp_nodelay true

# Retained messages and sessions outlive a restart. What came within the last seconds is lost in a crash, which costs
# the clients one more offer.
persistence true
persistence_location data/
autosave_interval 15
# Sessions of clients that never come back must not fill the disk.
persistent_client_expiration 7d

log_dest stderr
log_type error
log_type warning
log_type notice
"""

_LOGIN: dict[Login, str] = {
    "both": """\
# A login takes a certificate of this authority that is not revoked, and a name with its password.
password_file passwords
require_certificate true
crlfile revoked.pem
""",
    "certificate": """\
# A login takes a certificate of this authority that is not revoked; it says who it is.
require_certificate true
use_identity_as_username true
crlfile revoked.pem
""",
    "password": """\
# A login takes a name with its password.
password_file passwords
""",
}

# Those of devices that were cut off without a word still count for a while, and a broker that has too few turns away
# who comes first.
_CONNECTIONS_EACH = 2
_CONNECTIONS_LEAST = 256


def configuration(record: Record) -> bytes:
    """The file that Mosquitto is started with."""
    connections = _CONNECTIONS_LEAST
    # In steps, because a change of it is seen only after a restart.
    while connections < _CONNECTIONS_EACH * len(record.active):
        connections *= 2
    return _CONFIGURATION.format(
        federation=record.federation,
        port=record.port,
        listen=f" {record.listen}" if record.listen else "",
        login=_LOGIN[record.login],
        connections=connections,
        memory=record.memory_bytes,
    ).encode()
