"""What Kubernetes has and this version does not do: the names that are refused, and the few that are passed over.

The rule: a field either does here what it does in Kubernetes, or the manifest that has it is refused. Passed over, with
a word to the user, is only what widens a scheduler's choice or speaks to an API server, since neither is here: the pod
runs as it would there. What narrows a choice (nodeSelector, affinity) is refused, for nobody here checks it.
Passed over in silence is what an API server writes into an object and nobody acts upon.
"""

from msgspec import Struct

from minirt.kubelet import manifest

_REFUSED: dict[type[Struct], str] = {
    manifest.Pod: "",
    manifest.ObjectMeta: "generateName",
    manifest.PodSpec: """activeDeadlineSeconds affinity ephemeralContainers hostnameOverride nodeName
        nodeSelector os overhead readinessGates resourceClaims resources schedulingGates
        setHostnameAsFQDN subdomain topologySpreadConstraints workloadRef""",
    manifest.Container: """envFrom lifecycle livenessProbe readinessProbe resizePolicy restartPolicy restartPolicyRules
        startupProbe terminationMessagePath terminationMessagePolicy volumeDevices""",
    manifest.EnvVarSource: "configMapKeyRef secretKeyRef fileKeyRef",
    manifest.ResourceList: "ephemeral-storage hugepages-2Mi hugepages-1Gi",
    manifest.ResourceRequirements: "claims",
    manifest.SecurityContext: "procMount seLinuxOptions windowsOptions",
    manifest.PodSecurityContext: """fsGroupChangePolicy seLinuxChangePolicy seLinuxOptions
        supplementalGroupsPolicy windowsOptions""",
    manifest.VolumeMount: "recursiveReadOnly subPathExpr",
    manifest.Volume: """awsElasticBlockStore azureDisk azureFile cephfs cinder configMap csi downwardAPI ephemeral fc
        flexVolume flocker gcePersistentDisk gitRepo glusterfs iscsi nfs persistentVolumeClaim
        photonPersistentDisk portworxVolume projected quobyte rbd scaleIO secret storageos vsphereVolume""",
}

_PASSED_OVER: dict[type[Struct], str] = {
    manifest.PodSpec: """automountServiceAccountToken enableServiceLinks preemptionPolicy priority priorityClassName
        schedulerName serviceAccount serviceAccountName tolerations""",
}

_SILENT: dict[type[Struct], str] = {
    manifest.Pod: "status",
    manifest.ObjectMeta: """creationTimestamp deletionGracePeriodSeconds deletionTimestamp finalizers generation
        managedFields ownerReferences resourceVersion selfLink""",
}


def refused(of: type[Struct]) -> frozenset[str]:
    """Return the fields of Kubernetes' type that are refused by name."""
    return frozenset(_REFUSED.get(of, "").split())


def passed_over(of: type[Struct]) -> frozenset[str]:
    """Return the fields that mean nothing here, which the user is told."""
    return frozenset(_PASSED_OVER.get(of, "").split())


def silent(of: type[Struct]) -> frozenset[str]:
    """Return the fields that an API server wrote."""
    return frozenset(_SILENT.get(of, "").split())
