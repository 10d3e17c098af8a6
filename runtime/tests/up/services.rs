//! Services and their names with real containers: what a pod reaches, by which name, and that nothing is lost while
//! pods are replaced. As the tests of [`crate::docker`], these are skipped where there is no engine.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{Cluster, scratch};
use crate::docker::{IMAGE, PODS, another_name, container, create, end, events, gone, pod, start, to_use, wait, with};
use crate::recording;
use crate::streams::exec;

const SERVICES: &str = "/api/v1/namespaces/default/services";
const CONTROLLERS: &str = "/api/v1/namespaces/default/replicationcontrollers";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

/// A server at port 8080 that tells the name of its pod. Before it ends it goes on for a moment, as a server must that
/// is to lose no request.
fn server() -> Value {
    let script = "cat /proc/sys/kernel/hostname > /tmp/index.html; exec httpd -f -p 8080 -h /tmp";
    let mut server = container("c", script);
    server["ports"] = json!([{"name": "http", "containerPort": 8080}]);
    server["readinessProbe"] = json!({"tcpSocket": {"port": 8080}, "periodSeconds": 1});
    server["lifecycle"] = json!({"preStop": {"exec": {"command": ["sleep", "4"]}}});
    server
}

fn deployment(version: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
        "replicas": 2, "selector": {"matchLabels": {"app": "web"}},
        "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "template": {"metadata": {"labels": {"app": "web", "version": version}}, "spec": {
            "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 6,
            "containers": [server()]}}}})
}

fn service(name: &str, app: &str, spec: Value) -> Value {
    let mut all = json!({"selector": {"app": app}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]});
    all.as_object_mut().expect("it is one").extend(spec.as_object().cloned().expect("it is one"));
    json!({"metadata": {"name": name}, "spec": all})
}

/// The names of the pods of the Deployment that are ready and stay.
fn ready(cluster: &Cluster, labels: &str) -> BTreeSet<String> {
    let all = cluster.get(&format!("{PODS}?labelSelector={labels}")).json();
    let is_ready = |pod: &&Value| {
        let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        pod["metadata"]["deletionTimestamp"].is_null()
            && conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
    };
    let pods = all["items"].as_array().cloned().unwrap_or_default();
    pods.iter().filter(is_ready).filter_map(|pod| pod["metadata"]["name"].as_str().map(str::to_owned)).collect()
}

/// What a command in a pod prints.
fn within(cluster: &Cluster, pod: &str, command: &[&str]) -> String {
    let [_, stdout, stderr, status] = exec(cluster, pod, command);
    format!("{stdout}{stderr}{}", if status.contains("Success") { "" } else { &status })
}

/// Who answers at a name and port, looked up and asked from a pod a number of times.
fn answers(cluster: &Cluster, from: &str, name: &str, port: u16) -> BTreeSet<String> {
    let script = format!(
        "for i in {{1..16}}; do exec 3<>/dev/tcp/{name}/{port} || exit; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; \
         tail -n 1 <&3; done"
    );
    within(cluster, from, &["/bin/bash", "-c", &script]).lines().map(str::to_owned).collect()
}

/// Asks an HTTP server of this thread's network; returns the body.
pub fn http(address: &str) -> std::io::Result<String> {
    let address = address.parse().expect("an address");
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer.split_once("\r\n\r\n").filter(|(head, _)| head.contains(" 200 "));
    body.map(|(_, body)| body.trim().to_owned()).ok_or_else(|| std::io::Error::other(answer.clone()))
}

/// All rules of this host.
fn rules() -> String {
    let listed = Command::new("nft").args(["list", "ruleset"]).output().expect("nft runs");
    String::from_utf8_lossy(&listed.stdout).into_owned()
}

