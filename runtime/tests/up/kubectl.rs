//! kubectl with a cluster: the output of everyday commands. Runs each binary that `KUBECTL` names, separated as in
//! `PATH`, or else the one on the path; says that it is skipped if there is none.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::client::{Cluster, required, scratch};
use crate::golden::{Recorder, Session, recording};

struct Kubectl<'a> {
    binary: PathBuf,
    cluster: &'a Cluster,
    cache: PathBuf,
    /// What notes its requests on their way.
    recorder: Option<&'a Recorder>,
}

/// The kubectl binaries. `KUBECTL` must not name a dispatcher, which asks the server first and then runs another one.
fn binaries() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = std::env::split_paths(&path).map(|dir| dir.join("kubectl")).find(|file| file.is_file());
    match (std::env::var_os("KUBECTL"), installed) {
        (None, Some(installed)) => vec![installed],
        _ => required("KUBECTL").iter().flat_map(std::env::split_paths).collect(),
    }
}

impl Kubectl<'_> {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--kubeconfig").arg(&self.cluster.kubeconfig).arg("--cache-dir").arg(&self.cache);
        if let Some(recorder) = self.recorder {
            let title = args.join(" ").replace('\n', "\\n");
            recorder.case(&title.replace(&*self.cache.to_string_lossy(), "DIR"));
            command.arg("--server").arg(&recorder.url);
        }
        command.args(args);
        command
    }

    /// What follows is this part of the day.
    fn section(&self, name: &str) {
        if let Some(recorder) = self.recorder {
            recorder.section(name);
        }
    }

    fn run(&self, args: &[&str], input: &str) -> (bool, String) {
        let mut command = self.command(args);
        let file = self.cache.join("input.yaml");
        std::fs::write(&file, input).expect("it can be written");
        command.stdin(std::fs::File::open(&file).expect("it was just written"));
        let output = command.output().expect("kubectl runs");
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }

    /// Runs a command that must succeed, and returns its output.
    fn well(&self, args: &[&str], input: &str) -> String {
        let (well, text) = self.run(args, input);
        assert!(well, "kubectl {}: {text}", args.join(" "));
        text
    }

    /// Runs a command and checks that its output contains these parts, in any order.
    fn check(&self, line: &str, parts: &[&str]) {
        let args: Vec<&str> = line.split(' ').collect();
        let text = self.well(&args, "");
        for part in parts {
            assert!(text.contains(part), "kubectl {line}: {part:?} is not in\n{text}");
        }
    }
}

const MAP: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: shared}
data: {colour: red}
";

impl Kubectl<'_> {
    /// `kubectl explain` for built-in and custom types.
    fn explain(&self) {
        self.check("explain pod.spec.containers", &["KIND:       Pod", "image\t<string>", "ports\t<[]ContainerPort>"]);
        let (of_field, of_type) =
            ("Specification of the desired behavior of the pod.", "PodSpec is a description of a pod.");
        self.check("explain pod.spec", &[of_field, of_type, "Restart policy for all containers within the pod."]);
        self.check("explain job.spec.backoffLimit", &["the number of retries before marking this job failed."]);
        self.check(
            "explain deployment --recursive",
            &["GROUP:      apps", "rollingUpdate", "maxSurge", "livenessProbe"],
        );
        let definition = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: boats.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: boats, kind: Boat}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties: {spec: {type: object, properties: {length: {type: integer, description: From bow to stern.}}}}
