//! `skeg doctor`: what this host lacks to run what it is asked about.
//!
//! Nothing is changed: each check looks at what there is, and says what to do if that is not enough.

use std::fmt;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{DATE, HOST};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::Serialize;
use serde_json::Value;
use skeg_core::Wall;
use skeg_core::store::Progress;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::agents::Credentials;
use super::args::EtcdArgs;
use super::clock::time_of_day;
use super::cluster::ApiOptions;
use super::proxy::{Nftables, run};
use super::{docker, service};
use crate::Exit;
use crate::cli::Output;
use crate::disk::explain;
use crate::terminal::emit;

/// The end of the text of `skeg doctor --help`.
pub const DOCTOR_HELP: &str = "\
Examples:
  sudo skeg doctor
      whether this host can be a node that runs real containers (`skeg up --docker`, `skeg agent --docker`)
  skeg doctor --etcd http://10.0.0.1:2379,http://10.0.0.2:2379
      whether it can be a server, by these members of etcd
  skeg doctor --docker --kubeconfig /var/lib/skeg/node.conf
      whether it can be a node of a cluster, and whether its clock is that of the servers

Exit codes:
  0  nothing that is needed is missing
  1  something is
  2  bad input or bad usage";

/// How long an answer over the network may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How far clocks may be apart before certificates and tokens of the one are not yet valid for the other, in seconds.
const APART: f64 = 30.0;
/// From when on it is worth a word: timestamps of objects are confusing.
const NOTICEABLE: f64 = 2.0;

/// Arguments of `doctor`.
#[derive(Args, Debug)]
pub struct DoctorArgs {
    /// Look for what a node needs that runs real containers; so it is, too, if nothing else is asked about.
    #[arg(long)]
    docker: bool,
    /// Where Docker listens: a path, or unix://PATH.
    #[arg(long, value_name = "SOCKET", default_value = "unix:///var/run/docker.sock")]
    docker_host: String,
    #[command(flatten)]
    etcd: EtcdArgs,
    /// Look whether the servers of this kubeconfig are reached, and compare their clocks with this host's.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// What is printed on standard output.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output: Output,
}

/// Whether there is what is needed.
#[derive(Serialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
enum State {
    /// It is there.
    Ok,
    /// It is missed by some.
    Warning,
    /// It is needed, and missing.
    Missing,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            State::Ok => "ok",
            State::Warning => "warning",
            State::Missing => "missing",
        })
    }
}

/// What one check has found.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
struct Finding {
    check: String,
    state: State,
    /// What there is.
    found: String,
    /// What to do; empty if nothing.
    advice: String,
}

impl Finding {
    fn new(check: &str, state: State, found: impl Into<String>, advice: &str) -> Finding {
        Finding { check: check.to_owned(), state, found: found.into(), advice: advice.to_owned() }
    }

    fn ok(check: &str, found: impl Into<String>) -> Finding {
        Finding::new(check, State::Ok, found, "")
    }
}

/// `skeg doctor`.
pub fn doctor(args: &DoctorArgs) -> Result<Exit, String> {
    let runtime = service::http_threads()?;
    let credentials = args.kubeconfig.as_deref().map(Credentials::read).transpose()?;
    let etcd = etcd_tls(&args.etcd)?;
    let mut findings = Vec::new();
    if args.docker || (args.etcd.endpoints.is_empty() && credentials.is_none()) {
        findings.extend(runtime.block_on(of_docker(args.docker_host.trim_start_matches("unix://").as_ref())));
    }
    for endpoint in &args.etcd.endpoints {
        findings.push(runtime.block_on(of_etcd(endpoint, etcd.clone())));
    }
    if let Some(credentials) = credentials {
        let tls = Arc::new(credentials.tls);
        for server in &credentials.servers {
            findings.push(runtime.block_on(of_server(server, &tls)));
        }
    }
    emit(&match args.output {
        Output::Json => serde_json::json!({ "checks": findings }).to_string() + "\n",
        Output::Text => table(&findings),
    });
    let is_missing = findings.iter().any(|finding| finding.state == State::Missing);
    Ok(if is_missing { Exit::Differs } else { Exit::Well })
}