/// Asks these addresses all the time until it is told to stop; returns how often, and what failed.
fn load(addresses: Vec<String>, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<(usize, Vec<String>)> {
    std::thread::spawn(move || {
        let (mut count, mut failed) = (0, Vec::new());
        while !stop.load(Ordering::Relaxed) {
            for address in &addresses {
                count += 1;
                failed.extend(http(address).err().map(|e| format!("request {count} to {address}: {e}")));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        (count, failed)
    })
}

#[test]
fn services_are_reached_by_their_names() {
    let Some(_engine) = to_use() else { return };
    let cluster = start("docker-services", &["--in-memory", "--service-cluster-ip-range", "10.211.0.0/24"]);
    cluster.create(DEPLOYMENTS, &deployment("1"));
    cluster.create(SERVICES, &service("web", "web", json!({})));
    cluster.create(SERVICES, &service("outside", "web", json!({"type": "NodePort"})));
    cluster.create(SERVICES, &service("db", "db-0", json!({"clusterIP": "None"})));
    cluster.create(SERVICES, &service("self", "db-0", json!({})));
    cluster.create(SERVICES, &service("nobody", "nobody", json!({})));
    create(&cluster, "client", json!({"containers": [container("c", "exec sleep 1000")]}));
    create(&cluster, "db-0", json!({"hostname": "db-0", "subdomain": "db", "containers": [server()]}));
    let bare = json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["192.0.2.1"]},
        "containers": [container("c", "exec sleep 1000")]});
    create(&cluster, "bare", bare);
    for name in ["client", "db-0", "bare"] {
        wait(&cluster, name, "/status/phase", json!("Running"));
    }
    cluster.wait_for("both pods are ready", || ready(&cluster, "app=web").len() == 2);
    cluster.wait_for("the database is ready", || ready(&cluster, "app=db-0").len() == 1);
    let pods = ready(&cluster, "app=web");

    let resolver = within(&cluster, "client", &["cat", "/etc/resolv.conf"]);
    assert!(resolver.contains("nameserver 10.211.0.10\n"), "{resolver}");
    assert!(resolver.contains("search default.svc.cluster.local svc.cluster.local cluster.local"), "{resolver}");
    assert!(resolver.contains("ndots:5"), "{resolver}");
    let resolver = within(&cluster, "bare", &["cat", "/etc/resolv.conf"]);
    assert!(resolver.contains("192.0.2.1") && !resolver.contains("10.211"), "{resolver}");
    assert!(!events(&cluster, "client").contains("MissingClusterDNS"));

    // The proxy gathers changes for up to a second.
    cluster.wait_for("the Service leads to both", || answers(&cluster, "client", "web", 80) == pods);
    let names = ["web", "web.default", "web.default.svc", "web.default.svc.cluster.local", "outside"];
    for name in names {
        assert_eq!(answers(&cluster, "client", name, 80), pods, "{name}");
    }
    let node = cluster.get("/api/v1/nodes").json()["items"][0]["status"]["addresses"][0]["address"].clone();
    let node = node.as_str().expect("the node has an address").to_owned();
    let outside = cluster.get(&format!("{SERVICES}/outside")).json();
    let node_port = outside["spec"]["ports"][0]["nodePort"].as_u64().and_then(|port| port.try_into().ok());
    let node_port: u16 = node_port.expect("it has one");
    assert_eq!(answers(&cluster, "client", &node, node_port), pods, "the node port, from a pod");
    let asked = (0..20).map(|_| http(&format!("{node}:{node_port}")).expect("it answers"));
    let from_host: BTreeSet<String> = asked.collect();
    assert_eq!(from_host, pods, "the node port, from the host");
    let own: BTreeSet<String> = ["db-0".to_owned()].into();
    cluster.wait_for("a pod reaches itself", || answers(&cluster, "db-0", "self", 80) == own);
    let refused = answers(&cluster, "client", "nobody", 80);
    assert!(refused.iter().next().is_some_and(|told| told.contains("refused")), "nobody is there: {refused:?}");

    // The API server has the first address, and a certificate for it; pods reach it by its name.
    assert_eq!(cluster.get_at("10.211.0.1", 443, "/readyz").code, 200);
    let dial = "exec 3<>/dev/tcp/kubernetes.default.svc/443 && echo connected";
    assert_eq!(within(&cluster, "client", &["/bin/bash", "-c", dial]), "connected\n");

    let ip = pod(&cluster, "db-0")["status"]["podIP"].as_str().expect("it has one").to_owned();
    let look_up = |kind: &str, name: &str| within(&cluster, "client", &["nslookup", &format!("-type={kind}"), name]);
    let full = "db-0.db.default.svc.cluster.local";
    let dashed = ip.replace('.', "-");
    let reverse: Vec<&str> = ip.rsplit('.').collect();
    let reverse = format!("{}.in-addr.arpa", reverse.join("."));
    for (kind, name, wants) in [
        ("a", "db.default.svc.cluster.local", [ip.as_str(), "Address"]),
        ("a", full, [ip.as_str(), "Address"]),
        ("srv", "_http._tcp.db.default.svc.cluster.local", ["8080", full]),
        ("ptr", &reverse, ["name = ", full]),
        ("a", &format!("{dashed}.default.pod.cluster.local"), [ip.as_str(), "Address"]),
        ("a", "no.such.default.svc.cluster.local", ["NXDOMAIN", "can't find"]),
    ] {
        let told = look_up(kind, name);
        assert!(wants.iter().all(|want| told.contains(want)), "{kind} {name}: {told}");
    }

    // A pod with another address takes the place of one that is deleted.
    let lost = pods.first().expect("there are two").clone();
    gone(&cluster, &lost);
    cluster.wait_for("another is ready", || ready(&cluster, "app=web").len() == 2);
    let pods = ready(&cluster, "app=web");
    assert!(!pods.contains(&lost));
    cluster.wait_for("the Service leads to it", || answers(&cluster, "client", "web", 80) == pods);
    assert!(rules().contains("10.211.0."), "{}", rules());
    end(cluster);
    assert!(!rules().contains("10.211.0."), "rules are left behind: {}", rules());
}

