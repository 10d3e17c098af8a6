//! The binaries of `skeg envtest-assets`, started with the flags that controller-runtime's envtest passes.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use serde_json::json;

use crate::client::{Cluster, scratch};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const REPLICA_SETS: &str = "/apis/apps/v1/namespaces/default/replicasets";
const PODS: &str = "/api/v1/namespaces/default/pods";

/// A process that is killed when the test ends.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A certificate authority like envtest's `TinyCA`, and the certificates and keys that it issues, PEM.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "envtest-environment");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().expect("keys can be made");
        let certificate = params.self_signed(&key).expect("it can be signed");
        Authority { pem: certificate.pem(), issuer: Issuer::new(params, key) }
    }

    fn sign(&self, mut params: CertificateParams, usage: ExtendedKeyUsagePurpose) -> (String, String) {
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().expect("keys can be made");
        let certificate = params.signed_by(&key, &self.issuer).expect("it can be signed");
        (certificate.pem(), key.serialize_pem())
    }

    fn user(&self, name: &str, group: &str) -> (String, String) {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::OrganizationName, group);
        params.distinguished_name.push(DnType::CommonName, name);
        self.sign(params, ExtendedKeyUsagePurpose::ClientAuth)
    }
}

/// What envtest sets up: the binaries, an etcd, and certificates.
struct Environment {
    dir: PathBuf,
    etcd: String,
    serving: Authority,
    clients: Authority,
    _etcd: Process,
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    listener.local_addr().expect("it is bound").port()
}

fn assets(dir: &Path) {
    let made = Command::new(env!("CARGO_BIN_EXE_skeg")).arg("envtest-assets").arg(dir.join("bin")).output();
    let made = made.expect("the binary runs");
    assert!(made.status.success() && made.stdout.starts_with(b"KUBEBUILDER_ASSETS=/"), "{made:?}");
}

fn output(binary: &Path, args: &[&str]) -> Output {
    Command::new(binary).args(args).output().expect("the binary runs")
}

/// Gets a path over plain HTTP; `None` if there is no response.
fn get(address: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.starts_with("HTTP/1.1 200").then(|| text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()))?
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..600 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("not within 12 s: {what}");
}

impl Environment {
    fn new(test: &str) -> Environment {
        let dir = scratch(test);
        let _ = std::fs::remove_dir_all(dir.join("etcd"));
        assets(&dir);
        let etcd = format!("127.0.0.1:{}", free_port());
        let mut command = Command::new(dir.join("bin/etcd"));
        command.args([
            format!("--advertise-client-urls=http://{etcd}"),
            format!("--data-dir={}", dir.join("etcd").display()),
            format!("--listen-client-urls=http://{etcd}"),
            format!("--listen-peer-urls=http://127.0.0.1:{}", free_port()),
            "--unsafe-no-fsync=true".to_owned(),
        ]);
        let process = Process(command.spawn().expect("etcd starts"));
        wait_for("etcd is healthy", || get(&etcd, "/health").is_some_and(|health| health.contains("\"true\"")));
        let (serving, clients) = (Authority::new(), Authority::new());
        let certs = dir.join("certs");
        std::fs::create_dir_all(&certs).expect("it can be made");
        let write = |name: &str, text: &str| std::fs::write(certs.join(name), text).expect("it can be written");
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let server = CertificateParams::new(names).expect("these are names");
        let (certificate, key) = serving.sign(server, ExtendedKeyUsagePurpose::ServerAuth);
        write("apiserver.crt", &certificate);
        write("apiserver.key", &key);
        write("client-cert-auth-ca.crt", &clients.pem);
        let (certificate, key) = Authority::new().user("sa", "sa");
        write("sa-signer.crt", &certificate);
        write("sa-signer.key", &key);
        Environment { dir, etcd, serving, clients, _etcd: process }
    }

    fn flags(&self, port: u16) -> Vec<String> {
        let certs = self.dir.join("certs");
        let file = |name: &str| certs.join(name).display().to_string();
        vec![
            "--allow-privileged=true".to_owned(),
            "--authorization-mode=RBAC".to_owned(),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--cert-dir={}", certs.display()),
            format!("--client-ca-file={}", file("client-cert-auth-ca.crt")),
            "--disable-admission-plugins=ServiceAccount".to_owned(),
            format!("--etcd-servers=http://{}", self.etcd),
            format!("--secure-port={port}"),
            format!("--service-account-issuer=https://127.0.0.1:{port}/"),
            format!("--service-account-key-file={}", file("sa-signer.crt")),
            format!("--service-account-signing-key-file={}", file("sa-signer.key")),
            "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
        ]
    }

