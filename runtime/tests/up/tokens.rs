//! Tokens of service accounts: asked for, presented, reviewed, and found out when they no longer hold.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::client::{Cluster, scratch};

const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
const PODS: &str = "/api/v1/namespaces/default/pods";
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const WHO: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

fn token(cluster: &Cluster, account: &str, spec: Value) -> String {
    let made = cluster.create(&format!("{ACCOUNTS}/{account}/token"), &json!({"spec": spec}));
    made["status"]["token"].as_str().expect("a token").to_owned()
}

fn claims(token: &str) -> Value {
    let part = token.split('.').nth(1).expect("a token has three parts");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64")).expect("JSON")
}

/// Who a token stands for; `None` if it is refused.
fn who(cluster: &Cluster, token: &str) -> Option<Value> {
    let headers = [("Authorization", &*format!("Bearer {token}")), ("Content-Type", "application/json")];
    let answer = cluster.send_as_stranger("POST", WHO, &headers, b"{}");
    match answer.code {
        201 => Some(answer.json()["status"]["userInfo"].clone()),
        code => {
            assert_eq!(code, 401, "{}", answer.text());
            assert_eq!(answer.json()["message"], "Unauthorized");
            None
        }
    }
}

#[test]
fn an_account_gets_tokens_and_is_who_they_say() {
    let cluster = Cluster::start("tokens", &["--nodes", "0"]);
    let account = cluster.create(ACCOUNTS, &json!({"metadata": {"name": "bot"}}));
    let uid = &account["metadata"]["uid"];
    let made = cluster.create(&format!("{ACCOUNTS}/bot/token"), &json!({"spec": {"expirationSeconds": 1200}}));
    assert_eq!((&made["kind"], &made["spec"]["audiences"]), (&json!("TokenRequest"), &json!([ISSUER])));
    assert!(made["status"]["expirationTimestamp"].is_string());
    let own = made["status"]["token"].as_str().expect("a token");
    let told = claims(own);
    assert_eq!(told["kubernetes.io"]["serviceaccount"], json!({"name": "bot", "uid": uid}));
    assert_eq!(told["exp"].as_i64().unwrap() - told["iat"].as_i64().unwrap(), 1200);
    let info = who(&cluster, own).expect("it is accepted");
    assert_eq!((&info["username"], &info["uid"]), (&json!("system:serviceaccount:default:bot"), uid));
    let groups = ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"];
    assert_eq!(info["groups"], json!(groups));
    assert_eq!(who(&cluster, "nobody"), None);
    assert_eq!(who(&cluster, &format!("{own}x")), None);
    assert_eq!(who(&cluster, &token(&cluster, "bot", json!({"audiences": ["elsewhere"]}))), None);

    let review = |token: &str, audiences: Value| {
        cluster.create(REVIEWS, &json!({"spec": {"token": token, "audiences": audiences}}))["status"].clone()
    };
    let good = review(own, json!([]));
    assert_eq!((&good["authenticated"], &good["audiences"]), (&json!(true), &json!([ISSUER])));
    assert_eq!(good["user"]["username"], "system:serviceaccount:default:bot");
    assert!(good["user"]["extra"]["authentication.kubernetes.io/credential-id"][0].is_string());
    assert_eq!(review("nobody", json!([])), json!({"user": {}, "error": "invalid bearer token"}));
    let other = token(&cluster, "bot", json!({"audiences": ["elsewhere"]}));
    assert_eq!(review(&other, json!(["elsewhere", "nowhere"]))["audiences"], json!(["elsewhere"]));
    assert!(review(&other, json!([]))["error"].as_str().unwrap().contains("is invalid for the target audiences"));
    assert_eq!(cluster.write("POST", REVIEWS, &json!({"spec": {}})).code, 400);

    for (account, spec, code) in [
        ("nobody", json!({}), 404),
        ("bot", json!({"expirationSeconds": 10}), 422),
        ("bot", json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "none"}}), 404),
        ("bot", json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Deployment", "name": "d"}}), 400),
    ] {
        let answer = cluster.write("POST", &format!("{ACCOUNTS}/{account}/token"), &json!({"spec": spec}));
        assert_eq!(answer.code, code, "{account} {spec}: {}", answer.text());
    }
    // Discovery of the keys is for accounts.
    let bearer = format!("Bearer {own}");
    let get = |path: &str| cluster.send_as_stranger("GET", path, &[("Authorization", &bearer)], b"");
    let configuration = get("/.well-known/openid-configuration").json();
    assert_eq!(configuration["issuer"], ISSUER);
    assert_eq!(configuration["id_token_signing_alg_values_supported"], json!(["ES256"]));
    let keys = get("/openid/v1/jwks");
    assert_eq!(keys.header("content-type"), Some("application/jwk-set+json"));
    let header = own.split('.').next().expect("a token has three parts");
    let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap();
    assert_eq!(keys.json()["keys"][0]["kid"], header["kid"]);
    assert_eq!(cluster.get_as_stranger("/openid/v1/jwks").code, 403);
}