/// A cluster whose Service `web` is asked all the time by its ClusterIP and its NodePort.
struct Loaded {
    cluster: Cluster,
    recordings: PathBuf,
    stop: Arc<AtomicBool>,
    loads: Vec<std::thread::JoinHandle<(usize, Vec<String>)>>,
}

impl Loaded {
    /// `workload` is created at the path, and its two pods are waited for.
    fn start(test: &str, network: &str, (path, workload): (&str, Value)) -> Loaded {
        let recordings = recording::empty(test);
        let range = format!("{network}.0/24");
        let record = recordings.to_str().expect("paths of tests are text");
        let cluster = start(test, &["--in-memory", "--service-cluster-ip-range", &range, "--record", record]);
        cluster.create(path, &workload);
        let address = format!("{network}.20");
        cluster.create(SERVICES, &service("web", "web", json!({"type": "NodePort", "clusterIP": address})));
        cluster.wait_for("both pods are ready", || ready(&cluster, "app=web").len() == 2);
        let node = cluster.get("/api/v1/nodes").json()["items"][0]["status"]["addresses"][0]["address"].clone();
        let made = cluster.get(&format!("{SERVICES}/web")).json();
        let node_port = format!("{}:{}", node.as_str().expect("an address"), made["spec"]["ports"][0]["nodePort"]);
        let addresses = vec![format!("{address}:80"), node_port];
        for address in &addresses {
            cluster.wait_for("the Service answers", || http(address).is_ok());
        }
        let stop = Arc::new(AtomicBool::new(false));
        let loads = (0..2).map(|_| load(addresses.clone(), Arc::clone(&stop))).collect();
        Loaded { cluster, recordings, stop, loads }
    }

    /// Not one request has failed, and the same is decided again.
    fn end(self) {
        // The last of the old pods are on their way out.
        std::thread::sleep(Duration::from_secs(5));
        self.stop.store(true, Ordering::Relaxed);
        let mut count = 0;
        for load in self.loads {
            let (asked, failed) = load.join().expect("it ends well");
            assert_eq!(failed, Vec::<String>::new(), "of {asked}");
            count += asked;
        }
        assert!(count > 200, "{count} requests are no load");
        end(self.cluster);
        recording::replays(&self.recordings);
    }
}

#[test]
fn a_rolling_update_loses_no_request() {
    let Some(_engine) = to_use() else { return };
    let loaded = Loaded::start("docker-rolling", "10.212.0", (DEPLOYMENTS, deployment("1")));
    let cluster = &loaded.cluster;
    for version in ["2", "1"] {
        // The update, and the way back.
        let patch = json!({"spec": {"template": {"metadata": {"labels": {"version": version}}}}});
        let headers = [("Content-Type", "application/merge-patch+json")];
        let patched = cluster.send("PATCH", &format!("{DEPLOYMENTS}/web"), &headers, patch.to_string().as_bytes());
        assert_eq!(patched.code, 200, "{}", patched.text());
        cluster.wait_for("the update is through", || {
            ready(cluster, &format!("app=web,version={version}")).len() == 2 && ready(cluster, "app=web").len() == 2
        });
    }
    loaded.end();
}

/// `skeg rolling-update` with these words.
fn rolling_update(cluster: &Cluster, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_skeg"));
    command.arg("rolling-update").args(words).args(["--poll-interval", "300ms", "--kubeconfig"]);
    command.arg(&cluster.kubeconfig);
    command
}

