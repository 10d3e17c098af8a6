//! `kube-apiserver`: accepts those flags of Kubernetes' own that envtest and its users set.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use skeg_core::apiserver::plug_ins;
use skeg_core::auth::Mode;
use skeg_core::controllers::LoadBalancerRange;
use skeg_core::features::FeatureGates;
use skeg_sim::scenario::Scheduling;
use tokio::net::TcpListener;

use super::etcd;
use crate::Exit;
use crate::disk::explain;
use crate::up::args::{LOAD_BALANCERS, LogFormat, cidr};
use crate::up::clock::Clock;
use crate::up::cluster::{ApiOptions, Components};
use crate::up::data::DataDir;
use crate::up::keys::Keys;
use crate::up::perturb::Perturb;
use crate::up::service::{self, Data, Service, Start};
use crate::up::tokens::{ISSUER, TokenOptions};
use crate::up::{pki, server};

/// Kubernetes' admission plug-ins that are not implemented.
const NOT_THERE: [&str; 20] = [
    "AlwaysAdmit",
    "AlwaysDeny",
    "AlwaysPullImages",
    "CertificateApproval",
    "CertificateSigning",
    "CertificateSubjectRestriction",
    "ClusterTrustBundleAttest",
    "DenyServiceExternalIPs",
    "EventRateLimit",
    "ExtendedResourceToleration",
    "ImagePolicyWebhook",
    "LimitPodHardAntiAffinityTopology",
    "MutatingAdmissionPolicy",
    "NamespaceAutoProvision",
    "NamespaceExists",
    "NodeRestriction",
    "OwnerReferencesPermissionEnforcement",
    "PodNodeSelector",
    "PodTolerationRestriction",
    "PodTopologyLabels",
];

/// The kube-apiserver of envtest: skeg's API server, without controllers unless SKEG_CONTROLLERS=all is set.
#[derive(clap::Parser, Debug)]
#[command(name = "kube-apiserver", disable_version_flag = true, max_term_width = 100)]
struct ApiServerArgs {
    /// Address to listen at.
    #[arg(long, value_name = "IP", default_value = "0.0.0.0")]
    bind_address: IpAddr,
    /// Port to serve HTTPS at.
    #[arg(long, value_name = "PORT", default_value_t = 6443)]
    secure_port: u16,
    /// Address at which members of the cluster reach this server; --bind-address where not given.
    #[arg(long, value_name = "IP")]
    advertise_address: Option<IpAddr>,
    /// Where the server's certificate and key are (apiserver.crt, apiserver.key); they are made if they are not there.
    #[arg(long, value_name = "DIR", default_value = "/var/run/kubernetes")]
    cert_dir: PathBuf,
    /// The server's certificate, PEM, instead of that in --cert-dir.
    #[arg(long, value_name = "FILE", requires = "tls_private_key_file")]
    tls_cert_file: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert_file")]
    tls_private_key_file: Option<PathBuf>,
    /// Authorities whose client certificates say who a user is, PEM.
    #[arg(long, value_name = "FILE")]
    client_ca_file: Option<PathBuf>,
    /// The etcd of `skeg envtest-assets` where the data is kept.
    #[arg(long, value_name = "URL", required = true, value_delimiter = ',')]
    etcd_servers: Vec<String>,
    /// Network of the cluster's Services.
    #[arg(long, value_name = "CIDR", default_value = "10.0.0.0/24", value_parser = cidr)]
    service_cluster_ip_range: ([u8; 4], u8),
    /// Ports of Services of type NodePort.
    #[arg(long, value_name = "A-B", default_value = "30000-32767", value_parser = port_range)]
    service_node_port_range: (u16, u16),
    /// RBAC, AlwaysAllow, AlwaysDeny, or Node (accepted, and allows nothing: no kubelet asks here).
    #[arg(long, value_name = "MODES", default_value = "AlwaysAllow", value_delimiter = ',',
        value_parser = ["AlwaysAllow", "AlwaysDeny", "RBAC", "Node"])]
    authorization_mode: Vec<String>,
    /// Admission plug-ins that do not run.
    #[arg(long, value_name = "PLUGINS", value_delimiter = ',')]
    disable_admission_plugins: Vec<String>,
    /// Admission plug-ins that run; one that is not there is warned of.
    #[arg(long, value_name = "PLUGINS", value_delimiter = ',')]
    enable_admission_plugins: Vec<String>,
    /// Accepted, without effect: no container is real.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    allow_privileged: Option<bool>,
    /// Who issues tokens of service accounts; of several, the first signs, and only its tokens are accepted.
    #[arg(long, value_name = "URL")]
    service_account_issuer: Vec<String>,
    /// Keys whose signatures of tokens are accepted beside the signing key's, PEM.
    #[arg(long, value_name = "FILE")]
    service_account_key_file: Vec<PathBuf>,
    /// The key that signs tokens of service accounts, PEM; a new one at every start where not given.
    #[arg(long, value_name = "FILE")]
    service_account_signing_key_file: Option<PathBuf>,
    /// Audiences of this server's tokens; the issuer where not given.
    #[arg(long, value_name = "AUDIENCES", value_delimiter = ',')]
    api_audiences: Vec<String>,
    /// Accepted, without effect: what 1.36 has on by default is on.
    #[arg(long, value_name = "GATES")]
    feature_gates: Vec<String>,
    /// Accepted, without effect: the versions that 1.36 serves by default are served.
    #[arg(long, value_name = "APIS")]
    runtime_config: Vec<String>,
    /// Accepted, without effect.
    #[arg(long, short, value_name = "LEVEL")]
    v: Option<String>,
    /// Accepted, without effect.
    #[arg(long, value_name = "PATTERNS")]
    vmodule: Option<String>,
    /// Format of the log.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    logging_format: LogFormat,
}