#[test]
fn a_secret_has_a_token_as_long_as_its_account_lives() {
    let cluster = Cluster::start("secret-tokens", &["--nodes", "0"]);
    let secrets = "/api/v1/namespaces/default/secrets";
    let secret = |name: &str, account: &str| {
        json!({"metadata": {"name": name, "annotations": {"kubernetes.io/service-account.name": account}},
            "type": "kubernetes.io/service-account-token"})
    };
    let answer = cluster.write(
        "POST",
        secrets,
        &json!({"metadata": {"name": "x"},
        "type": "kubernetes.io/service-account-token"}),
    );
    let why = "Secret \"x\" is invalid: metadata.annotations[kubernetes.io/service-account.name]: Required value";
    assert_eq!((answer.code, &answer.json()["message"]), (422, &json!(why)));
    let account = cluster.create(ACCOUNTS, &json!({"metadata": {"name": "bot"}}));
    cluster.create(secrets, &secret("kept", "bot"));
    let data = || cluster.get(&format!("{secrets}/kept")).json()["data"].clone();
    cluster.wait_for("the token is there", || data()["token"].is_string());
    let decoded = |key: &str| {
        let bytes = STANDARD.decode(data()[key].as_str().expect("it is there")).expect("base64");
        String::from_utf8(bytes).expect("text")
    };
    assert_eq!(decoded("namespace"), "default");
    assert!(decoded("ca.crt").starts_with("-----BEGIN CERTIFICATE-----"));
    let token = decoded("token");
    let told = claims(&token);
    assert_eq!((&told["iss"], told.get("exp")), (&json!("kubernetes/serviceaccount"), None));
    assert_eq!(told["kubernetes.io/serviceaccount/service-account.uid"], account["metadata"]["uid"]);
    let info = who(&cluster, &token).expect("it is accepted");
    assert_eq!(info["username"], "system:serviceaccount:default:bot");
    let review = |audiences: Value| {
        let spec = json!({"token": token, "audiences": audiences});
        cluster.create(REVIEWS, &json!({"spec": spec}))["status"].clone()
    };
    assert_eq!(review(json!([ISSUER, "other"]))["audiences"], json!([ISSUER]));
    assert!(review(json!(["other"]))["error"].as_str().unwrap().contains("is invalid for the target audiences"));

    // It holds only as long as its Secret has it.
    let other = json!({"data": {"token": STANDARD.encode("another")}});
    assert_eq!(cluster.write("PATCH", &format!("{secrets}/kept"), &other).code, 200);
    let why = "[invalid bearer token, service account token does not match server token]";
    assert_eq!(review(json!([]))["error"], why);
    assert_eq!(cluster.send("DELETE", &format!("{ACCOUNTS}/bot"), &[], b"").code, 200);
    cluster.wait_for("the secret is gone", || cluster.get(&format!("{secrets}/kept")).code == 404);
    assert_eq!(review(json!([]))["error"], "[invalid bearer token, service account token has been invalidated]");
    // Nobody fills one whose account is not there.
    cluster.create(secrets, &secret("vain", "nobody"));
    cluster.wait_for("the secret is gone", || cluster.get(&format!("{secrets}/vain")).code == 404);
}

#[test]
fn a_pod_has_a_token_that_ends_with_it() {
    let cluster = Cluster::start("bound-tokens", &["--nodes", "1"]);
    cluster.wait_for("the account and the certificates are there", || {
        cluster.get(&format!("{ACCOUNTS}/default")).code == 200
            && cluster.get("/api/v1/namespaces/default/configmaps/kube-root-ca.crt").code == 200
    });
    let map = cluster.get("/api/v1/namespaces/default/configmaps/kube-root-ca.crt").json();
    assert!(map["data"]["ca.crt"].as_str().unwrap().starts_with("-----BEGIN CERTIFICATE-----"));
    let body = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let pod = cluster.create(PODS, &body);
    let volume = &pod["spec"]["volumes"][0];
    assert!(volume["name"].as_str().unwrap().starts_with("kube-api-access-"), "{volume}");
    let sources = json!([
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"items": [{"key": "ca.crt", "path": "ca.crt"}], "name": "kube-root-ca.crt"}},
        {"downwardAPI": {"items": [{"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
            "path": "namespace"}]}},
    ]);
    assert_eq!(volume["projected"], json!({"defaultMode": 420, "sources": sources}));
    let mount = json!({"mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "name": volume["name"],
        "readOnly": true});
    assert_eq!(pod["spec"]["containers"][0]["volumeMounts"], json!([mount]));
    cluster.wait_for("it runs", || cluster.get(&format!("{PODS}/p")).json()["status"]["phase"] == "Running");

    let bound = json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p"}});
    let own = token(&cluster, "default", bound.clone());
    let told = claims(&own);
    assert_eq!(told["kubernetes.io"]["pod"], json!({"name": "p", "uid": pod["metadata"]["uid"]}));
    assert_eq!(told["kubernetes.io"]["node"]["name"], "node-0");
    let info = who(&cluster, &own).expect("it is accepted");
    assert_eq!(info["extra"]["authentication.kubernetes.io/pod-name"], json!(["p"]));
    assert_eq!(info["extra"]["authentication.kubernetes.io/node-name"], json!(["node-0"]));
    cluster.create(ACCOUNTS, &json!({"metadata": {"name": "other"}}));
    let path = format!("{ACCOUNTS}/other/token");
    assert_eq!(cluster.write("POST", &path, &json!({"spec": bound})).code, 400, "it runs as another account");
    cluster.send("DELETE", &format!("{PODS}/p?gracePeriodSeconds=0"), &[], b"");
    cluster.wait_for("the token ends with its pod", || who(&cluster, &own).is_none());
}

#[test]
fn tokens_outlive_a_restart() {
    let dir = scratch("tokens-kept").join("data");
    let _ = std::fs::remove_dir_all(&dir);
    let start = || Cluster::start_with("tokens-kept", &["--data-dir", dir.to_str().expect("text"), "--nodes", "0"]);
    let mut cluster = start();
    cluster.create(ACCOUNTS, &json!({"metadata": {"name": "bot"}}));
    let own = token(&cluster, "bot", json!({}));
    cluster.kill();
    let cluster = start();
    assert!(who(&cluster, &own).is_some());
    assert_eq!(cluster.send("DELETE", &format!("{ACCOUNTS}/bot"), &[], b"").code, 200);
    cluster.wait_for("the token ends with its account", || who(&cluster, &own).is_none());
}