";
        self.well(&["apply", "-f", "-"], definition);
        self.check("wait --for=condition=Established crd/boats.example.com --timeout=60s", &["condition met"]);
        self.check("explain boats.spec", &["KIND:       Boat", "length\t<integer>", "From bow to stern."]);
        let boat = "apiVersion: example.com/v1\nkind: Boat\nmetadata: {name: b}\nspec: {lenght: 3}\n";
        let (well, text) = self.run(&["create", "-f", "-"], boat);
        assert!(!well && text.contains("unknown field \"spec.lenght\""), "{text}");
        self.well(&["apply", "--server-side", "-f", "-"], &boat.replace("lenght", "length"));
        // What is not served is looked up in OpenAPI v2.
        let raft = "apiVersion: example.com/v1\nkind: Raft\nmetadata: {name: r}\n";
        let (well, text) = self.run(&["apply", "-f", "-"], raft);
        let why = "no matches for kind \"Raft\" in version \"example.com/v1\"";
        assert!(!well && text.contains(why), "{text}");
    }

    /// Rules in CEL: of a definition, and of an admission policy.
    fn keep_rules(&self) {
        let definition = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: ships.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: ships, kind: Ship}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties: {min: {type: integer}, max: {type: integer}}
            x-kubernetes-validations:
            - {rule: self.min <= self.max, messageExpression: \"'min %d is above max %d'.format([self.min, self.max])\"}
            - {rule: self.max >= oldSelf.max, message: max may only grow}
";
        let (well, text) = self.run(&["create", "-f", "-"], &definition.replace("self.min <=", "self.mni <="));
        assert!(!well && text.contains("undefined field 'mni'\n | self.mni <= self.max\n | ....^"), "{text}");
        self.well(&["create", "-f", "-"], definition);
        self.check("wait --for=condition=Established crd/ships.example.com --timeout=60s", &["condition met"]);
        let ship = "apiVersion: example.com/v1\nkind: Ship\nmetadata: {name: s}\nspec: {min: 3, max: 2}\n";
        let (well, text) = self.run(&["create", "-f", "-"], ship);
        let why = "The Ship \"s\" is invalid: spec: Invalid value: \"object\": min 3 is above max 2\n";
        assert_eq!((well, text.as_str()), (false, why));
        self.well(&["create", "-f", "-"], &ship.replace("max: 2", "max: 4"));
        let (well, text) = self.run(&["patch", "ship", "s", "--type=merge", "-p", "{\"spec\":{\"max\":3}}"], "");
        let why = "The Ship \"s\" is invalid: spec: Invalid value: \"object\": max may only grow\n";
        assert_eq!((well, text.as_str()), (false, why));
        let policy = "
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: few.example.com}
spec:
  matchConstraints:
    resourceRules:
    - {apiGroups: [apps], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [deployments]}
  validations: [{expression: object.spec.replicas <= 5}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: few}
spec: {policyName: few.example.com, validationActions: [Deny]}
";
        self.well(&["apply", "-f", "-"], policy);
        let (well, text) = self.run(&["create", "deployment", "many", "--image=nginx", "--replicas=6"], "");
        let why = "error: failed to create deployment: deployments.apps \"many\" is forbidden: ValidatingAdmissionPolicy \
                   'few.example.com' with binding 'few' denied request: failed expression: object.spec.replicas <= 5\n";
        assert_eq!((well, text.as_str()), (false, why));
        self.well(&["delete", "-f", "-"], policy);
    }

    /// `kubectl apply --server-side` with two managers of one field.
    fn apply_on_the_server(&self) {
        let apply = |manager: &str, more: &[&str], input: &str| {
            let manager = format!("--field-manager={manager}");
            self.run(&[&["apply", "--server-side", "-f", "-", &manager], more].concat(), input)
        };
        let (well, text) = apply("one", &[], MAP);
        assert!(well && text.contains("configmap/shared serverside-applied"), "{text}");
        let blue = MAP.replace("colour: red", "colour: blue");
        let (well, text) = apply("two", &[], &blue);
        assert!(!well && text.contains("conflict with \"one\": .data.colour"), "{text}");
        let (well, text) = apply("two", &["--force-conflicts"], &blue);
        assert!(well && text.contains("configmap/shared serverside-applied"), "{text}");
        self.check("get configmap shared -o jsonpath={.data.colour}", &["blue"]);
        self.check("get configmap shared -o yaml --show-managed-fields", &["manager: two", "f:colour"]);
        // Server-side apply takes over the fields that client-side apply owns, without a conflict.
        self.well(&["apply", "-f", "-"], &MAP.replace("shared", "moved"));
        let text = self.well(&["apply", "--server-side", "-f", "-"], &blue.replace("shared", "moved"));
        assert!(text.contains("configmap/moved serverside-applied"), "{text}");
        let wrong = MAP.replace("\ndata:", "\ndta:");
        let (well, text) = self.run(&["create", "-f", "-"], &wrong);
        assert!(!well && text.contains("unknown field"), "{text}");
    }
}

