"""The Python client (PyPI `kubernetes`) with a cluster, whose kubeconfig is the argument: a function a subject.

Exits with a traceback where an answer is not what Kubernetes gives.
"""

import os
import sys
import threading
import time
import uuid

from kubernetes import client, config, dynamic, utils, watch
from kubernetes.client.rest import ApiException
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.configmaplock import ConfigMapLock
from kubernetes.stream import portforward, stream

PATIENCE = 60


def wait_for(what, holds):
    end = time.monotonic() + PATIENCE
    while not (found := holds()):
        assert time.monotonic() < end, f"not within {PATIENCE} s: {what}"
        time.sleep(0.05)
    return found


def refused(code, reason, call):
    """The Status of a call that must fail."""
    try:
        call()
    except ApiException as error:
        assert (error.status, error.reason) == (code, reason), error
        return error.body
    raise AssertionError(f"it must be refused with {code} {reason}")


def config_map(name, **data):
    metadata = client.V1ObjectMeta(name=name, labels={"of": "python"})
    return client.V1ConfigMap(metadata=metadata, data=data)


def list_and_watch(core):
    """A watch that ends by its time-out, one that resumes, pages, and one whose version is too old."""
    for number in range(5):
        core.create_namespaced_config_map("default", config_map(f"m{number}", n=str(number)))
    page = core.list_namespaced_config_map("default", label_selector="of=python", limit=2)
    names = [item.metadata.name for item in page.items]
    assert page.metadata.remaining_item_count is None, "it is not counted with selectors"
    while page.metadata._continue:
        page = core.list_namespaced_config_map(
            "default", label_selector="of=python", limit=2, _continue=page.metadata._continue
        )
        names += [item.metadata.name for item in page.items]
    assert names == [f"m{number}" for number in range(5)], names

    seen = []
    watcher = watch.Watch()
    for event in watcher.stream(
        core.list_namespaced_config_map, "default", label_selector="of=python", timeout_seconds=2
    ):
        seen.append((event["type"], event["object"].metadata.name))
        if len(seen) == 5:
            core.patch_namespaced_config_map("m1", "default", {"data": {"n": "one"}})
            core.delete_namespaced_config_map("m2", "default")
            core.patch_namespaced_config_map("m3", "default", {"metadata": {"labels": {"of": None}}})
    added = [("ADDED", f"m{number}") for number in range(5)]
    assert seen == added + [("MODIFIED", "m1"), ("DELETED", "m2"), ("DELETED", "m3")], seen

    core.patch_namespaced_config_map("m4", "default", {"data": {"n": "four"}})
    resumed = watch.Watch()
    for event in resumed.stream(
        core.list_namespaced_config_map,
        "default",
        label_selector="of=python",
        resource_version=watcher.resource_version,
        timeout_seconds=PATIENCE,
    ):
        assert (event["type"], event["object"].data["n"]) == ("MODIFIED", "four"), event
        resumed.stop()

    future = lambda: core.list_namespaced_config_map("default", resource_version=str(10**12))
    assert "Too large resource version" in refused(504, "Gateway Timeout", future)