fn table(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.check.chars().count()).max().unwrap_or(0);
    let row = |Finding { check, state, found, advice }: &Finding| {
        let advice = if advice.is_empty() { String::new() } else { format!("\n{:9}{:width$}  → {advice}", "", "") };
        format!("{state:<9}{check:<width$}  {found}{advice}\n")
    };
    findings.iter().map(row).collect()
}

/// What a node needs that runs real containers.
async fn of_docker(socket: &Path) -> Vec<Finding> {
    let user = match rustix::process::geteuid().is_root() {
        true => Finding::ok("user", "root"),
        false => {
            let advice = "volumes are mounted and rules are written by root; run it with sudo";
            Finding::new("user", State::Missing, "not root", advice)
        }
    };
    let info = docker::about(socket).await;
    let (cgroups, engine) = (of_cgroups(info.as_ref().ok()), of_engine(info));
    vec![user, engine, cgroups, of_nftables(), of_conntrack(), of_program("ip", &["-V"], "iproute2"), of_forwarding()]
}

fn of_engine(info: Result<Value, String>) -> Finding {
    const CHECK: &str = "Docker";
    match info {
        Ok(info) if info["OSType"] != "linux" => Finding::new(
            CHECK,
            State::Missing,
            "an engine of other containers than Linux'",
            "switch it to Linux containers",
        ),
        Ok(info) => {
            let text = |field: &str| info[field].as_str().unwrap_or("?").to_owned();
            Finding::ok(CHECK, format!("{}, storage driver {}", text("ServerVersion"), text("Driver")))
        }
        Err(why) => {
            let advice = "install it (apt-get install docker.io) and start it; --docker-host names another socket";
            let why = why.trim_start_matches("error: ").split("; ").next().unwrap_or_default();
            Finding::new(CHECK, State::Missing, why, advice)
        }
    }
}

fn of_cgroups(info: Option<&Value>) -> Finding {
    const CHECK: &str = "cgroups";
    let by_docker = info.and_then(|info| info["CgroupVersion"].as_str()).map(str::to_owned);
    let mounted = if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() { "2" } else { "1" };
    match by_docker.as_deref().unwrap_or(mounted) {
        "2" => Finding::ok(CHECK, "v2"),
        other => {
            let advice =
                "containers run, but Kubernetes supports v2 only; boot with systemd.unified_cgroup_hierarchy=1";
            Finding::new(CHECK, State::Warning, format!("v{other}"), advice)
        }
    }
}

fn of_nftables() -> Finding {
    const CHECK: &str = "nftables";
    let services = ApiOptions::default().service_cidr;
    match Nftables::find("doctor", (Ipv4Addr::from(services.0), services.1), None) {
        Ok(_) => {
            let version = run("nft", &["--version"], "").unwrap_or_default();
            Finding::ok(CHECK, version.trim())
        }
        Err(why) => {
            let advice =
                "without it Services and their names are not served; apt-get install nftables, and run it as root";
            Finding::new(CHECK, State::Missing, why, advice)
        }
    }
}

fn of_conntrack() -> Finding {
    let found = of_program("conntrack", &["--version"], "conntrack");
    match found.state {
        State::Ok => found,
        State::Warning | State::Missing => Finding {
            state: State::Warning,
            advice: format!("UDP clients stay with an endpoint that has gone; {}", found.advice),
            ..found
        },
    }
}

fn of_program(program: &str, args: &[&str], package: &str) -> Finding {
    match run(program, args, "") {
        Ok(said) => Finding::ok(program, said.lines().next().unwrap_or_default().trim()),
        Err(why) => Finding::new(program, State::Missing, why, &format!("apt-get install {package}")),
    }
}

fn of_forwarding() -> Finding {
    const FILE: &str = "/proc/sys/net/ipv4/ip_forward";
    match std::fs::read_to_string(FILE) {
        Ok(text) if text.trim() == "1" => Finding::ok("forwarding", "on"),
        Ok(_) => {
            let advice = "pods reach nobody: sysctl -w net.ipv4.ip_forward=1, which Docker sets when it starts";
            Finding::new("forwarding", State::Missing, "off", advice)
        }
        Err(e) => {
            Finding::new("forwarding", State::Warning, format!("{FILE}: {}", explain(&e)), "look whether it is on")
        }
    }
}