impl Kubectl<'_> {
    /// Every generator of `kubectl create`, and what needs an object of it.
    fn generate(&self) {
        for (line, part) in [
            ("create namespace made", "namespace/made created"),
            ("create secret generic s --from-literal=p=q", "secret/s created"),
            ("create secret docker-registry d --docker-username=u --docker-password=p", "secret/d created"),
            ("create role reader --verb=get,list --resource=pods", "role.rbac.authorization.k8s.io/reader created"),
            (
                "create rolebinding rb --role=reader --serviceaccount=default:robot",
                "rolebinding.rbac.authorization.k8s.io/rb created",
            ),
            ("create clusterrole cr --verb=get --resource=nodes", "clusterrole.rbac.authorization.k8s.io/cr created"),
            (
                "create clusterrolebinding crb --clusterrole=cr --user=jane",
                "clusterrolebinding.rbac.authorization.k8s.io/crb created",
            ),
            ("create quota q --hard=pods=50", "resourcequota/q created"),
            ("create pdb p --selector=app=none --min-available=1", "poddisruptionbudget.policy/p created"),
            ("create priorityclass high --value=1000", "priorityclass.scheduling.k8s.io/high created"),
            ("create job once --image=busybox -- echo done", "job.batch/once created"),
            ("create cronjob yearly --image=busybox --schedule=@yearly -- date", "cronjob.batch/yearly created"),
            ("create job extra --from=cronjob/yearly", "job.batch/extra created"),
            ("create service clusterip one --tcp=80:80", "service/one created"),
            ("create service nodeport two --tcp=80:80", "service/two created"),
            ("create service loadbalancer three --tcp=80:80", "service/three created"),
            ("create service externalname four --external-name=example.com", "service/four created"),
            ("create ingress in --rule=example.com/=one:80", "ingress.networking.k8s.io/in created"),
            ("autoscale deployment web --min=2 --max=5", "horizontalpodautoscaler.autoscaling/web autoscaled"),
            ("get hpa web", "Deployment/web"),
            ("delete hpa web", "horizontalpodautoscaler.autoscaling \"web\" deleted"),
            ("set selector service one app=other", "service/one selector updated"),
            ("wait --for=condition=Complete job/once --timeout=60s", "job.batch/once condition met"),
            ("logs job/once", "done\n"),
            ("describe ingress in", "example.com"),
            ("describe cronjob yearly", "Schedule:                      @yearly"),
            ("describe quota q", "pods"),
            ("describe role reader", "[get list]"),
            ("get all", "cronjob.batch/yearly"),
            ("api-versions", "metrics.k8s.io/v1beta1"),
            ("delete namespace made", "namespace \"made\" deleted"),
        ] {
            self.check(line, &[part]);
        }
    }

    /// Changes of a Deployment that are no `apply`.
    fn change(&self) {
        for (line, part) in [
            ("set env deployment/web A=B", "env updated"),
            ("set resources deployment/web --limits=cpu=200m,memory=512Mi", "resource requirements updated"),
            ("set serviceaccount deployment/web robot", "serviceaccount updated"),
            ("patch deployment web -p {\"spec\":{\"replicas\":3}}", "patched"),
            (
                "patch deployment web --type=json -p [{\"op\":\"replace\",\"path\":\"/spec/replicas\",\"value\":2}]",
                "patched",
            ),
            (
                "patch deployment web --subresource=scale --type=merge -p {\"spec\":{\"replicas\":4}}",
                "scale.autoscaling/web patched",
            ),
            ("expose deployment web --name=exposed --port=80", "service/exposed exposed"),
            ("wait --for=jsonpath={.status.readyReplicas}=4 deployment/web --timeout=90s", "condition met"),
            ("events --for deployment/web", "ScalingReplicaSet"),
        ] {
            self.check(line, &[part]);
        }
    }

    /// `kubectl top` and the metrics behind it.
    fn measure(&self) {
        self.check("top nodes", &["CPU(cores)", "node-0", "node-2"]);
        self.check("top pods -l app=web --containers", &["nginx", "50m", "64Mi"]);
        let metrics = self.well(&["get", "--raw", "/metrics"], "");
        let counted = "apiserver_request_total{code=\"200\",component=\"apiserver\",group=\"\",resource=\"pods\",";
        assert!(metrics.contains(counted), "{metrics}");
    }

    /// Waits until the pods are gone that a rollout has replaced: commands that take pods by label find those, too.
    fn await_replaced(&self) {
        let being_deleted = ["get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].metadata.deletionTimestamp}"];
        self.cluster.wait_for("pods that were replaced are gone", || self.well(&being_deleted, "").is_empty());
    }

    /// Logs, commands, copies and forwarded ports of a simulated container.
    fn look_inside(&self) {
        self.await_replaced();
        self.check("logs deployment/web", &["container nginx of image nginx:1 is simulated"]);
        self.check("logs -l app=web --tail=1 --prefix --timestamps", &["[pod/web-", "/nginx] 20", "is simulated"]);
        let script = "echo hello from $HOSTNAME; cat; exit 3";
        let (well, text) = self.run(&["exec", "-i", "deployment/web", "--", "sh", "-c", script], "typed\n");
        assert!(!well && text.contains("hello from web-") && text.contains("typed\n"), "{text}");
        assert!(text.contains("command terminated with exit code 3"), "{text}");
        let (well, text) = self.run(&["exec", "deployment/web", "--", "nginx"], "");
        assert!(!well && text.contains("executable file not found in $PATH"), "{text}");
        let pod = self.well(&["get", "pods", "-l", "app=web", "-o", "jsonpath={.items[0].metadata.name}"], "");
        self.copy(&pod);
        self.forward(&pod);
        self.debug(&pod);
        let text = self.well(&["run", "-i", "--rm", "--restart=Never", "--image=busybox", "box"], "echo typed; exit\n");
        assert!(text.contains("typed\n") && text.contains("pod \"box\" deleted"), "{text}");
    }

    /// `kubectl debug` of a pod, of a copy of it, and of a node.
    fn debug(&self, pod: &str) {
        let debug = |what: &[&str], input: &str| {
            let (well, text) = self.run(&[&["debug", "-i", "--image=busybox"], what].concat(), input);
            assert!(well && text.contains("typed\n"), "{what:?}: {text}");
            text
        };
        // What was typed before kubectl has attached is not lost.
        let text = debug(&[pod, "--target=nginx", "--container=looks"], "echo typed; exit 4\n");
        assert!(text.contains("Targeting container \"nginx\""), "{text}");
        let status = "jsonpath={.status.phase} {.status.ephemeralContainerStatuses[0].state.terminated.exitCode}";
        self.cluster.wait_for("the ephemeral container has ended", || {
            self.well(&["get", "pod", pod, "-o", status], "") == "Running 4"
        });
        self.check(&format!("logs {pod} -c looks"), &["typed"]);
        self.check(&format!("describe pod {pod}"), &["Ephemeral Containers:", "looks:", "Exit Code:    4"]);
        self.check(&format!("get pod {pod}"), &["1/1"]);
        self.check(&format!("events --for pod/{pod}"), &["Created container: looks", "Started container looks"]);
        let (well, text) = self.run(&["debug", pod, "--image=busybox", "--target=nobody"], "");
        let why = "ephemeralContainers[1].targetContainerName: Not found: \"nobody\"";
        assert!(!well && text.contains(why), "{text}");
        self.well(&["debug", pod, "--image=busybox", "--container=stays", "--", "sleep", "1000"], "");
        self.cluster.wait_for("the ephemeral container runs", || {
            self.run(&["exec", pod, "-c", "stays", "--", "echo", "in it"], "") == (true, "in it\n".to_owned())
        });

        debug(&[pod, "--copy-to=copied", "--container=looks"], "echo typed; exit\n");
        self.check("get pod copied -o jsonpath={.spec.containers[*].name}", &["nginx looks"]);
        debug(&["node/node-0"], "echo typed; exit\n");
        let pods =
            ["get", "pods", "-o", "jsonpath={range .items[*]}{.metadata.name} {.spec.nodeName} {.spec.hostPID}\n{end}"];
        let text = self.well(&pods, "");
        let made = text.lines().find(|line| line.starts_with("node-debugger-node-0-"));
        assert!(made.is_some_and(|line| line.ends_with(" node-0 true")), "{text}");
        let name = made.and_then(|line| line.split(' ').next()).expect("it is there");
        self.well(&["delete", "pod", "copied", name], "");
    }

    /// `kubectl cp` to a container and back.
    fn copy(&self, pod: &str) {
        let (file, back) = (self.cache.join("file"), self.cache.join("back"));
        std::fs::write(&file, "content\n".repeat(20_000)).expect("it can be written");
        let path = |path: &std::path::Path| path.to_str().expect("it is text").to_owned();
        self.well(&["cp", &path(&file), &format!("{pod}:/tmp/copied")], "");
        self.check(&format!("exec {pod} -- wc -c /tmp/copied"), &["160000"]);
        self.well(&["cp", &format!("{pod}:/tmp/copied"), &path(&back)], "");
        assert!(std::fs::read(&back).expect("it is there") == std::fs::read(&file).expect("it is there"));
    }

    /// `kubectl port-forward`, and a request through it.
    fn forward(&self, pod: &str) {
        let mut command = self.command(&["port-forward", &format!("pod/{pod}"), ":80"]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("kubectl runs");
        let mut line = String::new();
        // Kept open, because kubectl goes on to write to it.
        let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let read = stdout.read_line(&mut line);
        assert!(read.is_ok() && line.starts_with("Forwarding from 127.0.0.1:"), "{line}");
        let address = line["Forwarding from ".len()..].split(' ').next().expect("an address").to_owned();
        for _ in 0..2 {
            let mut stream = TcpStream::connect(&address).expect("it listens");
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("it reads");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("it answers");
            assert!(answer.contains(&format!("simulated: container nginx of pod default/{pod}, port 80")), "{answer}");
        }
        child.kill().expect("it is our child");
        child.wait().expect("it is our child");
    }
}

