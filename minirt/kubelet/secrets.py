"""Pull secrets: who a pod is at the registries of its images (imagePullSecrets).

There is no API server here to ask for a Secret. It is a file of the node, put there by its owner, and is the object as
``kubectl get secret NAME -o yaml`` prints it:

    /etc/minirt/secrets/<namespace>/<name>.yaml

    apiVersion: v1
    kind: Secret
    type: kubernetes.io/dockerconfigjson
    data:
      .dockerconfigjson: eyJhdXRocyI6…        base64 of what docker has in its config.json; or in stringData, as it is

Of several that are for a registry the first one is used. One that is not there, or makes no sense, is told of, and the
image pulled without it, as Kubernetes does.

Source: https://kubernetes.io/docs/tasks/configure-pod-container/pull-image-private-registry
"""

import base64
import binascii
from collections.abc import Callable

import msgspec
from msgspec import Struct

from minirt import decoding, paths
from minirt.crimessages import api_pb2 as cri
from minirt.errors import InvalidInput, MinirtError
from minirt.images.credentials import Credentials, of_document
from minirt.images.reference import Reference
from minirt.kubelet.manifest import Pod

KINDS = {"kubernetes.io/dockerconfigjson": ".dockerconfigjson", "kubernetes.io/dockercfg": ".dockercfg"}


class _Secret(Struct, rename="camel"):
    kind: str
    type: str
    data: dict[str, str] = {}
    string_data: dict[str, str] = {}


def for_image(pod: Pod, image: str, warn: Callable[[MinirtError], None]) -> cri.AuthConfig | None:
    """Return what the pod's secrets have for the registry of an image; ``warn`` is told of those that are of no use."""
    for secret in pod.spec.image_pull_secrets:
        try:
            found = _credentials(pod.metadata.namespace, secret.name, Reference.parse(image))
        except MinirtError as error:
            warn(error)
            continue
        if found:
            return cri.AuthConfig(
                username=found.user,
                password=found.password,
                identity_token=found.identity_token,
                registry_token=found.registry_token,
            )
    return None


def _credentials(namespace: str, name: str, reference: Reference) -> Credentials | None:
    path = paths.secrets_dir() / namespace / f"{name}.yaml"
    what = f"use the pull secret {namespace}/{name}"
    try:
        secret = decoding.convert(msgspec.yaml.decode(path.read_bytes()), _Secret)
        if secret.type not in KINDS:
            raise InvalidInput(what, f"its type is {secret.type}", f"it is to be {' or '.join(KINDS)}")
        document = _document(secret, what)
    except OSError as error:
        raise InvalidInput(what, f"{path}: {error.strerror}", "put the Secret there") from error
    except (msgspec.DecodeError, UnicodeDecodeError, binascii.Error) as error:
        raise InvalidInput(what, f"{path}: {error}", "write it as kubectl get secret -o yaml does") from error
    return of_document(document, reference.registry, reference.repository, str(path))


def _document(secret: _Secret, what: str) -> str:
    """Return a Secret's content as docker's config.json; the older form is what that has in ``auths``."""
    key = KINDS[secret.type]
    if key not in secret.data and key not in secret.string_data:
        raise InvalidInput(what, f"it has no {key}", "see kubectl create secret docker-registry")
    text = secret.string_data.get(key) or base64.b64decode(secret.data[key], validate=True).decode()
    return text if key == ".dockerconfigjson" else f'{{"auths": {text}}}'
