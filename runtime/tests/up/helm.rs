//! Helm with a cluster: the life of a release of the chart in `helm/shop`, which has hooks, a CustomResourceDefinition
//! and a LoadBalancer Service. Runs each binary that `HELM` names, separated as in `PATH`; says that it is skipped if
//! there is none.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::client::{Cluster, required, scratch};

struct Helm<'a> {
    binary: PathBuf,
    cluster: &'a Cluster,
    home: PathBuf,
}

impl Helm<'_> {
    /// Runs a command; returns whether it succeeded, and its output.
    fn run(&self, line: &str) -> (bool, String) {
        let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/up/helm/shop");
        let mut command = Command::new(&self.binary);
        for directory in ["CACHE", "CONFIG", "DATA"] {
            command.env(format!("HELM_{directory}_HOME"), self.home.join(directory));
        }
        command.arg("--kubeconfig").arg(&self.cluster.kubeconfig);
        for arg in line.split(' ') {
            match arg {
                "CHART" => command.arg(&chart),
                arg => command.arg(arg),
            };
        }
        let output = command.output().expect("Helm runs");
        (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    }

    /// Runs a command that must succeed; `parts` must be in its output.
    fn check(&self, line: &str, parts: &[&str]) {
        let (well, text) = self.run(line);
        assert!(well, "helm {line}: {text}");
        for part in parts {
            assert!(text.contains(part), "helm {line}: {part:?} is not in\n{text}");
        }
    }

    /// Runs a command that the server must refuse.
    fn refused(&self, line: &str, part: &str) {
        let (well, text) = self.run(line);
        assert!(!well && text.contains(part), "helm {line}: {part:?} is not in\n{text}");
    }

    fn get(&self, path: &str) -> Value {
        let answer = self.cluster.get(path);
        assert_eq!(answer.code, 200, "{path}: {}", answer.text());
        answer.json()
    }

    /// The names of what there is of a resource in the release's namespace.
    fn names(&self, resource: &str) -> Vec<String> {
        let (group, plural) = resource.rsplit_once('/').expect("a path");
        let list = self.get(&format!("/{group}/namespaces/shopping/{plural}"));
        let items = list["items"].as_array().expect("a list");
        items.iter().map(|item| item["metadata"]["name"].as_str().expect("a name").to_owned()).collect()
    }

    /// Installs, tests, upgrades, rolls back and uninstalls a release.
    fn keep_shop(&self) {
        const SHOP: &str = "/apis/apps/v1/namespaces/shopping/deployments/shop";
        const TILL: &str = "/api/v1/namespaces/shopping/secrets/shop-till";
        let within = "--namespace shopping --timeout 120s";
        let deployed = "STATUS: deployed";
        self.check(
            &format!("install shop CHART {within} --create-namespace --wait"),
            &[deployed, "shop is open: revision 1 on Kubernetes v1.36"],
        );
        assert_eq!(self.get(SHOP)["status"]["readyReplicas"], 2, "it was waited for");
        let service = self.get("/api/v1/namespaces/shopping/services/shop");
        assert!(service["status"]["loadBalancer"]["ingress"][0]["ip"].is_string(), "{service}");
        let shelf = self.get("/apis/shop.example.com/v1/namespaces/shopping/shelves/shop");
        assert_eq!(shelf["spec"], json!({"boards": 3, "wood": "oak"}));
        let key = self.get(TILL)["data"]["key"].clone();
        assert_eq!(self.names("apis/batch/v1/jobs"), ["shop-post-install", "shop-pre-install"]);
        assert!(!self.names("api/v1/configmaps").contains(&"shop-before-hooks".to_owned()), "its hook has succeeded");
        self.check(&format!("test shop {within}"), &["TEST SUITE:     shop-visit", "Phase:          Succeeded"]);

        let upgrade = format!("upgrade shop CHART {within} --wait");
        self.check(&format!("{upgrade} --set image=shop:2.1,replicas=3"), &["has been upgraded", "revision 2"]);
        let shop = self.get(SHOP);
        assert_eq!(shop["spec"]["template"]["spec"]["containers"][0]["image"], "shop:2.1");
        assert_eq!(shop["status"]["updatedReplicas"], 3, "it was waited for");
        assert_eq!(self.get(TILL)["data"]["key"], key, "the chart looked it up");
        self.refused(&format!("{upgrade} --set schedule=never"), "spec.schedule: Invalid value: \"never\"");
        self.refused(&format!("{upgrade} --set replicas=9"), "a shelf has nine boards at most");

        self.check(&format!("rollback shop 1 {within} --wait"), &["Rollback was a success"]);
        let shop = self.get(SHOP);
        assert_eq!(shop["spec"]["template"]["spec"]["containers"][0]["image"], "shop:2.0");
        assert_eq!((&shop["spec"]["replicas"], &shop["status"]["readyReplicas"]), (&json!(2), &json!(2)));
        let history = self.run("history shop --namespace shopping --output json").1;
        let history: Value = serde_json::from_str(&history).expect("JSON");
        let statuses: Vec<_> = history.as_array().into_iter().flatten().map(|r| r["status"].as_str()).collect();
        let expected = ["superseded", "superseded", "failed", "failed", "deployed"].map(Some);
        assert_eq!(statuses, expected);

        self.check(&format!("uninstall shop {within} --wait"), &["release \"shop\" uninstalled"]);
        for resource in ["apis/apps/v1/deployments", "apis/batch/v1/cronjobs", "apis/shop.example.com/v1/shelves"] {
            assert_eq!(self.names(resource), [""; 0], "{resource}");
        }
        // What hooks made is not of the release, and neither are definitions.
        assert!(self.names("apis/batch/v1/jobs").contains(&"shop-post-upgrade".to_owned()));
        assert!(!self.names("apis/batch/v1/jobs").contains(&"shop-post-delete".to_owned()), "it has succeeded");
        self.get("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/shelves.shop.example.com");
    }
}

#[test]
fn a_release_is_installed_upgraded_rolled_back_and_uninstalled() {
    let Some(binaries) = required("HELM") else { return };
    for (number, binary) in std::env::split_paths(&binaries).enumerate() {
        let test = format!("helm-{number}");
        let cluster = Cluster::start(&test, &["--nodes", "3", "--speed", "10"]);
        let home = scratch(&test).join(format!("home-{}", std::process::id()));
        let helm = Helm { binary, cluster: &cluster, home };
        eprintln!("helm {}", helm.run("version --short").1.trim());
        helm.keep_shop();
    }
}