const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: nginx, image: 'nginx:1', ports: [{containerPort: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web}
spec: {minAvailable: 1, selector: {matchLabels: {app: web}}}
";

#[test]
fn a_day_with_kubectl() {
    for (number, binary) in binaries().into_iter().enumerate() {
        let test = format!("kubectl-{number}");
        let cluster = Cluster::start(&test, &["--nodes", "3"]);
        // A separate cache for this run, because cached discovery of another server must not be used.
        let cache = scratch(&test).join(format!("cache-{}", std::process::id()));
        std::fs::create_dir_all(&cache).expect("it can be made");
        let kubectl = Kubectl { binary, cluster: &cluster, cache, recorder: None };
        eprintln!("kubectl {}", kubectl.well(&["version"], "").lines().next().unwrap_or_default());
        spend_a_day(&kubectl, &cluster);
    }
}

/// The requests of a day with each binary, by its version.
pub fn record_days() -> BTreeMap<String, Session> {
    let mut days = BTreeMap::new();
    for binary in binaries() {
        let output = Command::new(&binary).args(["version", "--client", "--output=json"]).output().expect("it runs");
        let version: Value = serde_json::from_slice(&output.stdout).expect("it says its version");
        let version = version["clientVersion"]["gitVersion"].as_str().expect("it says its version");
        let version = version.trim_start_matches('v').splitn(3, '.').take(2).collect::<Vec<_>>().join(".");
        let test = format!("kubectl-recorded-{version}");
        let cluster = Cluster::start(&test, &["--nodes", "3"]);
        let cache = scratch(&test).join(format!("cache-{}", std::process::id()));
        std::fs::create_dir_all(&cache).expect("it can be made");
        let session = recording(&cluster, |recorder| {
            let kubectl = Kubectl { binary, cluster: &cluster, cache, recorder: Some(recorder) };
            spend_a_day(&kubectl, &cluster);
        });
        days.insert(version, session);
    }
    days
}

/// A proxy of the kind that `proxy-url` names: it connects where CONNECT says, and passes bytes. Returns its address,
/// and how often it was asked to.
fn tunnel() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound").to_string();
    let count: Arc<AtomicUsize> = Arc::default();
    let counted = Arc::clone(&count);
    let carry = |mut from: TcpStream, mut to: TcpStream| {
        std::thread::spawn(move || {
            // Either end may go at any moment, and then both do.
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(std::net::Shutdown::Both);
        });
    };
    std::thread::spawn(move || {
        for near in listener.incoming().flatten() {
            let mut reader = BufReader::new(near.try_clone().expect("sockets can be shared"));
            let mut lines = reader.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty());
            let Some(asked) = lines.next() else { continue };
            let target = asked.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next());
            let mut far = TcpStream::connect(target.expect("it is asked to connect")).expect("it listens");
            lines.for_each(drop);
            counted.fetch_add(1, Ordering::Relaxed);
            let mut answered = near.try_clone().expect("sockets can be shared");
            answered.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").expect("it reads");
            far.write_all(reader.buffer()).expect("it reads");
            carry(near.try_clone().expect("sockets can be shared"), far.try_clone().expect("sockets can be shared"));
            carry(far, near);
        }
    });
    (address, count)
}