/// How etcd is reached over TLS.
fn etcd_tls(args: &EtcdArgs) -> Result<Option<Arc<ClientConfig>>, String> {
    let Some(authorities) = &args.authorities else { return Ok(None) };
    let error = |path: &Path, why: String| format!("error: {}: {why}", path.display());
    let read = |path: &Path| std::fs::read(path).map_err(|e| error(path, explain(&e)));
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(&read(authorities)?) {
        let added = authority.map_err(|e| e.to_string()).and_then(|a| roots.add(a).map_err(|e| e.to_string()));
        added.map_err(|why| error(authorities, why))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|e| format!("error: TLS: {e}"))?.with_root_certificates(roots);
    let tls = match (&args.certificate, &args.key) {
        (Some(certificate), Some(key)) => {
            let chain = CertificateDer::pem_slice_iter(&read(certificate)?).collect::<Result<Vec<_>, _>>();
            let chain = chain.map_err(|e| error(certificate, e.to_string()))?;
            let secret = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|e| error(key, e.to_string()))?;
            builder.with_client_auth_cert(chain, secret).map_err(|e| error(certificate, e.to_string()))?
        }
        (_, _) => builder.with_no_client_auth(),
    };
    Ok(Some(Arc::new(tls)))
}

async fn of_etcd(endpoint: &str, tls: Option<Arc<ClientConfig>>) -> Finding {
    let check = format!("etcd {endpoint}");
    let answer = get(&format!("{}/version", endpoint.trim_end_matches('/')), tls.as_ref()).await;
    let version = answer.and_then(|answer| {
        let value: Value =
            serde_json::from_slice(&answer.body).map_err(|_| "what answers there is not etcd".to_owned())?;
        let version = value["etcdserver"].as_str().ok_or("what answers there is not etcd")?;
        Ok(version.to_owned())
    });
    let health = get(&format!("{}/health", endpoint.trim_end_matches('/')), tls.as_ref()).await;
    let is_healthy = health.is_ok_and(|health| health.code == 200);
    match version {
        Err(why) => Finding::new(&check, State::Missing, why, "start it, or correct --etcd and its certificates"),
        Ok(version) if !is_healthy => {
            let advice = "it has no leader, or an alarm: etcdctl endpoint status, etcdctl alarm list";
            Finding::new(&check, State::Missing, format!("{version}, not healthy"), advice)
        }
        Ok(version) if Progress::of_etcd(&version) == Progress::Overtakes => {
            let advice = "it works, with a write for each consistent read; 3.4.31, 3.5.13 and newer need none";
            Finding::new(&check, State::Warning, version, advice)
        }
        Ok(version) => Finding::ok(&check, version),
    }
}

async fn of_server(url: &str, tls: &Arc<ClientConfig>) -> Finding {
    let check = format!("server {url}");
    let begun = time_of_day();
    match get(&format!("{}/readyz", url.trim_end_matches('/')), Some(tls)).await {
        Err(why) => Finding::new(&check, State::Missing, why, "start it, or correct the kubeconfig"),
        Ok(answer) if answer.code != 200 => {
            let said = String::from_utf8_lossy(&answer.body).lines().next().unwrap_or_default().to_owned();
            Finding::new(&check, State::Missing, format!("not ready: {said}"), "see its log")
        }
        Ok(answer) => match answer.date.as_deref().and_then(seconds_of) {
            Some(date) => of_clock(&check, date, begun, answer.took),
            None => {
                Finding::new(&check, State::Warning, "ready; it does not say its time", "compare the clocks by hand")
            }
        },
    }
}

/// Compares a server's time, in whole seconds, with this host's before it was asked.
fn of_clock(check: &str, date: i64, begun: Wall, took: Duration) -> Finding {
    let (begun, took) = (begun.0 as f64 / 1e6, took.as_secs_f64());
    // It was some time between `date` and a second later when the answer was made, within the time that it took.
    let ahead = (date as f64 - (begun + took)).max(0.0);
    let behind = (begun - (date as f64 + 1.0)).max(0.0);
    let apart = ahead.max(behind);
    let which = if ahead > behind { "behind" } else { "ahead of" };
    let found = format!("ready; this host's clock is {apart:.0} s {which} its own");
    let advice = "keep both by NTP (chrony, systemd-timesyncd)";
    match apart {
        apart if apart >= APART => Finding::new(check, State::Missing, found, advice),
        apart if apart >= NOTICEABLE => Finding::new(check, State::Warning, found, advice),
        _ => Finding::ok(check, "ready; the clocks agree"),
    }
}

