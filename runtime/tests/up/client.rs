//! A cluster for one test, and an HTTP client that sends exactly what it is given.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;

/// Time-out of something that should take a moment at most.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The variable that names the program of a test. If it is not set, the test says that it is skipped; with
/// `SKEG_REQUIRE_CLIENTS` set that is an error.
pub fn required(variable: &str) -> Option<OsString> {
    let found = std::env::var_os(variable);
    if found.is_none() {
        let missing = format!("{variable} is not set: what it names is not tested");
        assert!(std::env::var_os("SKEG_REQUIRE_CLIENTS").is_none(), "{missing}, and SKEG_REQUIRE_CLIENTS is set");
        eprintln!("SKIPPED: {missing}");
    }
    found
}

/// A directory for one test.
pub fn scratch(test: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("up").join(test);
    std::fs::create_dir_all(&dir).expect("it can be made");
    dir
}

/// A running cluster; it is killed when the test ends.
pub struct Cluster {
    child: Child,
    /// `127.0.0.1:port`.
    pub address: String,
    /// Its kubeconfig.
    pub kubeconfig: PathBuf,
    admin: Arc<ClientConfig>,
    stranger: Arc<ClientConfig>,
}

/// An HTTP response.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub code: u16,
    /// Headers, with names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// What came of a request to a server that may be cut off at any moment.
#[derive(Debug)]
pub enum Tried {
    /// It was not sent.
    Unsent,
    /// It was sent, at least in part, and no whole answer came.
    Unanswered,
    /// This came.
    Answered(Answer),
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    /// The first header with this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

impl Cluster {
    /// Starts an in-memory cluster and waits until it answers.
    pub fn start(test: &str, args: &[&str]) -> Cluster {
        Cluster::start_with(test, &[&["--in-memory"], args].concat())
    }

    /// Starts a cluster and waits until it answers.
    pub fn start_with(test: &str, args: &[&str]) -> Cluster {
        let kubeconfig = scratch(test).join("kubeconfig");
        let mut command = Command::new(env!("CARGO_BIN_EXE_skeg"));
        command.args(["up", "--listen", "127.0.0.1:0", "--kubeconfig"]).arg(&kubeconfig).args(args);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().expect("the binary runs");
        let mut line = String::new();
        let read = BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut line);
        assert!(read.is_ok() && line.starts_with("kubectl "), "it says how to go on: {line:?}");
        let text = std::fs::read_to_string(&kubeconfig).expect("the kubeconfig is written");
        let config: Value = serde_saphyr::from_str(&text).expect("a kubeconfig is YAML");
        let server = config["clusters"][0]["cluster"]["server"].as_str().expect("a URL");
        let address = server.strip_prefix("https://").expect("TLS").to_owned();
        let cluster = Cluster::at(child, address, kubeconfig);
        cluster.wait_for("the cluster is ready", || cluster.get("/readyz").code == 200);
        cluster
    }

    /// A server that is already running; the first cluster and user of the kubeconfig are its administrator's.
    pub fn at(child: Child, address: String, kubeconfig: PathBuf) -> Cluster {
        let text = std::fs::read_to_string(&kubeconfig).expect("the kubeconfig is written");
        let config: Value = serde_saphyr::from_str(&text).expect("a kubeconfig is YAML");
        let decode = |value: &Value| STANDARD.decode(value.as_str().expect("base64")).expect("base64");
        let user = &config["users"][0]["user"];
        let authority = decode(&config["clusters"][0]["cluster"]["certificate-authority-data"]);
        let (certificate, key) = (decode(&user["client-certificate-data"]), decode(&user["client-key-data"]));
        Cluster::of(child, address, kubeconfig, &authority, (&certificate, &key))
    }