def patches(core, apps):
    """A patch of each type, of an object and of its scale."""
    labels = {"app": "patched"}
    container = client.V1Container(name="c", image="nginx:1", env=[client.V1EnvVar(name="A", value="a")])
    template = client.V1PodTemplateSpec(
        metadata=client.V1ObjectMeta(labels=labels), spec=client.V1PodSpec(containers=[container])
    )
    spec = client.V1DeploymentSpec(
        replicas=1, selector=client.V1LabelSelector(match_labels=labels), template=template
    )
    metadata = client.V1ObjectMeta(name="patched")
    apps.create_namespaced_deployment("default", client.V1Deployment(metadata=metadata, spec=spec))

    def patch(body, **options):
        return apps.patch_namespaced_deployment("patched", "default", body, **options)

    # A dict is sent as a strategic merge patch: containers and variables are merged by name.
    env = [{"name": "B", "value": "b"}]
    after = patch({"spec": {"template": {"spec": {"containers": [{"name": "c", "env": env}]}}}})
    container = after.spec.template.spec.containers[0]
    assert container.image == "nginx:1", container
    assert [variable.name for variable in container.env] == ["B", "A"], container.env
    # A list is a JSON patch.
    after = patch([{"op": "replace", "path": "/spec/replicas", "value": 2}])
    assert after.spec.replicas == 2
    missing = [{"op": "test", "path": "/spec/replicas", "value": 5}]
    refused(422, "Unprocessable Entity", lambda: patch(missing))
    after = patch({"metadata": {"annotations": {"a": "b"}}}, _content_type="application/merge-patch+json")
    assert after.metadata.annotations["a"] == "b"
    applied = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "patched"},
        "spec": {"replicas": 3},
    }
    options = {"_content_type": "application/apply-patch+yaml", "field_manager": "python"}
    assert "conflict with" in refused(409, "Conflict", lambda: patch(applied, **options))
    after = patch(applied, force=True, **options)
    assert "python" in [entry.manager for entry in after.metadata.managed_fields]
    scale = apps.patch_namespaced_deployment_scale("patched", "default", {"spec": {"replicas": 1}})
    assert scale.spec.replicas == 1
    assert apps.read_namespaced_deployment("patched", "default").spec.replicas == 1
    dry = apps.patch_namespaced_deployment_scale(
        "patched", "default", {"spec": {"replicas": 9}}, dry_run="All"
    )
    assert dry.spec.replicas == 9
    assert apps.read_namespaced_deployment_scale("patched", "default").spec.replicas == 1
    apps.delete_namespaced_deployment("patched", "default", propagation_policy="Foreground")
    gone = lambda: "patched" not in [d.metadata.name for d in apps.list_namespaced_deployment("default").items]
    wait_for("the Deployment is deleted after its pods", gone)
    assert not core.list_namespaced_pod("default", label_selector="app=patched").items


DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "buoys.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "buoys", "singular": "buoy", "kind": "Buoy", "shortNames": ["by"]},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "properties": {"depth": {"type": "integer", "default": 7, "minimum": 1}},
                            },
                            "status": {
                                "type": "object",
                                "x-kubernetes-preserve-unknown-fields": True,
                            },
                        },
                    }
                },
            }
        ],
    },
}


def custom_resources(api):
    """The dynamic client and the one for custom objects."""
    resources = dynamic.DynamicClient(api)
    definitions = resources.resources.get(
        api_version="apiextensions.k8s.io/v1", kind="CustomResourceDefinition"
    )
    definitions.create(body=DEFINITION)

    def established():
        conditions = definitions.get(name="buoys.example.com").to_dict().get("status", {}).get("conditions", [])
        return ("Established", "True") in [(c["type"], c["status"]) for c in conditions]

    wait_for("the definition is established", established)
    # Discovery is cached in a file and asked again when a kind is not there.
    buoys = wait_for("the kind is discovered", lambda: find(resources, "example.com/v1", "Buoy"))
    assert (buoys.name, buoys.short_names, "status" in buoys.subresources) == ("buoys", ["by"], True)

    buoy = {"apiVersion": "example.com/v1", "kind": "Buoy", "metadata": {"name": "b"}, "spec": {}}
    made = buoys.create(body=buoy, namespace="default")
    assert made.spec.depth == 7, made
    body = {"spec": {"depth": 0}}
    merge = "application/merge-patch+json"
    why = refused_by(dynamic.exceptions.UnprocessibleEntityError, lambda: buoys.patch(
        body=body, name="b", namespace="default", content_type=merge
    ))
    assert "spec.depth in body should be greater than or equal to 1" in why, why
    buoys.status.patch(body={"status": {"lit": True}}, name="b", namespace="default", content_type=merge)
    applied = {**buoy, "spec": {"depth": 9}}
    after = buoys.server_side_apply(
        body=applied, name="b", namespace="default", field_manager="python", force_conflicts=True
    )
    assert (after.spec.depth, after.status.lit) == (9, True), after
    events = buoys.watch(namespace="default", resource_version="0", timeout=1)
    assert [(event["type"], event["object"].spec.depth) for event in events] == [("ADDED", 9)]
    # No strategic merge for what has no such types.
    strategic = "application/strategic-merge-patch+json"
    failed = lambda: buoys.patch(body={}, name="b", namespace="default", content_type=strategic)
    refused_by(dynamic.exceptions.UnsupportedMediaTypeError, failed) if hasattr(
        dynamic.exceptions, "UnsupportedMediaTypeError"
    ) else refused_by(dynamic.exceptions.DynamicApiError, failed)

    custom = client.CustomObjectsApi(api)
    listed = custom.list_namespaced_custom_object("example.com", "v1", "default", "buoys")
    assert listed["kind"] == "BuoyList" and len(listed["items"]) == 1, listed
    replaced = {**listed["items"][0], "spec": {"depth": 3}}
    replaced["metadata"]["resourceVersion"] = "1"
    stale = lambda: custom.replace_namespaced_custom_object(
        "example.com", "v1", "default", "buoys", "b", replaced
    )
    assert "the object has been modified" in refused(409, "Conflict", stale)
    buoys.delete(name="b", namespace="default")
    definitions.delete(name="buoys.example.com")
    gone = lambda: refused_by(dynamic.exceptions.NotFoundError, lambda: buoys.get(namespace="default"))
    wait_for("the resource is not served any longer", lambda: quietly(gone))


