//! `skeg up --docker`: real containers in Docker's engine. Skipped, and said to be, where no engine answers at the
//! socket that `SKEG_DOCKER_SOCKET` names; with `SKEG_REQUIRE_DOCKER` set that is an error.
//!
//! Nothing is pulled: the containers' image is made of a static busybox.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{Cluster, scratch};
use crate::recording;
use crate::streams::{exec, web_socket};

pub const PODS: &str = "/api/v1/namespaces/default/pods";
pub const IMAGE: &str = "skeg-test-busybox:1";

fn socket() -> String {
    std::env::var("SKEG_DOCKER_SOCKET").unwrap_or_else(|_| "/var/run/docker.sock".to_owned())
}

/// Asks the engine; returns the code and the body. `None` if none answers.
pub fn engine(method: &str, path: &str, body: &[u8]) -> Option<(u16, Vec<u8>)> {
    engine_at(&socket(), method, path, body)
}

/// Asks an engine at another socket.
pub fn engine_at(socket: &str, method: &str, path: &str, body: &[u8]) -> Option<(u16, Vec<u8>)> {
    let mut stream = UnixStream::connect(socket).ok()?;
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.0\r\nHost: docker\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n")?;
    let code = String::from_utf8_lossy(&answer[..end]).split(' ').nth(1)?.parse().ok()?;
    Some((code, answer[end + 4..].to_vec()))
}

/// The containers of a cluster at this address or with this data directory, running or not.
fn containers(cluster: &str) -> Vec<Value> {
    let filters = json!({"label": [format!("dev.skeg.cluster={cluster}")]}).to_string();
    let filters: String = filters.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let (code, body) = engine("GET", &format!("/containers/json?all=1&filters={filters}"), b"").expect("it answers");
    assert_eq!(code, 200, "{}", String::from_utf8_lossy(&body));
    serde_json::from_slice(&body).expect("a list")
}

/// Makes the image, once for all tests.
static MADE: Mutex<bool> = Mutex::new(false);

/// A client that looks up names.
const BASH: &str = "/bin/bash";

/// Held by whoever uses the engine; to write by whoever restarts it.
static ENGINE: RwLock<()> = RwLock::new(());

/// The right to use the engine; `None` if the tests cannot be run.
pub fn to_use() -> Option<RwLockReadGuard<'static, ()>> {
    // Another test's panic says nothing about the engine.
    is_there().then(|| ENGINE.read().unwrap_or_else(PoisonError::into_inner))
}

/// Says past the test harness, which swallows what passing tests print, that something is not tested.
pub fn skip(what: &str, missing: &str) {
    assert!(std::env::var_os("SKEG_REQUIRE_DOCKER").is_none(), "{missing}, and SKEG_REQUIRE_DOCKER is set");
    let line = format!("SKIPPED, {what} is not tested: {missing}\n");
    std::io::stderr().write_all(line.as_bytes()).expect("standard error can be written");
}

/// Whether the tests can be run. Makes their image.
fn is_there() -> bool {
    let busybox = busybox();
    let root = rustix::process::geteuid().is_root();
    let missing = match (engine("GET", "/_ping", b""), busybox, root) {
        (Some((200, _)), Some(busybox), true) => {
            let mut made = MADE.lock().expect("no test panics while it is made");
            if !*made {
                make_image(&socket(), busybox);
                *made = true;
            }
            return true;
        }
        (Some((200, _)), None, true) => "there is no busybox (apt-get install busybox-static)".to_owned(),
        (Some((200, _)), _, false) => "only root may run them".to_owned(),
        _ => format!("no engine answers at {} (apt-get install docker.io)", socket()),
    };
    skip("what containers in Docker do", &missing);
    false
}

/// A static busybox.
pub fn busybox() -> Option<&'static str> {
    ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| PathBuf::from(path).exists())
}