    fn api_server(&self, environment: &[(&str, &str)]) -> Cluster {
        let port = free_port();
        let mut command = Command::new(self.dir.join("bin/kube-apiserver"));
        command.args(self.flags(port)).envs(environment.iter().copied());
        let child = command.stdout(Stdio::null()).spawn().expect("kube-apiserver starts");
        let (certificate, key) = self.clients.user("admin", "system:masters");
        let (authority, address) = (self.serving.pem.as_bytes(), format!("127.0.0.1:{port}"));
        let admin = (certificate.as_bytes(), key.as_bytes());
        wait_for("it listens", || TcpStream::connect(&address).is_ok());
        let server = Cluster::of(child, address, self.dir.join("kubeconfig"), authority, admin);
        wait_for("it is healthy, without credentials", || server.get_as_stranger("/healthz").code == 200);
        server.wait_for("it is ready", || server.get("/readyz").code == 200);
        server
    }
}

fn deployment() -> serde_json::Value {
    json!({"metadata": {"name": "web"}, "spec": {"selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": "nginx:1"}]}}}})
}

#[test]
fn a_suite_finds_what_it_expects_and_its_data_again() {
    let environment = Environment::new("envtest");
    let mut server = environment.api_server(&[]);
    assert_eq!(server.get_as_stranger("/api/v1/pods").code, 403);
    let service = server.get("/api/v1/namespaces/default/services/kubernetes").json();
    assert_eq!(service["spec"]["clusterIP"], "10.0.0.1");
    // The namespace has no ServiceAccount `default`, because no controller creates one; the pod must be admitted
    // anyway.
    server.create(PODS, &json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}));
    server.create(DEPLOYMENTS, &deployment());
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(server.get(REPLICA_SETS).json()["items"], json!([]), "no controller runs");
    assert_eq!(server.get("/api/v1/nodes").json()["items"], json!([]));
    server.kill();
    drop(server);
    let mut server = environment.api_server(&[]);
    for path in [format!("{PODS}/p"), format!("{DEPLOYMENTS}/web")] {
        assert_eq!(server.get(&path).code, 200, "{path} is found again");
    }
    let ended = Command::new("kill").arg(server.pid().to_string()).status().expect("there is a kill");
    assert!(ended.success());
    assert_eq!(server.exit_code(), Some(0), "SIGTERM ends it well");
}

#[test]
fn controllers_and_nodes_run_when_they_are_asked_for() {
    let environment = Environment::new("envtest-controllers");
    let server = environment.api_server(&[("SKEG_CONTROLLERS", "all"), ("SKEG_NODES", "2")]);
    server.create(DEPLOYMENTS, &deployment());
    server.wait_for("the deployment is available", || {
        server.get(&format!("{DEPLOYMENTS}/web")).json()["status"]["availableReplicas"] == 1
    });
}

#[test]
fn flags_are_those_of_1_36_and_what_is_unknown_is_named() {
    let dir = scratch("envtest-flags");
    assets(&dir);
    let (api, etcd, kubectl) = (dir.join("bin/kube-apiserver"), dir.join("bin/etcd"), dir.join("bin/kubectl"));
    let has = |binary: &Path, flag: &str| {
        let help = output(binary, &["--help"]);
        assert!(help.status.success());
        String::from_utf8_lossy(&help.stdout).lines().any(|line| line.trim_start().starts_with(flag))
    };
    assert!(has(&etcd, "--unsafe-no-fsync") && has(&api, "--secure-port") && !has(&api, "--insecure-port"));
    let check = |binary: &Path, args: &[&str], want: &str| {
        let refused = output(binary, args);
        let why = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(2) && why.contains(want), "{args:?}: {why}");
    };
    let base = "--etcd-servers=http://127.0.0.1:1";
    check(&api, &["--insecure-port=0", base], "--insecure-port");
    check(&api, &[base, "--disable-admission-plugins=Prioriti"], "\"Prioriti\" is unknown");
    check(&api, &[base, "--service-cluster-ip-range=10.0.0.0"], "10.0.0.0/24");
    check(&api, &[base, "--authorization-mode=Webhook"], "Webhook");
    check(&etcd, &["--listen-client-urls=https://127.0.0.1:0"], "only http is served");
    let lost = Command::new(&kubectl).env("PATH", "").env_remove("SKEG_KUBECTL").arg("version").output();
    let lost = lost.expect("it runs");
    assert!(String::from_utf8_lossy(&lost.stderr).contains("there is no kubectl on the path"), "{lost:?}");
}