/// Streams through a proxy that tunnels TLS, and through one that ends it: nothing is held back, and protocols change.
#[test]
fn streams_pass_proxies() {
    for (number, binary) in binaries().into_iter().enumerate() {
        let test = format!("kubectl-proxied-{number}");
        let mut cluster = Cluster::start(&test, &["--nodes", "1"]);
        let cache = scratch(&test).join(format!("cache-{}", std::process::id()));
        std::fs::create_dir_all(&cache).expect("it can be made");
        let reverse = Recorder::start(&cluster);
        let ended =
            Kubectl { binary: binary.clone(), cluster: &cluster, cache: cache.clone(), recorder: Some(&reverse) };
        cluster.wait_for("the namespace has its service account", || {
            cluster.get("/api/v1/namespaces/default/serviceaccounts/default").code == 200
        });
        let nginx = json!({"name": "nginx", "image": "nginx:1", "ports": [{"containerPort": 80}]});
        let web = json!({"metadata": {"name": "web"}, "spec": {"containers": [nginx]}});
        cluster.create("/api/v1/namespaces/default/pods", &web);
        ended.check("wait --for=condition=Ready pod/web --timeout=60s", &["condition met"]);
        ended.stream();
        drop(ended);
        // Its kubeconfig says that the server is reached by a proxy.
        let text = std::fs::read_to_string(&cluster.kubeconfig).expect("it is there");
        let server = text.lines().find(|line| line.trim_start().starts_with("server:")).expect("a server");
        let indent = &server[..server.len() - server.trim_start().len()];
        let (proxy, asked) = tunnel();
        let proxied = text.replace(server, &format!("{server}\n{indent}proxy-url: http://{proxy}"));
        cluster.kubeconfig = scratch(&test).join("proxied");
        std::fs::write(&cluster.kubeconfig, proxied).expect("it can be written");
        let tunnelled = Kubectl { binary, cluster: &cluster, cache, recorder: None };
        tunnelled.stream();
        assert!(asked.load(Ordering::Relaxed) >= 7, "each command goes through it");
    }
}