def find(resources, api_version, kind):
    try:
        return resources.resources.get(api_version=api_version, kind=kind)
    except dynamic.exceptions.ResourceNotFoundError:
        return None


def quietly(check):
    try:
        check()
        return True
    except AssertionError:
        return False


def refused_by(error, call):
    """What the server says in an error of the dynamic client."""
    try:
        call()
    except error as refusal:
        return refusal.summary()
    raise AssertionError(f"it must be refused by {error.__name__}")


def leader_election(api):
    """Two candidates: the second leads once the first has let its lease go."""
    led = []
    first_leads, second_leads, may_stop = threading.Event(), threading.Event(), threading.Event()

    def candidate(name, started):
        lock = ConfigMapLock("python-leader", "default", name)
        onstarted = lambda: (led.append(name), started.set(), may_stop.wait(PATIENCE))
        chosen = electionconfig.Config(
            lock,
            lease_duration=4,
            renew_deadline=3,
            retry_period=1.1,
            onstarted_leading=onstarted,
            onstopped_leading=lambda: None,
        )
        return leaderelection.LeaderElection(chosen)

    first, second = candidate(f"first-{uuid.uuid4()}", first_leads), candidate("second", second_leads)
    # Each runs for ever: daemons end with the process.
    for election, event in ((first, first_leads), (second, None)):
        threading.Thread(target=election.run, daemon=True).start()
        if event:
            assert event.wait(PATIENCE), "nobody leads"
    time.sleep(1)
    assert not second_leads.is_set(), "there are two leaders"
    # Somebody who never renews takes the lease; the second takes it over after it has run out.
    core = client.CoreV1Api(api)
    record = core.read_namespaced_config_map("python-leader", "default")
    assert led[0] in record.metadata.annotations["control-plane.alpha.kubernetes.io/leader"]
    first.election_config.lock.update = lambda *_: (False, None)
    assert second_leads.wait(PATIENCE), "the second never leads"
    may_stop.set()