/// Makes the image in the engine at this socket.
pub fn make_image(socket: &str, busybox: &str) {
    let root = scratch(&format!("docker-image{}", socket.replace('/', "-"))).join("root");
    let _ = std::fs::remove_dir_all(&root);
    std::fs::create_dir_all(root.join("bin")).expect("it is ours");
    std::fs::create_dir_all(root.join("tmp")).expect("it is ours");
    std::fs::copy(busybox, root.join("bin/busybox")).expect("it can be read");
    for name in [
        "sh", "cat", "echo", "env", "id", "sleep", "httpd", "wget", "tail", "dd", "ls", "test", "true", "false",
        "nslookup", "timeout",
    ] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).expect("it is ours");
    }
    // Its connections look up names by the C library, with the search domains of a pod; a static busybox cannot.
    let libraries = Command::new("ldd").arg(BASH).output().expect("ldd runs");
    let libraries = String::from_utf8_lossy(&libraries.stdout).into_owned();
    let paths = libraries.split_whitespace().filter(|word| word.starts_with('/'));
    for path in paths.chain([BASH]) {
        let to = root.join(&path[1..]);
        std::fs::create_dir_all(to.parent().expect("it is in a directory")).expect("it is ours");
        std::fs::copy(path, to).expect("it can be read");
    }
    let tar = Command::new("tar").arg("-C").arg(&root).args(["-c", "."]).output().expect("tar runs");
    assert!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
    let (name, tag) = IMAGE.split_once(':').expect("it has a tag");
    let made = engine_at(socket, "POST", &format!("/images/create?fromSrc=-&repo={name}&tag={tag}"), &tar.stdout);
    let (code, body) = made.expect("the engine answers");
    let body = String::from_utf8_lossy(&body).into_owned();
    assert!(code == 200 && !body.contains("\"error\""), "{code} {body}");
}

/// Gives the image another name.
pub fn another_name(name: &str) {
    let (name, tag) = name.split_once(':').expect("it has a tag");
    let tagged = engine("POST", &format!("/images/{IMAGE}/tag?repo={name}&tag={tag}"), b"");
    assert_eq!(tagged.expect("the engine answers").0, 201);
}

pub fn start(test: &str, args: &[&str]) -> Cluster {
    let host = format!("unix://{}", socket());
    let cluster = Cluster::start_with(test, &[&["--docker", "--docker-host", &host], args].concat());
    cluster.wait_for("the namespace has its service account", || {
        cluster.get("/api/v1/namespaces/default/serviceaccounts/default").code == 200
    });
    cluster
}

/// The label of an in-memory cluster.
pub fn in_memory(cluster: &Cluster) -> String {
    format!("in-memory at {}", cluster.address)
}

/// Ends an in-memory cluster: nothing is left of it.
pub fn end(mut cluster: Cluster) {
    let label = in_memory(&cluster);
    assert_eq!(cluster.skeg("down").status.code(), Some(0));
    assert_eq!(cluster.exit_code(), Some(0));
    assert_eq!(containers(&label), Vec::<Value>::new());
    let state = format!("/var/lib/skeg-{}", cluster.address.replace(':', "_"));
    assert!(!PathBuf::from(&state).exists(), "{state} is left");
}

/// Containers are removed after their pod has gone from the API.
fn nothing_is_left(cluster: &Cluster, label: &str) {
    cluster.wait_for("no container is left", || containers(label).is_empty());
}

pub fn container(name: &str, script: &str) -> Value {
    json!({"name": name, "image": IMAGE, "command": ["sh", "-c", script]})
}

pub fn with(mut object: Value, field: &str, value: Value) -> Value {
    object[field] = value;
    object
}

