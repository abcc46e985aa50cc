"""How a remote command ended, as Kubernetes writes it on the error channel: a Status in JSON.

Source: k8s.io/apimachinery, meta/v1.Status; k8s.io/apimachinery/pkg/util/remotecommand
"""

import json
from typing import Any


def text_of(status: bytes) -> bytes:
    """Return what the error channel has in versions before v4: a failure's message, nothing of a success."""
    message: str = json.loads(status).get("message", "")
    return message.encode()


def of_exit(code: int) -> bytes:
    """Return the status of a command that has ended with an exit code."""
    if code == 0:
        return success()
    return _failure(
        f"command terminated with non-zero exit code: exit status {code}",
        "NonZeroExitCode",
        [{"reason": "ExitCode", "message": str(code)}],
    )


def success() -> bytes:
    """Return the status of what went well."""
    return json.dumps({"metadata": {}, "status": "Success"}).encode()


def of_error(message: str) -> bytes:
    """Return the status of a command that could not be executed, or whose fate is unknown."""
    return _failure(message, "InternalError", [{"message": message}], code=500)


def _failure(message: str, reason: str, causes: list[dict[str, str]], **more: Any) -> bytes:
    status = {"metadata": {}, "status": "Failure", "message": message, "reason": reason, "details": {"causes": causes}}
    return json.dumps(status | more).encode()