#[test]
fn a_rolling_update_of_a_replication_controller_loses_no_request() {
    let Some(_engine) = to_use() else { return };
    let next = IMAGE.replace(":1", ":2");
    another_name(&next);
    let controller = json!({"apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": "web"}, "spec": {
        "replicas": 2, "selector": {"app": "web"}, "template": deployment("1")["spec"]["template"]}});
    let loaded = Loaded::start("docker-rolling-rc", "10.214.0", (CONTROLLERS, controller));
    let cluster = &loaded.cluster;
    let image = |name: &str| {
        let found = cluster.get(&format!("{CONTROLLERS}/{name}")).json();
        found["spec"]["template"]["spec"]["containers"][0]["image"].clone()
    };
    let told = |command: &mut Command, code: i32| {
        let done = command.output().expect("the binary runs");
        let text = [done.stdout, done.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        assert_eq!(done.status.code(), Some(code), "{text}");
        text
    };

    // To another image, under the same name.
    let words = ["web", "--image", next.as_str(), "--update-period", "500ms"];
    let text = told(&mut rolling_update(cluster, &words), 0);
    assert!(text.ends_with("replicationcontroller/web rolling updated\n"), "{text}");
    assert!(text.contains("Scaling web down to 1\n") && text.contains("Renaming web-"), "{text}");
    assert_eq!(image("web"), json!(next));
    let list = cluster.get(CONTROLLERS).json();
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1), "{list}");
    let text = told(&mut rolling_update(cluster, &words), 2);
    assert!(text.contains("must be distinct from existing container image"), "{text}");

    // One that is ended in its middle, refused for a third image, and rolled back.
    let words = ["web", "web-next", "--image", IMAGE, "--update-period", "2s"];
    let mut begun = rolling_update(cluster, &words).stdout(Stdio::piped()).spawn().expect("the binary runs");
    let lines = BufReader::new(begun.stdout.take().expect("it is piped")).lines();
    let mut lines = lines.map_while(Result::ok);
    assert!(lines.any(|line| line == "Scaling web down to 1"), "it has begun");
    begun.kill().expect("it is our child");
    begun.wait().expect("it is our child");
    let text = told(&mut rolling_update(cluster, &["web", "web-next", "--image", "another:3"]), 2);
    let expect = format!("Either continue in-progress update with --image={IMAGE} or rollback with --rollback");
    assert!(text.contains(&expect), "{text}");
    let text = told(&mut rolling_update(cluster, &["web", "web-next", "--rollback", "--update-period", "500ms"]), 0);
    assert!(text.ends_with("replicationcontroller/web rolling updated\n"), "{text}");
    assert_eq!(image("web"), json!(next));
    assert_eq!(cluster.get(&format!("{CONTROLLERS}/web-next")).code, 404);
    cluster.wait_for("both pods are ready", || ready(cluster, "app=web").len() == 2);

    // By a file.
    let file = scratch("docker-rolling-rc").join("web-2.yaml");
    let template = deployment("3")["spec"]["template"].clone();
    let spec = json!({"replicas": 2, "selector": {"app": "web", "version": "3"}, "template": template});
    let last =
        json!({"apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": "web-2"}, "spec": spec});
    std::fs::write(&file, last.to_string()).expect("it can be written");
    let file = file.to_str().expect("paths of tests are text");
    let text = told(&mut rolling_update(cluster, &["web", "-f", file, "--update-period", "500ms"]), 0);
    assert!(text.ends_with("replicationcontroller/web rolling updated to \"web-2\"\n"), "{text}");
    assert_eq!((cluster.get(&format!("{CONTROLLERS}/web")).code, image("web-2")), (404, json!(IMAGE)));
    assert_eq!(ready(cluster, "app=web,version=3").len(), 2);
    loaded.end();
}

#[test]
fn a_cluster_that_is_killed_finds_its_rules_again() {
    let Some(_engine) = to_use() else { return };
    let dir = crate::client::scratch("docker-rules").join("data");
    if dir.exists() {
        std::fs::remove_dir_all(&dir).expect("it is ours");
    }
    let dir = dir.to_str().expect("paths of tests are text").to_owned();
    let args = ["--data-dir", dir.as_str(), "--service-cluster-ip-range", "10.213.0.0/24"];
    let mut cluster = start("docker-rules", &args);
    create(&cluster, "web", json!({"containers": [server()]}));
    cluster.create(SERVICES, &service("web", "web", json!({"clusterIP": "10.213.0.20"})));
    cluster.wait_for("the Service answers", || http("10.213.0.20:80").is_ok());
    cluster.kill();
    assert_eq!(http("10.213.0.20:80").expect("the rules stay, and so does the container"), "web");
    let cluster = start("docker-rules", &args);
    cluster.wait_for("the Service still answers", || http("10.213.0.20:80").is_ok());
    let client = with(json!({"containers": [container("c", "exec sleep 1000")]}), "restartPolicy", json!("Never"));
    create(&cluster, "client", client);
    wait(&cluster, "client", "/status/phase", json!("Running"));
    let name: BTreeSet<String> = ["web".to_owned()].into();
    cluster.wait_for("names are served, though at another port", || answers(&cluster, "client", "web", 80) == name);
    for name in ["web", "client"] {
        gone(&cluster, name);
    }
    let mut cluster = cluster;
    assert_eq!(cluster.skeg("down").status.code(), Some(0));
    assert_eq!(cluster.exit_code(), Some(0));
    assert!(http("10.213.0.20:80").is_err(), "nothing is left of the rules");
}