pub fn create(cluster: &Cluster, name: &str, spec: Value) {
    let mut spec = with(spec, "terminationGracePeriodSeconds", json!(2));
    spec["automountServiceAccountToken"] = spec["automountServiceAccountToken"].as_bool().unwrap_or(false).into();
    cluster.create(PODS, &json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": spec}));
}

fn once(cluster: &Cluster, name: &str, container: Value) {
    create(cluster, name, json!({"restartPolicy": "Never", "containers": [container]}));
}

pub fn pod(cluster: &Cluster, name: &str) -> Value {
    cluster.get(&format!("{PODS}/{name}")).json()
}

/// Waits for a value in a pod.
pub fn wait(cluster: &Cluster, name: &str, pointer: &str, want: Value) {
    let mut last = Value::Null;
    let begun = std::time::Instant::now();
    loop {
        let pod = pod(cluster, name);
        if pod.pointer(pointer).unwrap_or(&Value::Null) == &want {
            return;
        }
        last = if begun.elapsed() < Duration::from_secs(90) { last } else { pod["status"].clone() };
        assert!(last.is_null(), "{name}: {pointer} is not {want}: {last:#}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

pub fn log(cluster: &Cluster, name: &str, query: &str) -> String {
    cluster.get(&format!("{PODS}/{name}/log{query}")).text()
}

pub fn gone(cluster: &Cluster, name: &str) {
    assert_eq!(cluster.send("DELETE", &format!("{PODS}/{name}"), &[], b"").code, 200);
    cluster.wait_for("the pod is gone", || cluster.get(&format!("{PODS}/{name}")).code == 404);
}

/// What kubectl shows of the events about a pod.
pub fn events(cluster: &Cluster, name: &str) -> String {
    let all = cluster.get("/api/v1/namespaces/default/events").json();
    let about = all["items"].as_array().cloned().unwrap_or_default().into_iter();
    let about = about.filter(|event| event["involvedObject"]["name"] == *name);
    about.map(|event| format!("{}: {}\n", event["reason"].as_str().unwrap_or(""), event["message"])).collect()
}

const STATE: &str = "/status/containerStatuses/0/state";

fn at(path: &str) -> String {
    format!("{STATE}{path}")
}

#[test]
fn what_a_container_gets_is_what_its_spec_says() {
    let Some(_engine) = to_use() else { return };
    let record = recording::empty("docker-gets");
    let cluster = start("docker-gets", &["--in-memory", "--record", record.to_str().expect("text")]);
    let (maps, secrets) = ("/api/v1/namespaces/default/configmaps", "/api/v1/namespaces/default/secrets");
    cluster.create(maps, &json!({"metadata": {"name": "settings"}, "data": {"color": "blue", "note": "hello"}}));
    cluster.create(secrets, &json!({"metadata": {"name": "keys"}, "stringData": {"password": "hunter2"}}));
    let script = "env; echo at $(id -u):$(id -g) in $(pwd); cat /conf/color /one /secret/password /info/labels; echo; \
                  echo host $(cat /proc/sys/kernel/hostname); cat /data/made; touch /x || echo read-only; \
                  cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max; \
                  grep -E ' /(secret|mem) ' /proc/mounts; ls /token; test -s /token/token && echo signed";
    let main = json!({
        "name": "main", "image": IMAGE, "command": ["sh", "-c", script], "args": ["ignored", "$(COLOR)"],
        "workingDir": "/tmp",
        "env": [
            {"name": "A", "value": "x"}, {"name": "B", "value": "$(A)-$(NONE)-$$(A)"},
            {"name": "COLOR", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "color"}}},
            {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "password"}}},
            {"name": "URL", "value": "db://u:$(PASSWORD)@h"},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "CPUS", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}},
        ],
        "envFrom": [{"prefix": "C_", "configMapRef": {"name": "settings"}}],
        "resources": {"limits": {"cpu": "250m", "memory": "64Mi"}},
        "securityContext": {"runAsUser": 1000, "runAsGroup": 2000, "readOnlyRootFilesystem": true},
        "volumeMounts": [
            {"name": "data", "mountPath": "/data"}, {"name": "conf", "mountPath": "/conf"},
            {"name": "conf", "mountPath": "/one", "subPath": "note"}, {"name": "secret", "mountPath": "/secret"},
            {"name": "mem", "mountPath": "/mem"}, {"name": "info", "mountPath": "/info"},
            {"name": "token", "mountPath": "/token"},
        ],
    });
    let init = with(
        container("init", "echo made by init > /data/made"),
        "volumeMounts",
        json!([
        {"name": "data", "mountPath": "/data"}]),
    );
    create(
        &cluster,
        "all",
        json!({
            "restartPolicy": "Never", "initContainers": [init], "containers": [main], "hostname": "somebody",
            "securityContext": {"fsGroup": 3000},
            "volumes": [
                {"name": "data", "emptyDir": {}}, {"name": "mem", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
                {"name": "conf", "configMap": {"name": "settings"}},
                {"name": "secret", "secret": {"secretName": "keys", "defaultMode": 0o400}},
                {"name": "info", "downwardAPI": {"items": [
                    {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
                {"name": "token", "projected": {"sources": [
                    {"serviceAccountToken": {"path": "token", "audience": "somebody"}},
                    {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}}]}},
            ],
        }),
    );
    wait(&cluster, "all", "/status/phase", json!("Succeeded"));
    let text = log(&cluster, "all", "");
    let ip = pod(&cluster, "all")["status"]["podIP"].as_str().expect("it had an address").to_owned();
    for line in [
        "B=x-$(NONE)-$(A)",
        "COLOR=blue",
        "C_note=hello",
        "PASSWORD=hunter2",
        "URL=db://u:hunter2@h",
        &format!("IP={ip}"),
        "CPUS=250",
        "KUBERNETES_SERVICE_PORT=443",
        "at 1000:2000 in /tmp",
        "bluehellohunter2app=\"all\"",
        "host somebody",
        "made by init",
        "read-only",
        "67108864",
        "ca.crt",
        "signed",
    ] {
        assert!(text.lines().any(|l| l == line), "{line:?} is not in\n{text}");
    }
    assert!(text.contains("tmpfs /secret tmpfs") && text.contains("size=1024k"), "{text}");
    let events = events(&cluster, "all");
    assert!(!events.contains("MissingClusterDNS"), "names of the cluster are served: {events}");
    gone(&cluster, "all");
    nothing_is_left(&cluster, &in_memory(&cluster));
    end(cluster);
    // Its agent decides the same again, and what it told Docker is recorded without the password.
    recording::replays(&record);
    let all = recording::text(&record);
    assert!(
        all.contains("db://u:") && !all.contains("hunter2") && !all.contains("aHVudGVyMg"),
        "it is in the recording"
    );
}

#[test]
fn ends_have_their_reasons() {
    let Some(_engine) = to_use() else { return };
    let cluster = start("docker-ends", &["--in-memory"]);
    once(&cluster, "well", container("c", "echo fine > /dev/termination-log"));
    once(&cluster, "ill", container("c", "exit 3"));
    let profiles = PathBuf::from(format!("/var/lib/skeg-{}/seccomp", cluster.address.replace(':', "_")));
    std::fs::create_dir_all(&profiles).expect("it is the cluster's");
    let denies = json!({"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]});
    std::fs::write(profiles.join("no-mkdir.json"), denies.to_string()).expect("it is the cluster's");
    let profile = |name: &str| json!({"seccompProfile": {"type": "Localhost", "localhostProfile": name}});
    let denied = container("c", "busybox mkdir /tmp/x && exit 1; exit 5");
    once(&cluster, "denied", with(denied, "securityContext", profile("no-mkdir.json")));
    once(&cluster, "unknown", with(container("c", "true"), "securityContext", profile("none.json")));
    let told =
        with(container("c", "echo last words; exit 4"), "terminationMessagePolicy", json!("FallbackToLogsOnError"));
    once(&cluster, "told", told);
    let greedy = "dd if=/dev/zero of=/dev/null bs=200M count=1";
    let limit = json!({"limits": {"memory": "16Mi"}});
    once(&cluster, "greedy", with(container("c", greedy), "resources", limit));
    once(&cluster, "nothing", json!({"name": "c", "image": IMAGE, "command": ["/no/such/program"]}));
    let never = with(container("c", "true"), "imagePullPolicy", json!("Never"));
    once(&cluster, "never", with(never, "image", json!("skeg-test-none:1")));
    once(&cluster, "absent", with(container("c", "true"), "image", json!("127.0.0.1:1/skeg-test-none:1")));
    let root = json!({"runAsNonRoot": true});
    once(&cluster, "root", with(container("c", "true"), "securityContext", root));
    let file = json!([{"name": "v", "hostPath": {"path": "/proc/self/status", "type": "Directory"}}]);
    create(&cluster, "wrong", json!({"containers": [container("c", "true")], "volumes": file}));
    create(&cluster, "again", json!({"restartPolicy": "OnFailure", "containers": [container("c", "exit 1")]}));

    let reason = at("/terminated/reason");
    wait(&cluster, "well", &reason, json!("Completed"));
    wait(&cluster, "well", &at("/terminated/message"), json!("fine\n"));
    wait(&cluster, "ill", &reason, json!("Error"));
    wait(&cluster, "ill", &at("/terminated/exitCode"), json!(3));
    wait(&cluster, "ill", "/status/phase", json!("Failed"));
    wait(&cluster, "told", &at("/terminated/message"), json!("last words\n"));
    wait(&cluster, "greedy", &reason, json!("OOMKilled"));
    wait(&cluster, "greedy", &at("/terminated/exitCode"), json!(137));
    wait(&cluster, "nothing", &reason, json!("StartError"));
    wait(&cluster, "nothing", &at("/terminated/exitCode"), json!(128));
    wait(&cluster, "nothing", "/status/phase", json!("Failed"));
    let waiting = at("/waiting/reason");
    wait(&cluster, "denied", &at("/terminated/exitCode"), json!(5));
    wait(&cluster, "unknown", &waiting, json!("CreateContainerConfigError"));
    std::fs::remove_dir_all(&profiles).expect("it is the cluster's");
    wait(&cluster, "never", &waiting, json!("ErrImageNeverPull"));
    wait(&cluster, "absent", &waiting, json!("ImagePullBackOff"));
    wait(&cluster, "root", &waiting, json!("CreateContainerConfigError"));
    wait(&cluster, "again", "/status/containerStatuses/0/lastState/terminated/exitCode", json!(1));
    wait(&cluster, "again", &waiting, json!("CrashLoopBackOff"));
    let restarts = pod(&cluster, "again")["status"]["containerStatuses"][0]["restartCount"].as_u64();
    assert!(restarts >= Some(1), "{restarts:?}");
    cluster.wait_for("the volume is refused", || events(&cluster, "wrong").contains("is not a directory"));
    let id = pod(&cluster, "ill")["status"]["containerStatuses"][0]["containerID"].clone();
    assert!(id.as_str().is_some_and(|id| id.starts_with("docker://")), "{id}");
    end(cluster);
}

#[test]
fn probes_hooks_and_stops_reach_the_container() {
    let Some(_engine) = to_use() else { return };
    let cluster = start("docker-probes", &["--in-memory"]);
    let serve = "mkdir -p /tmp/www; echo yes > /tmp/www/ready; exec httpd -f -p 8080 -h /tmp/www";
    let mut web = container("web", &serve.replace("mkdir", "busybox mkdir"));
    web["ports"] = json!([{"name": "http", "containerPort": 8080}]);
    web["startupProbe"] = json!({"tcpSocket": {"port": "http"}, "periodSeconds": 1});
    web["readinessProbe"] = json!({"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 1});
    web["livenessProbe"] = json!({"exec": {"command": ["cat", "/tmp/www/alive"]}, "periodSeconds": 1,
        "failureThreshold": 1, "initialDelaySeconds": 2});
    web["lifecycle"] = json!({"postStart": {"exec": {"command": ["sh", "-c", "echo up > /tmp/hook"]}}});
    let beside = container("beside", "while true; do wget -qO- http://localhost:8080/ready; sleep 1; done");
    create(&cluster, "web", json!({"containers": [web, beside]}));
    wait(&cluster, "web", "/status/containerStatuses/0/ready", json!(true));
    cluster
        .wait_for("the containers share their network", || log(&cluster, "web", "?container=beside").contains("yes"));
    cluster.wait_for("the liveness probe kills it", || {
        pod(&cluster, "web")["status"]["containerStatuses"][0]["restartCount"].as_u64() >= Some(1)
    });
    let told = events(&cluster, "web");
    assert!(told.contains("Liveness probe failed: cat: can't open '/tmp/www/alive': No such file"), "{told}");
    let previous = log(&cluster, "web", "?container=web&previous=true");
    assert!(!previous.contains("not found"), "the log of the run before is kept: {previous}");

    // It gets other resources while it runs.
    let limits = |cpu: &str, memory: &str| json!({"limits": {"cpu": cpu, "memory": memory}});
    let grows = with(container("c", "exec sleep 1000"), "resources", limits("100m", "32Mi"));
    create(&cluster, "grows", json!({"containers": [grows]}));
    wait(&cluster, "grows", "/status/containerStatuses/0/ready", json!(true));
    let more = json!([{"name": "c", "resources": {"requests": {"cpu": "150m", "memory": "48Mi"},
        "limits": {"cpu": "150m", "memory": "48Mi"}}}]);
    let kind = ("Content-Type", "application/strategic-merge-patch+json");
    let patch = json!({"spec": {"containers": more}}).to_string();
    let resized = cluster.send("PATCH", &format!("{PODS}/grows/resize"), &[kind], patch.as_bytes());
    assert_eq!(resized.code, 200, "{}", resized.text());
    wait(&cluster, "grows", "/status/containerStatuses/0/resources/limits/memory", json!("48Mi"));
    let files = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max; exit 0";
    let [_, stdout, ..] = exec(&cluster, "grows", &["sh", "-c", files]);
    assert_eq!(stdout.trim(), (48 << 20).to_string());
    assert_eq!(pod(&cluster, "grows")["status"]["containerStatuses"][0]["restartCount"], 0);

    // A container that is asked to stop has its grace period for it.
    let script = "trap 'echo bye; exit 0' TERM; echo ready; while true; do sleep 0.1; done";
    create(&cluster, "polite", json!({"containers": [container("c", script)]}));
    cluster.wait_for("it runs", || log(&cluster, "polite", "").contains("ready"));
    let finalizer = json!({"metadata": {"finalizers": ["example.com/hold"]}});
    assert_eq!(cluster.write("PATCH", &format!("{PODS}/polite"), &finalizer).code, 200);
    assert_eq!(cluster.send("DELETE", &format!("{PODS}/polite"), &[], b"").code, 200);
    wait(&cluster, "polite", &at("/terminated/exitCode"), json!(0));
    end(cluster);
}

#[test]
fn clients_reach_into_containers() {
    let Some(_engine) = to_use() else { return };
    let cluster = start("docker-streams", &["--in-memory"]);
    let script = "for i in 1 2 3; do echo line $i; done; echo wrong >&2; busybox mkdir /tmp/www; echo here > \
                  /tmp/www/index.html; exec httpd -f -p 127.0.0.1:8080 -h /tmp/www";
    create(&cluster, "p", json!({"containers": [container("c", script)]}));
    cluster.wait_for("it runs", || log(&cluster, "p", "").contains("wrong"));
    assert_eq!(log(&cluster, "p", "?tailLines=2").lines().count(), 2);
    let dated = log(&cluster, "p", "?timestamps=true&limitBytes=5");
    assert!(dated.starts_with("20"), "{dated}");
    let [_, stdout, stderr, status] = exec(&cluster, "p", &["sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((stdout.as_str(), stderr.as_str()), ("out\n", "err\n"));
    assert!(status.contains("exit status 7"), "{status}");
    let [.., status] = exec(&cluster, "p", &["true"]);
    assert!(status.contains("Success"), "{status}");
    // Only the pod itself can reach what listens at its loopback address; so can a forwarded port.
    let mut socket = web_socket(&cluster, &format!("{PODS}/p/portforward?ports=8080"), "v4.channel.k8s.io");
    let first: Vec<_> = (0..2).map(|_| socket.next().expect("each channel tells its port")).collect();
    assert_eq!(first, [[0, 144, 31], [1, 144, 31]]);
    socket.send(b"\x00GET / HTTP/1.0\r\n\r\n");
    let mut answer = String::new();
    while !answer.contains("here") {
        answer += &String::from_utf8_lossy(&socket.next().expect("it answers")[1..]);
    }
    let [.., status] = exec(&cluster, "p", &["/no/such/program"]);
    assert!(status.contains("Failure"), "{status}");
    // The proxy asks a pod at its address, where this one does not listen.
    let answer = cluster.get(&format!("{PODS}/p:8080/proxy/"));
    assert!(answer.code == 503 && answer.text().contains("connection refused"), "{}", answer.text());
    let serve = "busybox mkdir /tmp/www; echo there > /tmp/www/page; exec httpd -f -p 8080 -h /tmp/www";
    create(&cluster, "q", json!({"containers": [container("c", serve)]}));
    let page = || cluster.get(&format!("{PODS}/q:8080/proxy/page"));
    cluster.wait_for("it serves", || (page().code, page().text()) == (200, "there\n".to_owned()));
    end(cluster);
}

#[test]
fn ephemeral_containers_see_their_target() {
    let Some(_engine) = to_use() else { return };
    let cluster = start("docker-debug", &["--in-memory"]);
    create(&cluster, "p", json!({"containers": [container("c", "exec sleep 1234")]}));
    wait(&cluster, "p", "/status/phase", json!("Running"));
    let script = "busybox ps > /tmp/seen; cat /tmp/seen; exec sleep 1000";
    let add = |ephemeral: Value| {
        let patch = json!({"spec": {"ephemeralContainers": [ephemeral]}});
        let path = format!("{PODS}/p/ephemeralcontainers");
        let kind = ("Content-Type", "application/strategic-merge-patch+json");
        cluster.send("PATCH", &path, &[kind], patch.to_string().as_bytes())
    };
    let answer = add(with(container("sees", script), "targetContainerName", json!("c")));
    assert_eq!(answer.code, 200, "{}", answer.text());
    assert_eq!(add(container("alone", script)).code, 200);
    let state = |index: usize, rest: &str| format!("/status/ephemeralContainerStatuses/{index}/state{rest}");
    cluster.wait_for("both have looked", || {
        ["sees", "alone"].iter().all(|name| log(&cluster, "p", &format!("?container={name}")).contains("busybox ps"))
    });
    assert!(log(&cluster, "p", "?container=sees").contains("sleep 1234"), "it sees its target's processes");
    assert!(!log(&cluster, "p", "?container=alone").contains("sleep 1234"), "it sees its own processes");
    assert_eq!(add(with(container("fails", ""), "command", json!(["/no/such/program"]))).code, 200);
    wait(&cluster, "p", &state(2, "/terminated/reason"), json!("StartError"));
    let told = events(&cluster, "p");
    assert!(told.contains("Created container: sees") && told.contains("Started container sees"), "{told}");
    let pod = pod(&cluster, "p");
    assert_eq!(
        (&pod["status"]["phase"], &pod["status"]["containerStatuses"][0]["ready"]),
        (&json!("Running"), &json!(true))
    );
    gone(&cluster, "p");
    nothing_is_left(&cluster, &in_memory(&cluster));
    end(cluster);
}

#[test]
fn what_runs_is_adopted() {
    let Some(_engine) = to_use() else { return };
    let dir = scratch("docker-adopt").join("data");
    if dir.exists() {
        std::fs::remove_dir_all(&dir).expect("it is ours, and nothing is mounted in it");
    }
    let args = ["--data-dir", dir.to_str().expect("paths of tests are text")];
    let mut cluster = start("docker-adopt", &args);
    let label = dir.canonicalize().expect("it is there").display().to_string();
    let volume = json!([{"name": "v", "emptyDir": {}}]);
    let mount = json!([{"name": "v", "mountPath": "/v"}]);
    let stays = with(container("c", "echo kept > /v/file; exec sleep 1000"), "volumeMounts", mount);
    create(&cluster, "stays", json!({"containers": [stays], "volumes": volume}));
    create(&cluster, "ends", json!({"restartPolicy": "Never", "containers": [container("c", "sleep 4; exit 5")]}));
    create(&cluster, "deleted", json!({"containers": [container("c", "exec sleep 1000")]}));
    for name in ["stays", "ends", "deleted"] {
        wait(&cluster, name, "/status/phase", json!("Running"));
    }
    let before = pod(&cluster, "stays")["status"]["containerStatuses"].clone();
    cluster.kill();
    // While nobody looks, one ends by itself, and one is taken away by somebody else.
    std::thread::sleep(Duration::from_secs(4));
    let lost = containers(&label).into_iter().find(|c| {
        let of = |name: &str| c["Labels"][name].as_str().unwrap_or_default();
        of("io.kubernetes.pod.name") == "deleted" && of("io.kubernetes.docker.type") == "container"
    });
    let lost = lost.expect("it runs")["Id"].as_str().expect("an id").to_owned();
    assert_eq!(engine("DELETE", &format!("/containers/{lost}?force=1"), b"").expect("it answers").0, 204);

    let cluster = start("docker-adopt", &args);
    wait(&cluster, "ends", &at("/terminated/exitCode"), json!(5));
    wait(&cluster, "deleted", "/status/containerStatuses/0/restartCount", json!(1));
    wait(&cluster, "stays", "/status/containerStatuses/0/ready", json!(true));
    assert_eq!(pod(&cluster, "stays")["status"]["containerStatuses"], before, "nothing was restarted");
    let running = containers(&label).iter().filter(|c| c["State"] == "running").count();
    assert_eq!(running, 4, "two pods with a container each, and none twice: {:#?}", containers(&label));
    let [_, stdout, ..] = exec(&cluster, "stays", &["cat", "/v/file"]);
    assert_eq!(stdout, "kept\n");
    for name in ["stays", "ends", "deleted"] {
        gone(&cluster, name);
    }
    nothing_is_left(&cluster, &label);
    assert_eq!(std::fs::read_dir(dir.join("docker/pods")).expect("it was made").count(), 0, "no volume is left");
    assert_eq!(cluster.skeg("down").status.code(), Some(0));
}

/// `SKEG_DOCKER_RESTART` is a program that restarts the engine, which must have been started with `--live-restore`.
#[test]
fn a_restart_of_the_engine_restarts_no_container() {
    if !is_there() {
        return;
    }
    let Some(restart) = std::env::var_os("SKEG_DOCKER_RESTART") else {
        return skip("a restart of Docker's engine", "SKEG_DOCKER_RESTART does not name a program");
    };
    let _alone = ENGINE.write().unwrap_or_else(PoisonError::into_inner);
    let cluster = start("docker-restart", &["--in-memory"]);
    create(&cluster, "stays", json!({"containers": [container("c", "exec sleep 1000")]}));
    create(&cluster, "ends", json!({"restartPolicy": "Never", "containers": [container("c", "sleep 3; exit 6")]}));
    wait(&cluster, "stays", "/status/phase", json!("Running"));
    wait(&cluster, "ends", "/status/phase", json!("Running"));
    let before = pod(&cluster, "stays")["status"]["containerStatuses"].clone();
    assert!(Command::new(restart).status().expect("it runs").success());
    wait(&cluster, "ends", "/status/phase", json!("Failed"));
    create(&cluster, "after", json!({"restartPolicy": "Never", "containers": [container("c", "echo fine")]}));
    wait(&cluster, "after", "/status/phase", json!("Succeeded"));
    assert_eq!(pod(&cluster, "stays")["status"]["containerStatuses"], before, "nothing was restarted");
    end(cluster);
}