impl Kubectl<'_> {
    /// Streams of each kind, of a pod `web`.
    fn stream(&self) {
        let (well, text) = self.run(&["exec", "-i", "web", "--", "sh", "-c", "echo hello; cat; exit 3"], "typed\n");
        let ended = text.contains("hello\ntyped\n") && text.contains("command terminated with exit code 3");
        assert!(!well && ended, "{text}");
        self.copy("web");
        self.forward("web");
        // A watch, a log and an attached terminal tell what is, and go on.
        for args in [&["get", "pod", "web", "-w"][..], &["logs", "-f", "web"], &["attach", "web"]] {
            let mut child = self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
            let mut streams: [Box<dyn Read>; 2] =
                [Box::new(child.stdout.take().expect("piped")), Box::new(child.stderr.take().expect("piped"))];
            let told = if args[0] == "attach" { &mut streams[1] } else { &mut streams[0] };
            let mut byte = [0];
            assert_eq!(told.read(&mut byte).expect("it can be read"), 1, "{args:?} tells nothing");
            assert_eq!(child.try_wait().expect("it is our child"), None, "{args:?} goes on");
            child.kill().expect("it is our child");
            child.wait().expect("it is our child");
        }
    }
}

/// Real manifests, of several projects, as a user applies them: everything that has a controller becomes ready. They
/// are not part of the repository: if `SKEG_SHARED` does not name them, nothing is applied.
#[test]
fn manifests_apply_and_become_ready() {
    let (Some(shared), Some(binary)) = (std::env::var_os("SKEG_SHARED"), binaries().pop()) else { return };
    let directory = std::fs::read_dir(PathBuf::from(shared).join("data/manifests")).expect("it is there");
    // One is older than Kubernetes 1.25, which serves this group in its last version only.
    let read = |file: PathBuf| std::fs::read_to_string(file).expect("it reads").replace("policy/v1beta1", "policy/v1");
    let manifests: Vec<String> = directory.map(|entry| read(entry.expect("it reads").path())).collect();
    for mode in ["--server-side=false", "--server-side"] {
        let cluster = Cluster::start("manifests", &["--nodes", "5", "--speed", "20"]);
        let cache = scratch("manifests").join(format!("cache{mode}-{}", std::process::id()));
        std::fs::create_dir_all(&cache).expect("it can be made");
        let kubectl = Kubectl { binary: binary.clone(), cluster: &cluster, cache, recorder: None };
        let apply = |input: &str| kubectl.well(&["apply", mode, "-f", "-"], input);
        for manifest in &manifests {
            let applied = apply(manifest);
            assert!(!applied.contains("Warning"), "{applied}");
        }
        let mut scaled = 0;
        for resource in ["apps/v1/deployments", "apps/v1/statefulsets", "v1/replicationcontrollers"] {
            let root = if resource.starts_with("v1") { "api" } else { "apis" };
            let list =
                || cluster.get(&format!("/{root}/{resource}")).json()["items"].as_array().expect("a list").clone();
            scaled += list().len();
            cluster.wait_for(&format!("{resource} are ready ({mode})"), || {
                let ready = |item: &Value| item["status"]["readyReplicas"] == item["spec"]["replicas"];
                list().iter().all(ready)
            });
        }
        assert!(scaled > 10, "{scaled}");
        let services = cluster.get("/api/v1/services").json();
        let balanced = services["items"].as_array().into_iter().flatten();
        for service in balanced.filter(|service| service["spec"]["type"] == "LoadBalancer") {
            assert!(service["status"]["loadBalancer"]["ingress"][0]["ip"].is_string(), "{service}");
        }
        // It may say `configured`: kubectl always sends the selector of a budget and the claims of a StatefulSet.
        for manifest in &manifests {
            apply(manifest);
        }
        for resource in ["apps/v1/deployments", "apps/v1/statefulsets", "policy/v1/poddisruptionbudgets"] {
            for item in cluster.get(&format!("/apis/{resource}")).json()["items"].as_array().expect("a list") {
                assert_eq!(item["metadata"]["generation"], 1, "nothing has changed ({mode}): {item}");
            }
        }
    }
}