    /// A cluster that is already running. `authority` is the certificate authority's certificate; `admin` the
    /// administrator's certificate and key. All are PEM.
    pub fn of(child: Child, address: String, kubeconfig: PathBuf, authority: &[u8], admin: (&[u8], &[u8])) -> Cluster {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority).expect("PEM")).expect("a certificate");
        let certificate = CertificateDer::from_pem_slice(admin.0).expect("PEM");
        let key = PrivateKeyDer::from_pem_slice(admin.1).expect("PEM");
        let builder = || {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
            builder.expect("versions are known").with_root_certificates(roots.clone())
        };
        let admin = builder().with_client_auth_cert(vec![certificate], key).expect("they belong together");
        let stranger = builder().with_no_client_auth();
        Cluster { child, address, kubeconfig, admin: Arc::new(admin), stranger: Arc::new(stranger) }
    }

    /// Asks the API server at another of its addresses as the administrator; its certificate must be for that.
    pub fn get_at(&self, ip: &str, port: u16, path: &str) -> Answer {
        Cluster::get_as(&self.admin, ip, port, path)
    }

    /// The same without a client certificate.
    pub fn get_at_as_stranger(&self, ip: &str, port: u16, path: &str) -> Answer {
        Cluster::get_as(&self.stranger, ip, port, path)
    }

    fn get_as(config: &Arc<ClientConfig>, ip: &str, port: u16, path: &str) -> Answer {
        let mut stream = Cluster::connect_to(config, &format!("{ip}:{port}"), ip);
        let head = format!("GET {path} HTTP/1.1\r\nHost: {ip}\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("it reads");
        read_answer(&mut BufReader::new(stream)).unwrap_or_else(|e| panic!("{path} at {ip}: {e}"))
    }

    fn connect(&self, config: &Arc<ClientConfig>) -> StreamOwned<ClientConnection, TcpStream> {
        Cluster::connect_to(config, &self.address, "127.0.0.1")
    }

    fn connect_to(config: &Arc<ClientConfig>, address: &str, name: &str) -> StreamOwned<ClientConnection, TcpStream> {
        let name = ServerName::try_from(name.to_owned()).expect("an address");
        let connection = ClientConnection::new(Arc::clone(config), name).expect("TLS can be set up");
        let stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("sockets have time-outs");
        StreamOwned::new(connection, stream)
    }

    /// Asks for another protocol as the administrator; returns the connection and the head of the response.
    pub fn upgrade(&self, path: &str, headers: &[(&str, &str)]) -> (impl Read + Write + use<>, Answer) {
        let mut stream = self.connect(&self.admin);
        let mut head = format!("POST {path} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\n", self.address);
        if headers.iter().any(|(_, value)| *value == "websocket") {
            head = head.replacen("POST", "GET", 1);
        }
        headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
        stream.write_all(format!("{head}\r\n").as_bytes()).expect("it reads");
        // Byte by byte, so that no frame after the head is lost in a buffer.
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("it answers");
            answer.push(byte[0]);
        }
        let mut answer = read_head(&mut answer.as_slice()).expect("it answers in HTTP");
        if answer.code != 101 {
            let length = answer.header("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
            answer.body.resize(length, 0);
            stream.read_exact(&mut answer.body).expect("the body comes");
        }
        (stream, answer)
    }

    fn exchange(
        &self,
        config: &Arc<ClientConfig>,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let mut stream = self.connect(config);
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.address);
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        stream.write_all(format!("{head}\r\n").as_bytes()).expect("it reads");
        // If the server rejects the request early, it may not read the whole body.
        let _ = stream.write_all(body).and_then(|()| stream.flush());
        read_answer(&mut BufReader::new(stream)).unwrap_or_else(|e| panic!("{method} {path}: {e}"))
    }

    /// Creates an object in a cluster that may be killed at any moment; returns whether the create was acknowledged.
    pub fn try_create(&self, path: &str, body: &Value) -> bool {
        self.try_send("POST", path, body.to_string().as_bytes()).is_some_and(|answer| answer.code == 201)
    }

    /// Sends a request to a server that may be killed at any moment; `None` if it does not answer.
    pub fn try_send(&self, method: &str, path: &str, body: &[u8]) -> Option<Answer> {
        let stream = TcpStream::connect(&self.address).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).expect("sockets have time-outs");
        let name = ServerName::try_from("127.0.0.1").expect("an address");
        let connection = ClientConnection::new(Arc::clone(&self.admin), name).expect("TLS can be set up");
        let mut stream = StreamOwned::new(connection, stream);
        let length = body.len();
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
        let sent = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
        sent.ok().and_then(|()| read_answer(&mut BufReader::new(stream)).ok())
    }

    /// Opens a connection as the administrator to a server that may be cut off: none if it is not there within
    /// `patience`, for which whoever reads from it waits, too.
    fn try_connect(&self, patience: Duration) -> std::io::Result<StreamOwned<ClientConnection, TcpStream>> {
        let stream = TcpStream::connect_timeout(&self.address.parse().expect("an address"), patience)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        let name = ServerName::try_from("127.0.0.1").expect("an address");
        let connection = ClientConnection::new(Arc::clone(&self.admin), name).expect("TLS can be set up");
        let mut stream = StreamOwned::new(connection, stream);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(stream)
    }

    /// Sends JSON to a server that may be cut off, and waits for its answer, each for as long as `patience`.
    pub fn attempt(&self, method: &str, path: &str, body: &[u8], patience: Duration) -> Tried {
        let Ok(mut stream) = self.try_connect(patience) else { return Tried::Unsent };
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n"
        );
        let sent = stream.write_all(&[head.as_bytes(), body].concat()).and_then(|()| stream.flush());
        let answer = sent.and_then(|()| read_answer(&mut BufReader::new(stream)));
        answer.map_or(Tried::Unanswered, Tried::Answered)
    }

    /// Follows a watch at a server that may be cut off, until it ends, nothing comes for `patience`, or `take` wants no
    /// more. Returns the code of the answer, if there was one.
    pub fn follow(&self, path: &str, patience: Duration, mut take: impl FnMut(Value) -> bool) -> Option<u16> {
        let mut stream = self.try_connect(patience).ok()?;
        let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).ok()?;
        let mut reader = BufReader::new(stream);
        let code = read_head(&mut reader).ok()?.code;
        let mut line = String::new();
        while reader.read_line(&mut line).is_ok_and(|read| read > 0) && line.ends_with('\n') {
            // Lines that are not JSON are chunk lengths.
            if line.starts_with('{') && !take(serde_json::from_str(&line).expect("events are JSON")) {
                break;
            }
            line.clear();
        }
        Some(code)
    }

    /// Sends a request as the administrator.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.exchange(&self.admin, method, path, headers, body)
    }

    /// Sends a GET request as the administrator.
    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], b"")
    }

    /// Sends a request without a client certificate.
    pub fn send_as_stranger(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.exchange(&self.stranger, method, path, headers, body)
    }

    /// Sends a GET request without a client certificate.
    pub fn get_as_stranger(&self, path: &str) -> Answer {
        self.send_as_stranger("GET", path, &[], b"")
    }

    /// Sends JSON as the administrator.
    pub fn write(&self, method: &str, path: &str, body: &Value) -> Answer {
        let content_type = match method {
            "PATCH" => "application/merge-patch+json",
            _ => "application/json",
        };
        self.send(method, path, &[("Content-Type", content_type)], body.to_string().as_bytes())
    }

    /// Creates an object, which must succeed.
    pub fn create(&self, path: &str, body: &Value) -> Value {
        let answer = self.write("POST", path, body);
        assert_eq!(answer.code, 201, "{path}: {}", answer.text());
        answer.json()
    }

    /// The first `count` events of a watch, as lines of JSON.
    pub fn watch(&self, path: &str, count: usize) -> Vec<Value> {
        let mut stream = self.connect(&self.admin);
        let head = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address);
        stream.write_all(head.as_bytes()).expect("it reads");
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        while reader.read_line(&mut line).expect("it answers") > 2 {
            line.clear();
        }
        let mut events = Vec::new();
        while events.len() < count {
            line.clear();
            assert!(reader.read_line(&mut line).expect("events come") > 0, "the watch ended after {events:?}");
            // Lines that are not JSON are chunk lengths.
            if line.starts_with('{') {
                events.push(serde_json::from_str(&line).expect("events are JSON"));
            }
        }
        events
    }

    /// Sends a request without a body as the administrator, and reads the head of its answer only.
    pub fn head_of(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut stream = self.connect(&self.admin);
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.address);
        if headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("upgrade")) {
            head += "Connection: Upgrade\r\n";
        }
        headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
        stream.write_all(format!("{head}\r\n").as_bytes()).expect("it reads");
        read_head(&mut BufReader::new(stream)).unwrap_or_else(|e| panic!("{method} {path}: {e}"))
    }

    /// The administrator's TLS.
    pub fn admin_tls(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.admin)
    }

    /// Opens a GET request as the administrator, whose response is then read from the connection.
    pub fn open(&self, path: &str) -> impl Read + use<> {
        let mut stream = self.connect(&self.admin);
        let head = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address);
        stream.write_all(head.as_bytes()).expect("it reads");
        stream
    }

    /// Begins a POST as the administrator, whose body of two bytes is then written to the connection.
    pub fn begin_post(&self, path: &str, headers: &[(&str, &str)]) -> impl Read + Write + use<> {
        let mut stream = self.connect(&self.admin);
        let mut head = format!("POST {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.address);
        headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
        stream.write_all(format!("{head}Content-Length: 2\r\n\r\n").as_bytes()).expect("it reads");
        stream
    }

    /// Waits until a condition holds.
    pub fn wait_for(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !holds() {
            assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Runs another `skeg` command for this cluster.
    pub fn skeg(&self, command: &str) -> Output {
        let mut skeg = Command::new(env!("CARGO_BIN_EXE_skeg"));
        skeg.args([command, "--listen", &self.address]).output().expect("the binary runs")
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it like `kill -9`.
    pub fn kill(&mut self) {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
    }

    /// Waits until the process has exited; returns its exit code.
    pub fn exit_code(&mut self) -> Option<i32> {
        self.child.wait().expect("it is our child").code()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // It may have exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn bad(line: &str) -> std::io::Error {
    std::io::Error::other(format!("no answer: {line:?}"))
}

/// The head of a response.
fn read_head(reader: &mut impl BufRead) -> std::io::Result<Answer> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let code = line.split(' ').nth(1).and_then(|c| c.parse().ok()).ok_or_else(|| bad(&line))?;
    let mut headers = Vec::new();
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    Ok(Answer { code, headers, body: Vec::new() })
}

fn read_answer(reader: &mut impl BufRead) -> std::io::Result<Answer> {
    let mut answer = read_head(reader)?;
    let mut line = String::new();
    if answer.header("transfer-encoding") == Some("chunked") {
        loop {
            line.clear();
            reader.read_line(&mut line)?;
            let length = usize::from_str_radix(line.trim(), 16).map_err(|_| bad(&line))?;
            let mut chunk = vec![0; length + 2];
            reader.read_exact(&mut chunk)?;
            if length == 0 {
                break;
            }
            answer.body.extend_from_slice(&chunk[..length]);
        }
    } else {
        let length = answer.header("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
        answer.body.resize(length, 0);
        reader.read_exact(&mut answer.body)?;
    }
    Ok(answer)
}