def look_inside(core):
    """Logs as a stream, commands by WebSocket with input and an exit code, and a forwarded port."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "inside"},
        "spec": {"containers": [{"name": "c", "image": "nginx:1", "ports": [{"containerPort": 80}]}]},
    }
    core.create_namespaced_pod("default", pod)
    running = lambda: core.read_namespaced_pod("inside", "default").status.phase == "Running"
    wait_for("the pod runs", running)
    followed = core.read_namespaced_pod_log("inside", "default", follow=True, _preload_content=False)
    line = followed.readline().decode()
    assert "is simulated" in line, line
    followed.close()
    lines = watch.Watch().stream(core.read_namespaced_pod_log, "inside", "default", follow=True)
    assert "is simulated" in next(lines)

    command = ["sh", "-c", "echo out; echo err >&2; cat; exit 4"]
    options = {"command": command, "stdin": True, "stdout": True, "stderr": True, "tty": False}
    inside = stream(
        core.connect_get_namespaced_pod_exec, "inside", "default", _preload_content=False, **options
    )
    inside.write_stdin("typed\n")
    inside.update(timeout=5)
    assert inside.readline_stdout(timeout=PATIENCE) == "out"
    assert inside.readline_stderr(timeout=PATIENCE) == "err"
    assert inside.readline_stdout(timeout=PATIENCE) == "typed"
    inside.close()
    options.update(command=["sh", "-c", "echo out; exit 4"], stdin=False)
    inside = stream(
        core.connect_get_namespaced_pod_exec, "inside", "default", _preload_content=False, **options
    )
    inside.run_forever(timeout=PATIENCE)
    assert (inside.read_stdout(), inside.returncode) == ("out\n", 4)

    forwarded = portforward(core.connect_get_namespaced_pod_portforward, "inside", "default", ports="80")
    socket = forwarded.socket(80)
    socket.setblocking(True)
    socket.sendall(b"GET / HTTP/1.1\r\nHost: c\r\n\r\n")
    answer = b""
    while not answer.endswith(b"GET /\n"):
        part = socket.recv(1024)
        assert part, answer
        answer += part
    socket.close()
    core.delete_namespaced_pod("inside", "default", grace_period_seconds=0)


def other_calls(api, core):
    """What scripts do: objects from a dict, evictions, tokens, reviews, the version, the cluster's nodes."""
    assert client.VersionApi(api).get_code().minor == "36"
    utils.create_from_dict(api, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "python"}})
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "evicted"},
        "spec": {"containers": [{"name": "c", "image": "nginx:1"}]},
    }
    utils.create_from_dict(api, pod, namespace="python")
    eviction = client.V1Eviction(metadata=client.V1ObjectMeta(name="evicted", namespace="python"))
    core.create_namespaced_pod_eviction("evicted", "python", eviction)
    wait_for("the pod is evicted", lambda: not core.list_namespaced_pod("python").items)
    request = client.AuthenticationV1TokenRequest(spec=client.V1TokenRequestSpec(audiences=[], expiration_seconds=600))
    token = core.create_namespaced_service_account_token("default", "python", request).status.token
    review = client.V1TokenReview(spec=client.V1TokenReviewSpec(token=token))
    user = client.AuthenticationV1Api(api).create_token_review(review).status.user
    assert user.username == "system:serviceaccount:python:default", user
    nodes = core.list_node().items
    assert nodes and all(node.status.node_info.kubelet_version.startswith("v1.36") for node in nodes)
    core.delete_namespace("python")
    wait_for("the namespace is gone", lambda: "python" not in [n.metadata.name for n in core.list_namespace().items])


def main():
    config.load_kube_config(sys.argv[1])
    api = client.ApiClient()
    core = client.CoreV1Api(api)
    for name, subject in (
        ("list and watch", lambda: list_and_watch(core)),
        ("patches", lambda: patches(core, client.AppsV1Api(api))),
        ("custom resources", lambda: custom_resources(api)),
        ("leader election", lambda: leader_election(api)),
        ("logs, exec, port-forward", lambda: look_inside(core)),
        ("other calls", lambda: other_calls(api, core)),
    ):
        begun = time.monotonic()
        subject()
        print(f"well: {name} ({time.monotonic() - begun:.1f} s)", flush=True)
    # At once: an interpreter that ends in order can crash over the threads of the elections, which never end.
    os._exit(0)


if __name__ == "__main__":
    main()