fn spend_a_day(kubectl: &Kubectl<'_>, cluster: &Cluster) {
    kubectl.section("first-look");
    // `kubectl wait --all` waits for the existing nodes only, and agents register theirs a moment after the server
    // starts.
    cluster.wait_for("three nodes have registered", || {
        cluster.get("/api/v1/nodes").json()["items"].as_array().is_some_and(|nodes| nodes.len() == 3)
    });
    kubectl.check("wait --for=condition=Ready nodes --all --timeout=60s", &["node/node-0 condition met"]);
    kubectl.check("get nodes -o wide", &["NAME", "INTERNAL-IP", "Ready", "v1.36"]);
    kubectl.check("version", &["Server Version: v1.36.0"]);
    kubectl.check("cluster-info", &["control plane", "is running at"]);
    kubectl.check("api-resources", &["deployments", "apps/v1", "PodDisruptionBudget"]);
    kubectl.section("deployment");
    let applied = kubectl.well(&["apply", "-f", "-"], WEB);
    assert!(applied.contains("deployment.apps/web created"), "{applied}");
    kubectl.check("rollout status deployment/web --timeout=60s", &["successfully rolled out"]);
    let again = kubectl.well(&["apply", "-f", "-"], WEB);
    assert!(again.contains("deployment.apps/web unchanged"), "{again}");
    kubectl.check("get deployment web", &["READY", "2/2"]);
    kubectl.check("get pods -o wide", &["Running", "1/1", "node-"]);
    kubectl.check("get deployment web -o jsonpath={.spec.replicas}", &["2"]);
    kubectl.check("get deployment web -o yaml", &["kind: Deployment", "image: nginx:1"]);
    kubectl.check("get events", &["SuccessfulCreate", "Scheduled"]);
    kubectl.check("create configmap map --from-literal=a=1", &["configmap/map created"]);
    kubectl.check("create deployment sleepy --image=sleep:1 --replicas=0", &["deployment.apps/sleepy created"]);
    kubectl.check("create serviceaccount robot", &["serviceaccount/robot created"]);
    kubectl.section("server-side-apply");
    kubectl.apply_on_the_server();
    kubectl.section("explain");
    kubectl.explain();
    kubectl.section("rules");
    kubectl.keep_rules();
    kubectl.section("access");
    kubectl.check("auth can-i delete pods", &["yes"]);
    kubectl.check("auth can-i --list", &["*.*", "selfsubjectaccessreviews.authorization.k8s.io"]);
    kubectl.check("auth whoami", &["Username", "system:masters"]);
    kubectl.check("describe deployment web", &["RollingUpdate", "2 desired", "ScalingReplicaSet"]);
    kubectl.check("describe node node-0", &["Capacity:", "Allocated resources"]);
    kubectl.check("describe service web", &["Endpoints:"]);
    kubectl.section("rollout");
    kubectl.check("label deployment web tier=front", &["deployment.apps/web labeled"]);
    kubectl.check("annotate deployment web note=x", &["deployment.apps/web annotated"]);
    kubectl.check("get deployment -l tier=front", &["web"]);
    kubectl.check("scale deployment web --replicas=4", &["deployment.apps/web scaled"]);
    kubectl.check("rollout status deployment/web --timeout=60s", &["successfully rolled out"]);
    kubectl.check("set image deployment/web nginx=nginx:2", &["image updated"]);
    kubectl.check("rollout status deployment/web --timeout=60s", &["successfully rolled out"]);
    kubectl.check("rollout history deployment/web", &["REVISION", "2"]);
    kubectl.check("rollout undo deployment/web", &["rolled back"]);
    kubectl.check("rollout status deployment/web --timeout=60s", &["successfully rolled out"]);
    kubectl.check("get deployment web -o jsonpath={..image}", &["nginx:1"]);
    kubectl.check("rollout pause deployment/web", &["paused"]);
    kubectl.check("rollout resume deployment/web", &["resumed"]);
    kubectl.check("rollout restart deployment/web", &["restarted"]);
    kubectl.check("rollout status deployment/web --timeout=60s", &["successfully rolled out"]);
    kubectl.section("containers");
    kubectl.look_inside();
    kubectl.section("generators");
    kubectl.generate();
    kubectl.section("changes");
    kubectl.change();
    kubectl.section("measures");
    kubectl.measure();
    kubectl.section("nodes");
    kubectl.check("taint node node-0 a=b:NoSchedule", &["node/node-0 tainted"]);
    kubectl.check("taint node node-0 a-", &["node/node-0 untainted"]);
    kubectl.check("cordon node-1", &["node/node-1 cordoned"]);
    kubectl.check("drain node-1 --ignore-daemonsets --timeout=60s", &["node/node-1 drained"]);
    kubectl.check("get node node-1", &["Ready,SchedulingDisabled"]);
    kubectl.check("uncordon node-1", &["node/node-1 uncordoned"]);
    kubectl.check("wait --for=condition=Available deployment/web --timeout=60s", &["condition met"]);
    kubectl.check("delete deployment web", &["deployment.apps \"web\" deleted"]);
    kubectl.check("wait --for=delete pod -l app=web --timeout=60s", &[]);
    kubectl.check("delete service,pdb --all", &["poddisruptionbudget.policy \"web\" deleted"]);
    let (well, text) = kubectl.run(&["get", "deployment", "web"], "");
    assert!(!well && text.contains("deployments.apps \"web\" not found"), "{text}");
}
