//! The tokens of service accounts that the volumes of pods have: asked of an API server before the volumes are mounted.
//!
//! Source: <https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-request-v1/>.

use std::collections::BTreeMap;

use hyper::Method;
use serde_json::{Value, json};
use skeg_core::agent::{FileContent, RuntimeCommand, VolumeContent};

use super::client::Client;

/// The tokens that a command needs, all of one pod and its account.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    namespace: String,
    account: String,
    pod: String,
    pod_uid: String,
    /// Audiences and lifetimes in seconds.
    tokens: Vec<(String, i64)>,
}

/// What came of asking for them, by audience and lifetime.
#[derive(Debug, Default)]
pub struct Minted(BTreeMap<(String, i64), Result<String, String>>);

/// The tokens that a command needs; `None` if it needs none.
pub fn wanted(command: &RuntimeCommand) -> Option<Wanted> {
    let RuntimeCommand::MountVolumes { volumes, .. } = command else { return None };
    let files = volumes.volumes.iter().flat_map(|volume| match &volume.content {
        VolumeContent::Files { files, .. } => files.as_slice(),
        VolumeContent::EmptyDir { .. }
        | VolumeContent::HostPath { .. }
        | VolumeContent::Persistent { .. }
        | VolumeContent::Unknown(_) => &[],
    });
    let token = |content: &FileContent| match content {
        FileContent::Token { audience, seconds } => Some((audience.clone(), *seconds)),
        FileContent::Bytes(_) => None,
    };
    let tokens: Vec<_> = files.filter_map(|file| token(&file.content)).collect();
    (!tokens.is_empty()).then(|| Wanted {
        namespace: volumes.namespace.to_string(),
        account: volumes.service_account.to_string(),
        pod: volumes.pod.to_string(),
        pod_uid: volumes.pod_uid.to_string(),
        tokens,
    })
}

impl Wanted {
    fn request(&self, audience: &str, seconds: i64) -> Value {
        let pod = json!({"kind": "Pod", "apiVersion": "v1", "name": self.pod, "uid": self.pod_uid});
        let mut spec = json!({"expirationSeconds": seconds, "boundObjectRef": pod});
        if !audience.is_empty() {
            spec["audiences"] = json!([audience]);
        }
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec})
    }

    /// Asks for the tokens.
    pub async fn mint(self, client: &Client) -> Minted {
        let mut minted = BTreeMap::new();
        let path = format!("/api/v1/namespaces/{}/serviceaccounts/{}/token", self.namespace, self.account);
        for (audience, seconds) in &self.tokens {
            let made = client.call(Method::POST, path.clone(), Some(&self.request(audience, *seconds))).await;
            let token = made.and_then(|made| {
                let token = made["status"]["token"].as_str().map(str::to_owned);
                token.ok_or_else(|| "the answer has no token".to_owned())
            });
            minted.insert((audience.clone(), *seconds), token);
        }
        Minted(minted)
    }
}

impl Minted {
    /// The token for an audience, or why there is none.
    pub fn token(&self, audience: &str, seconds: i64) -> Result<String, String> {
        self.0.get(&(audience.to_owned(), seconds)).cloned().expect("all that are needed are asked for")
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use serde_json::json;
    use skeg_core::agent::{FileContent, OpId, PodVolume, PodVolumes, RuntimeCommand, VolumeContent, VolumeFile};

    use super::wanted;

    #[test]
    fn what_a_volume_projects_is_asked_for() {
        let command = |contents: Vec<FileContent>| {
            let files = contents.into_iter().map(|content| VolumeFile { path: "f".to_owned(), mode: 0o600, content });
            let files = VolumeContent::Files { secret: true, files: files.collect() };
            let empty = VolumeContent::EmptyDir { medium: String::new(), size_limit: None };
            let volume = |content| PodVolume { name: "v".to_owned(), content };
            let volumes = PodVolumes {
                pod_uid: "u".into(),
                namespace: "n".into(),
                pod: "p".into(),
                service_account: "default".into(),
                fs_group: None,
                volumes: vec![volume(empty), volume(files)],
            };
            RuntimeCommand::MountVolumes { op: OpId(1), volumes: Rc::new(volumes) }
        };
        let token = |audience: &str| FileContent::Token { audience: audience.to_owned(), seconds: 3607 };
        assert_eq!(wanted(&command(vec![FileContent::Bytes(Vec::new())])), None);
        let wanted = wanted(&command(vec![token(""), FileContent::Bytes(Vec::new()), token("vault")])).unwrap();
        assert_eq!(wanted.tokens, [(String::new(), 3607), ("vault".to_owned(), 3607)]);
        let pod = json!({"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": "u"});
        let spec = json!({"expirationSeconds": 3607, "boundObjectRef": pod, "audiences": ["vault"]});
        assert_eq!(wanted.request("vault", 3607)["spec"], spec);
        assert!(wanted.request("", 3607)["spec"]["audiences"].is_null());
    }
}