/// The seconds since the epoch of a `Date` header, such as `Mon, 30 Nov 2026 02:30:00 GMT`.
fn seconds_of(date: &str) -> Option<i64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut parts = date.split_once(", ")?.1.split([' ', ':']);
    let number = |parts: &mut dyn Iterator<Item = &str>| parts.next()?.parse::<i64>().ok();
    let day = number(&mut parts)?;
    let name = parts.next()?;
    let month = MONTHS.iter().position(|month| *month == name)? as i64 + 1;
    let (year, hour, minute, second) =
        (number(&mut parts)?, number(&mut parts)?, number(&mut parts)?, number(&mut parts)?);
    // Days from the civil calendar, with years that begin in March.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

/// An answer over HTTP.
struct Answer {
    code: u16,
    date: Option<String>,
    body: Bytes,
    took: Duration,
}

/// Asks for a URL.
async fn get(url: &str, tls: Option<&Arc<ClientConfig>>) -> Result<Answer, String> {
    let uri: Uri = url.parse().map_err(|_| format!("{url:?} is no URL"))?;
    let is_https = uri.scheme_str() == Some("https");
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
    let asked = async {
        let begun = Instant::now();
        let stream = TcpStream::connect((host.as_str(), port)).await.map_err(|e| e.to_string())?;
        match (is_https, tls) {
            (false, _) => exchange(stream, &uri, begun).await,
            (true, None) => Err("it is reached over TLS, and no authority is given (--etcd-cafile)".to_owned()),
            (true, Some(tls)) => {
                let name = ServerName::try_from(host.clone()).map_err(|e| e.to_string())?;
                let stream = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await;
                exchange(stream.map_err(|e| e.to_string())?, &uri, begun).await
            }
        }
    };
    timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs())))
}

async fn exchange<S>(stream: S, uri: &Uri, begun: Instant) -> Result<Answer, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    tokio::spawn(connection);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let host = uri.authority().map_or("", |authority| authority.as_str());
    let request = Request::get(path).header(HOST, host).body(Empty::<Bytes>::new()).map_err(|e| e.to_string())?;
    let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
    let took = begun.elapsed();
    let date = response.headers().get(DATE).and_then(|date| date.to_str().ok()).map(str::to_owned);
    let code = response.status().as_u16();
    let body = response.into_body().collect().await.map_err(|e| e.to_string())?.to_bytes();
    Ok(Answer { code, date, body, took })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use skeg_core::Wall;

    use super::{Finding, State, of_clock, seconds_of, table};

    #[test]
    fn dates_are_read() {
        assert_eq!(seconds_of("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(seconds_of("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(seconds_of("Thu, 29 Feb 2024 23:59:59 GMT"), Some(1_709_251_199));
        assert_eq!(seconds_of("tomorrow"), None);
    }

    #[test]
    fn clocks_are_compared_as_well_as_a_whole_second_tells() {
        let check = |date: i64, begun: f64, took: f64, want: State| {
            let found = of_clock("c", date, Wall((begun * 1e6) as i64), Duration::from_secs_f64(took));
            assert_eq!(found.state, want, "{found:?}");
            found.found
        };
        check(100, 100.9, 0.1, State::Ok);
        check(100, 98.5, 2.0, State::Ok);
        assert!(check(110, 100.0, 0.0, State::Warning).contains("10 s behind its own"));
        assert!(check(100, 141.0, 0.0, State::Missing).contains("40 s ahead of its own"));
    }

    #[test]
    fn what_is_missing_is_told_with_what_to_do() {
        let missing = Finding::new("nftables", State::Missing, "nft: it is not there", "install it");
        let text = table(&[Finding::ok("user", "root"), missing]);
        assert_eq!(
            text,
            "ok       user      root\nmissing  nftables  nft: it is not there\n                   → install it\n"
        );
    }
}
