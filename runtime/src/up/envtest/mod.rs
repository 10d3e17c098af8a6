//! Drop-in replacements for the binaries of controller-runtime's envtest. `skeg envtest-assets DIR` creates
//! `kube-apiserver`, `etcd` and `kubectl` in a directory; a test suite uses them with `KUBEBUILDER_ASSETS=DIR`.
//!
//! All three are this binary, which looks at the name that it was started by. `etcd` only answers its health check and
//! owns the data directory; `kube-apiserver` stores its data there, and accepts the flags of Kubernetes' own.
//!
//! Source: controller-runtime `pkg/internal/testing/controlplane`.

mod apiserver;
mod etcd;
mod kubectl;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::Exit;
use crate::disk::explain;

/// The end of the text of `skeg envtest-assets --help`.
pub const HELP: &str = "\
Examples:
  skeg envtest-assets /tmp/assets && KUBEBUILDER_ASSETS=/tmp/assets go test ./...
      an operator's suite on controller-runtime's envtest, with this binary for kube-apiserver and etcd

No controller runs, as in envtest. Environment of the suite:
  SKEG_CONTROLLERS=all  controllers and the scheduler run too
  SKEG_NODES=N          simulated nodes (16 CPUs, 64Gi, 110 pods each)
  SKEG_PERTURB=LEVEL    clients are disturbed, light or heavy, as by `skeg up --perturb`
  SKEG_SEED=N           what is disturbed, and which names are generated; random where not given
  SKEG_KUBECTL=FILE     the kubectl that the third one runs; without it, the first other one on the path";

/// Names by which this binary acts as another one.
const NAMES: [&str; 3] = ["kube-apiserver", "etcd", "kubectl"];

/// Arguments of `envtest-assets`.
#[derive(Args, Debug, Clone)]
pub struct AssetsArgs {
    /// Where the three are put; it is made if it is not there.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

/// Runs the binary whose name this process was started by; `None` if it is not one of [`NAMES`].
pub fn by_name(args: Vec<OsString>) -> Option<Result<Exit, String>> {
    let name = Path::new(args.first()?).file_name()?.to_str()?.to_owned();
    Some(match name.as_str() {
        "kube-apiserver" => apiserver::run(args),
        "etcd" => etcd::run(args),
        "kubectl" => kubectl::run(args),
        _ => return None,
    })
}

/// `skeg envtest-assets`.
pub fn assets(args: &AssetsArgs) -> Result<Exit, String> {
    let error = |path: &Path, e: &std::io::Error| format!("error: {}: {}", path.display(), explain(e));
    let own = std::env::current_exe().map_err(|e| format!("error: this binary cannot be found: {}", explain(&e)))?;
    fs::create_dir_all(&args.dir).map_err(|e| error(&args.dir, &e))?;
    for name in NAMES {
        let path = args.dir.join(name);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(error(&path, &e)),
            Ok(()) | Err(_) => {}
        }
        // Hard links do not work across file systems; a copy does.
        if fs::hard_link(&own, &path).is_err() {
            fs::copy(&own, &path).map_err(|e| error(&path, &e))?;
        }
    }
    let dir = fs::canonicalize(&args.dir).map_err(|e| error(&args.dir, &e))?;
    println!("KUBEBUILDER_ASSETS={}", dir.display());
    Ok(Exit::Well)
}

/// Parses the arguments of a replaced binary. `Err` is how the process must end: with success if help or version was
/// printed, with the message if the arguments are wrong.
fn parse<P: clap::Parser>(args: Vec<OsString>) -> Result<P, Result<Exit, String>> {
    P::try_parse_from(args).map_err(|e| {
        if e.use_stderr() {
            return Err(e.to_string().trim_end().to_owned());
        }
        print!("{e}");
        Ok(Exit::Well)
    })
}