fn port_range(text: &str) -> Result<(u16, u16), String> {
    let parsed = text.split_once('-').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    match parsed {
        Some((first, last)) if 0 < first && first <= last => Ok((first, last)),
        _ => Err("a range of ports is written like 30000-32767".to_owned()),
    }
}

impl ApiServerArgs {
    /// The admission plug-ins that do not run.
    fn disabled_plug_ins(&self) -> Result<BTreeSet<String>, String> {
        let known = |name: &str| plug_ins().chain(NOT_THERE).any(|known| known == name);
        let (disabled, enabled) = (&self.disable_admission_plugins, &self.enable_admission_plugins);
        let named = || disabled.iter().chain(enabled).filter(|name| !name.is_empty());
        if let Some(unknown) = named().find(|name| !known(name)) {
            return Err(format!("error: admission plug-in {unknown:?} is unknown"));
        }
        for name in enabled.iter().filter(|name| NOT_THERE.contains(&name.as_str())) {
            tracing::warn!("--enable-admission-plugins: {name} is not there yet, and does not run");
        }
        Ok(disabled.iter().cloned().collect())
    }

    /// How tokens of service accounts are signed and checked.
    fn tokens(&self) -> Result<TokenOptions, String> {
        let keys = match &self.service_account_signing_key_file {
            None => Keys::generate()?,
            Some(file) => {
                let others =
                    self.service_account_key_file.iter().map(|file| read(file)).collect::<Result<Vec<_>, _>>()?;
                let unknown = || format!("error: {}: not all are keys of ECDSA or RSA, PEM", file.display());
                Keys::of_pem(&read(file)?, &others).ok_or_else(unknown)?
            }
        };
        let issuer = self.service_account_issuer.first().map_or(ISSUER, String::as_str).to_owned();
        Ok(TokenOptions { keys, issuer, audiences: self.api_audiences.clone() })
    }

    /// The authorisers, in order.
    fn modes(&self) -> Vec<Mode> {
        let mode = |name: &String| match name.as_str() {
            "AlwaysAllow" => Some(Mode::AlwaysAllow),
            "AlwaysDeny" => Some(Mode::AlwaysDeny),
            "RBAC" => Some(Mode::Rbac),
            _ => None,
        };
        self.authorization_mode.iter().filter_map(mode).collect()
    }

    /// The server's certificate and key, PEM. They are generated if they do not exist.
    fn certificate(&self) -> Result<(String, String), String> {
        if let (Some(certificate), Some(key)) = (&self.tls_cert_file, &self.tls_private_key_file) {
            return Ok((read(certificate)?, read(key)?));
        }
        let (certificate, key) = (self.cert_dir.join("apiserver.crt"), self.cert_dir.join("apiserver.key"));
        if !certificate.exists() {
            let made = pki::generate(&[self.bind_address])?.server;
            fs::create_dir_all(&self.cert_dir).map_err(|e| error(&self.cert_dir, &e))?;
            fs::write(&key, &made.key_pem).map_err(|e| error(&key, &e))?;
            fs::write(&certificate, &made.certificate_pem).map_err(|e| error(&certificate, &e))?;
        }
        Ok((read(&certificate)?, read(&key)?))
    }
}

