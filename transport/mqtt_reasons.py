"""Why a connection could not be made or ended, for people: what happened and, where it helps, what to do."""

from __future__ import annotations

import errno
import re
import socket
import ssl
import time

from fedmq.transport.mqtt_socket import PacketTooLargeError

__all__ = [
    "CUT_AGAIN",
    "LOGIN_REFUSED",
    "PACKET_TOO_LARGE",
    "TAKEN_OVER",
    "UNSUPPORTED_VERSION",
    "broker_said",
    "connection_said",
    "is_of_login",
    "network_said",
]

UNSUPPORTED_VERSION = 0x84
LOGIN_REFUSED = (0x86, 0x87)
TAKEN_OVER = 0x8E
PACKET_TOO_LARGE = 0x95

CUT_AGAIN = "look for another process with this client id, a message larger than it takes, and into its log"
"""What to do about a broker that cuts a connection again and again. The first time its next answer says more."""

_PLACE = re.compile(r" *\(_ssl\.c:\d+\)")  # in Python's source, which says nothing to people
# Of OpenSSL, which looks at the clock: what is wrong with a certificate that is right at another time.
_AT_ANOTHER_TIME = {9: "is not valid yet", 10: "has ended"}

# By MQTT 5 reason code; paho translates the return codes of 3.1.1 into these.
_ADVICE = {
    0x84: "it does not speak this version of MQTT",
    0x85: "it does not accept this client id",
    0x86: "check username and password",
    0x87: "check username, password and the broker's access rules",
    0x88: "it is not ready; trying again",
    0x89: "it is busy; trying again",
    0x8A: "the broker's operator has banned this client",
    0x8B: "trying again",
    0x8D: "it heard nothing in 1.5 times keepalive_seconds; was this process stopped for long?",
    0x8E: "another connection took over this client id; give every process its own",
    0x93: "too many publishes are waiting for its acknowledgement",
    0x95: "a message was larger than it takes; raise its packet limit or lower max_message_bytes",
    0x97: "a quota of the broker is used up",
    0x98: "the broker's operator ended the connection",
    0x9A: "FedMQ needs retained messages; allow them on the broker",
    0x9B: "FedMQ needs QoS 1; allow it on the broker",
    0x9F: "it limits the rate of connections; trying again",
}


def broker_said(doing: str, where: str, code: int, name: str) -> str:
    """What a reason code of the broker means.

    Args:
        doing: what the broker did, such as "refused the connection".
        where: its address.
        code: the MQTT 5 reason code.
        name: the code's name in the MQTT 5 standard.

    """
    advice = _ADVICE.get(code)
    return f"the broker at {where} {doing}: {name.lower()} (0x{code:02X})" + (f"; {advice}" if advice else "")


def network_said(error: Exception, where: str) -> str:
    """What an error of name resolution, TCP or TLS means for someone who wants to reach a broker at `where`."""
    match error:
        case ssl.SSLCertVerificationError() if error.verify_code in _AT_ANOTHER_TIME:
            return (
                f"the certificate of {where}, or of its authority, {_AT_ANOTHER_TIME[error.verify_code]} by this "
                f"machine's clock, on which it is {time.strftime('%Y-%m-%d', time.gmtime())}; set the clock if that is "
                "wrong, else have the certificate renewed where it was made"
            )
        case ssl.SSLCertVerificationError():
            return (
                f"the certificate of {where} is not trusted: {error.verify_message.rstrip('.')}; "
                "set ca_file to the authority that signed it, and connect by a name that it contains"
            )
        case ssl.SSLError() if is_of_login(error):
            return f"the broker at {where} says that this certificate is revoked"
        case ssl.SSLError() if "CERTIFICATE_EXPIRED" in (getattr(error, "reason", None) or ""):
            return (
                f"the broker at {where} says that this certificate has ended, by its clock; put a renewed one in its "
                "place, which counts from the next attempt"
            )
        case ssl.SSLError():
            said = getattr(error, "reason", None) or _PLACE.sub("", error.strerror or str(error))
            detail = said.lower().replace("_", " ")
            return f"TLS with {where} failed: {detail}; is it a TLS port, and does the broker accept this certificate?"
        case socket.gaierror() | UnicodeError():
            return f"the broker's name in {where} cannot be resolved; check its spelling and this machine's DNS"
        case ConnectionRefusedError():
            return f"no broker answers at {where}; is it running?"
        case TimeoutError():
            return f"no answer from {where} in time; is the address right, and does a firewall drop the packets?"
        case ConnectionResetError() | BrokenPipeError() | ConnectionAbortedError():
            return f"the connection to the broker at {where} was cut"
        case OSError() if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN):
            return f"no network path to {where}; is this machine online?"
        case OSError():
            return f"the connection to {where} failed: {error.strerror or error}"
    return f"the connection to {where} failed: {error}"


def is_of_login(failure: Exception) -> bool:
    """Whether the broker does not take this certificate."""
    return isinstance(failure, ssl.SSLError) and "CERTIFICATE_REVOKED" in (getattr(failure, "reason", None) or "")


def connection_said(failure: Exception, where: str, *, accepted: bool) -> str:
    """What broke a connection that was made.

    Args:
        failure: what reading or writing raised; EOFError when the peer closed.
        where: the broker's address.
        accepted: whether the broker had accepted it.

    """
    match failure:
        case PacketTooLargeError():
            advice = "raise max_message_bytes, or find out who publishes such messages"
            return f"the broker at {where} was about to send {failure}; {advice}"
        case EOFError() | ConnectionError() if accepted:
            return f"the broker at {where} closed the connection without saying why"
        case EOFError() | ConnectionError():
            return f"{where} closed the connection instead of answering; is it an MQTT broker, and this its port?"
    return network_said(failure, where)
