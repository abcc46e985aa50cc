import pytest

from minirt.errors import InvalidInput
from minirt.kubelet import loading
from tests.unit.kubelet.pods import container, document, pod

MOUNT = {"name": "work", "mountPath": "/work"}
WORK = [{"name": "work", "emptyDir": {}}]
IMAGE = [{"name": "image", "image": {"reference": "models:1"}}]


def secure(**fields: object) -> dict[str, object]:
    return container(securityContext=fields)


def mounting(path: str, name: str = "image", **more: object) -> dict[str, object]:
    return container(volumeMounts=[{"name": name, "mountPath": "/m", "subPath": path} | more])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (document(metadata={"name": "Hello"}), "metadata.name (line 4): 'Hello' is not a pod's name"),
        (document(metadata={"namespace": "a.b"}), "'a.b' is not a namespace's name"),
        (document(metadata={"uid": "../x"}), "'../x' is not a uid"),
        (document(container("a_b")), "'a_b' is not a container's name"),
        (document(container("x" * 64)), "is not a container's name"),
        (document(container(), container()), "'main' is another container's name too"),
        (document(initContainers=[container()]), "'main' is another container's name too"),
        (document(container(image="")), "'' is not an image's name"),
        (document(container(image=" x")), "' x' is not an image's name"),
        (document(container(workingDir="tmp")), "'tmp' is not an absolute path"),
        (document(terminationGracePeriodSeconds=-1), "is negative"),
        (document(hostname="a.b"), "'a.b' is not a host's name"),
        (document(hostPID=True, shareProcessNamespace=True), "excludes hostPID"),
        (document(dnsPolicy="None"), "is empty, and dnsPolicy is None"),
        (document(dnsConfig={"nameservers": ["dns"]}), "'dns' is not an IP address"),
        (document(hostAliases=[{"ip": "300.0.0.1"}]), "'300.0.0.1' is not an IP address"),
        (document(container(ports=[{"containerPort": 0}])), "0 is not a port"),
        (document(container(ports=[{"containerPort": 1, "hostPort": 65536}])), "65536 is not a port"),
        (document(container(ports=[{"containerPort": 1, "hostIP": "x"}])), "'x' is not an IP address"),
        (
            document(container(ports=[{"containerPort": 1, "hostPort": 2}]), hostNetwork=True),
            "must be the containerPort",
        ),
        (document(container(volumeMounts=[MOUNT])), "there is no volume 'work' (there is: none)"),
        (document(container(volumeMounts=[MOUNT, MOUNT]), volumes=WORK), "/work is mounted on twice"),
        (document(container(volumeMounts=[MOUNT | {"mountPath": "work"}]), volumes=WORK), "'work' is not an absolute"),
        (document(container(volumeMounts=[MOUNT | {"mountPath": "/"}]), volumes=WORK), "'/' is not an absolute"),
        (document(container(volumeMounts=[MOUNT | {"mountPath": "/a/../b"}]), volumes=WORK), "without '..'"),
        (
            document(container(volumeMounts=[MOUNT | {"mountPropagation": "Bidirectional"}]), volumes=WORK),
            "Bidirectional is for privileged containers only",
        ),
        (document(secure(seccompProfile={"type": "Localhost"})), "localhostProfile (line"),
        (document(secure(seccompProfile={"type": "Localhost", "localhostProfile": "/x"})), "without '..'"),
        (document(secure(seccompProfile={"type": "Localhost", "localhostProfile": "a/../../x"})), "without '..'"),
        (document(secure(seccompProfile={"type": "Unconfined", "localhostProfile": "x"})), "and for no other"),
        (document(securityContext={"seccompProfile": {"type": "Localhost"}}), "it must be set for type Localhost"),
        (document(volumes=[*WORK, *WORK]), "'work' is another volume's name too"),
        (document(volumes=[{"name": "work"}]), "a volume has exactly one source"),
        (document(volumes=[WORK[0] | {"hostPath": {"path": "/x"}}]), "a volume has exactly one source"),
        (document(volumes=[WORK[0] | IMAGE[0]]), "a volume has exactly one source"),
        (document(volumes=[{"name": "x", "image": {"reference": ""}}]), "'' is not an image's name"),
        (document(mounting("/x"), volumes=IMAGE), "'/x' is not a relative path without '..'"),
        (document(mounting("a/../.."), volumes=IMAGE), "'a/../..' is not a relative path without '..'"),
        (document(mounting("", mountPropagation="Bidirectional"), volumes=IMAGE), "an image's files are read-only"),
        (document(mounting("a", "work"), volumes=WORK), "of another volume than an image's is not supported yet"),
        (document(volumes=[{"name": "a.b", "emptyDir": {}}]), "'a.b' is not a volume's name"),
        (document(volumes=[{"name": "a", "hostPath": {"path": "x"}}]), "'x' is not an absolute path without '..'"),
        (document(volumes=[{"name": "a", "hostPath": {"path": "/x/.."}}]), "without '..'"),
        (document(volumes=[{"name": "a", "emptyDir": {"sizeLimit": 0}}]), "0 is not above 0"),
        (
            document(volumes=[{"name": "a", "emptyDir": {"sizeLimit": "1Mi"}}]),
            "for a directory on disk (give it medium",
        ),
        (document(container(resources={"limits": {"cpu": "-1"}})), "-1 is negative"),
        (document(container(resources={"limits": {"memory": "64m"}})), "(m is milli) (did you mean 64Mi?)"),
        (document(container(resources={"limits": {"memory": "1.5"}})), "1.5 is a fraction of a byte"),
        (
            document(container(resources={"limits": {"cpu": 1}, "requests": {"cpu": "1500m"}})),
            "1500m is more than the limit, 1",
        ),
        (document(secure(runAsUser=-1)), "-1 is not an id"),
        (document(securityContext={"runAsGroup": 2**31}), "2147483648 is not an id"),
        (document(securityContext={"fsGroup": -5}), "-5 is not a group id"),
        (document(securityContext={"supplementalGroups": [1, -5]}), "supplementalGroups[1] (line"),
        (document(secure(capabilities={"add": ["CAP_CHOWN"]})), "did you mean CHOWN?"),
        (document(secure(capabilities={"drop": ["net admin"]})), "'net admin' is not a capability's name"),
        (document(secure(allowPrivilegeEscalation=False, privileged=True)), "false has no meaning"),
        (
            document(secure(allowPrivilegeEscalation=False, capabilities={"add": ["SYS_ADMIN"]})),
            "false has no meaning",
        ),
        (
            document(hostNetwork=True, securityContext={"sysctls": [{"name": "net.ipv4.tcp_wmem", "value": "1"}]}),
            "would be the host's",
        ),
        (document(container(env=[{"name": "A=B"}])), "'A=B' is not a variable's name"),
        (document(container(env=[{"name": ""}])), "'' is not a variable's name"),
        (
            document(container(env=[{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "x"}}}])),
            "has both value and valueFrom",
        ),
        (document(container(env=[{"name": "A", "valueFrom": {}}])), "a variable has exactly one source"),
        (
            document(container(env=[{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.x"}}}])),
            "'spec.x' is not a field that a variable can have",
        ),
        (
            document(
                container(
                    env=[
                        {
                            "name": "A",
                            "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "containerName": "b"}},
                        }
                    ]
                )
            ),
            "there is no container 'b'",
        ),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: []}", "spec.containers (line 4) is empty"),
    ],
)
def test_it_is_refused_with_its_path(text: str, said: str) -> None:
    with pytest.raises(InvalidInput) as error:
        loading.loads(text, "pod.yaml")
    assert said in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        document(metadata={"name": "a.b-c.d"}),
        document(container(volumeMounts=[MOUNT | {"mountPath": "/a/b/"}]), volumes=WORK),
        document(container(resources={"requests": {"cpu": 1}, "limits": {"cpu": "1000m"}})),
        document(container(resources={"requests": {"memory": 5}})),
        document(secure(capabilities={"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]})),
        document(container(ports=[{"containerPort": 80, "hostPort": 80}]), hostNetwork=True),
        document(container(env=[{"name": "a.b-c", "value": ""}])),
        document(volumes=[{"name": "a", "hostPath": {"path": "/..a/b..c"}}]),
        document(securityContext={"sysctls": [{"name": "net/ipv4/tcp_wmem", "value": "1"}]}),
    ],
)
def test_what_kubernetes_takes_is_taken(text: str) -> None:
    assert loading.loads(text, "pod.yaml")


def test_a_container_knows_its_place() -> None:
    found = pod(container("a"), container("b"), initContainers=[container("i")])
    assert [found.path_of(each) for each in found.all_containers] == [
        "spec.initContainers[0]",
        "spec.containers[0]",
        "spec.containers[1]",
    ]