fn error(path: &Path, e: &std::io::Error) -> String {
    format!("error: {}: {}", path.display(), explain(e))
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|e| error(path, &e))
}

/// Options that envtest has no flags for, from the environment: whether controllers run, and the number of nodes.
fn beside() -> Result<(bool, u32), String> {
    let controllers = match std::env::var("SKEG_CONTROLLERS").as_deref() {
        Err(_) | Ok("" | "none") => false,
        Ok("all") => true,
        Ok(other) => return Err(format!("error: SKEG_CONTROLLERS={other}: is neither all nor none")),
    };
    let nodes = match std::env::var("SKEG_NODES").as_deref() {
        Err(_) | Ok("") => 0,
        Ok(text) => {
            let number = text.parse().ok().filter(|n| *n <= 20_000);
            number.ok_or_else(|| format!("error: SKEG_NODES={text}: is no number up to 20000"))?
        }
    };
    Ok((controllers, nodes))
}

/// What disturbs clients, from the environment: the seed, and how much; `None`: nothing.
fn perturbation() -> Result<(u64, Option<Perturb>), String> {
    let level = match std::env::var("SKEG_PERTURB").as_deref() {
        Err(_) | Ok("" | "none") => None,
        Ok(text) => {
            let level = Perturb::from_str(text, false);
            Some(level.map_err(|_| format!("error: SKEG_PERTURB={text}: is neither none, light nor heavy"))?)
        }
    };
    let seed = match std::env::var("SKEG_SEED").as_deref() {
        Err(_) | Ok("") => service::random_number()?,
        Ok(text) => text.parse().map_err(|_| format!("error: SKEG_SEED={text}: is no number"))?,
    };
    Ok((seed, level))
}

pub(super) fn run(args: Vec<OsString>) -> Result<Exit, String> {
    let args: ApiServerArgs = match super::parse(args) {
        Ok(args) => args,
        Err(ended) => return ended,
    };
    crate::up::start_log(args.logging_format);
    let (controllers, nodes) = beside()?;
    let api = ApiOptions {
        service_cidr: args.service_cluster_ip_range,
        node_port_range: args.service_node_port_range,
        disabled_plug_ins: args.disabled_plug_ins()?,
        features: FeatureGates::default(),
    };
    let (certificate, key) = args.certificate()?;
    let client_ca = args.client_ca_file.as_deref().map(read).transpose()?;
    let tls = server::tls(client_ca.as_deref(), &certificate, &key)?;
    let runtime = service::http_threads()?;
    let listen = SocketAddr::new(args.bind_address, args.secure_port);
    let listener = runtime.block_on(TcpListener::bind(listen));
    let listener = listener.map_err(|e| format!("error: {listen}: {}", explain(&e)))?;
    let data = etcd::data_of(&args.etcd_servers[0])?;
    let (dir, found) = DataDir::open(&data.dir.join("skeg"), data.fsync)?;
    let (seed, level) = perturbation()?;
    let start = Start {
        seed,
        docker: None,
        nodes: 0..nodes,
        components: Components { controllers, scheduler: controllers },
        load_balancers: LoadBalancerRange { cidr: cidr(LOAD_BALANCERS)? },
        images: BTreeMap::new(),
        scheduling: Scheduling::default(),
        clock: Clock::new(1),
        api,
        advertised: SocketAddr::new(args.advertise_address.unwrap_or(args.bind_address), args.secure_port),
        authorisation: args.modes(),
        front_proxy: Some(pki::front_proxy(client_ca.as_deref().unwrap_or_default(), None)?),
        root_ca: Some(certificate),
        several: None,
        recorder: None,
    };
    let service = Service::start(&runtime, start, (Data::Directory(dir, found), args.tokens()?), listen.to_string())?;
    let service = service.perturbed(seed, level);
    service.serve(&runtime, vec![listener], tls, || tracing::info!(address = %listen, "the API is served"))
}
