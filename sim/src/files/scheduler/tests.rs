//! What is read of configurations, as tables.

use std::time::Duration;

use skeg_core::scheduler::extenders::Extender;
use skeg_core::scheduler::gpu::{Ask, GpuShare, Policy, Target};
use skeg_core::scheduler::profile::{Plugin, Plugins, Profile, Strategy, Weights};

use super::{Configuration, read_file};
use crate::scenario::ExtenderTls;

fn whole(text: &str) -> String {
    format!("apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n{text}")
}

fn read(text: &str) -> Configuration {
    read_file("s.yaml", whole(text).as_bytes()).unwrap_or_else(|problems| panic!("{text}: {problems}"))
}

/// The one profile, without any warning.
fn one(text: &str) -> Profile {
    let configuration = read(text);
    assert_eq!(configuration.warnings, Vec::<String>::new(), "{text}");
    let [profile] = configuration.scheduling.profiles.try_into().unwrap();
    profile
}

fn args(plugin: &str, args: &str) -> String {
    format!("profiles: [{{pluginConfig: [{{name: {plugin}, args: {args}}}]}}]")
}

fn plugins(plugins: &str) -> String {
    format!("profiles: [{{plugins: {plugins}}}]")
}

#[test]
fn what_is_not_said_is_as_by_default() {
    for text in [
        "",
        "profiles: []",
        "profiles: [{}]",
        "profiles: [{schedulerName: default-scheduler, plugins: {}, pluginConfig: []}]",
        "percentageOfNodesToScore: 100\npodInitialBackoffSeconds: 1\npodMaxBackoffSeconds: 10\nparallelism: 1",
        "leaderElection: {}\nclientConnection: {}\nextenders: []\nenableProfiling: false",
        &args("NodeResourcesFit", "{}"),
        &args("NodeResourcesFit", "{scoringStrategy: {type: LeastAllocated, resources: []}}"),
        &args("NodeResourcesFit", "{apiVersion: kubescheduler.config.k8s.io/v1, kind: NodeResourcesFitArgs}"),
        &args("NodeResourcesBalancedAllocation", "{resources: [{name: cpu}, {name: memory, weight: 1}]}"),
        &args("PodTopologySpread", "{defaultingType: System}"),
        &args("InterPodAffinity", "{hardPodAffinityWeight: 1}"),
        &args("VolumeBinding", "{bindTimeoutSeconds: 600}"),
        &plugins("{score: {enabled: [{name: TaintToleration, weight: 3}]}}"),
        &plugins("{multiPoint: {enabled: [{name: NodeAffinity, weight: 2}]}}"),
    ] {
        assert_eq!(one(text), Profile::default(), "{text}");
    }
}

#[test]
fn extenders_are_read() {
    let text = "extenders:\n- {urlPrefix: 'http://e', filterVerb: f, prioritizeVerb: p, weight: 2, preemptVerb: v, \
                bindVerb: b,\n   enableHTTPS: true, tlsConfig: {serverName: name, caData: YQ==}, httpTimeout: 30s, \
                nodeCacheCapable: true, ignorable: true,\n   managedResources: [{name: a.b/c, ignoredByScheduler: \
                true}, {name: a.b/d}]}\n- {urlPrefix: 'http://g'}\n";
    let Configuration { scheduling, warnings, simulated } = read(text);
    assert_eq!(warnings, Vec::<String>::new());
    let whom = "a simulation plays it: it refuses no node and scores none but as faults say, and binds no pod";
    assert_eq!(simulated, [0, 1].map(|i| format!("s.yaml: extenders[{i}]: {whom}")));
    assert_eq!(scheduling.profiles[0].ignored_resources, ["a.b/c"]);
    let [first, second] = &scheduling.extenders[..] else { panic!("{:?}", scheduling.extenders) };
    let expect = Extender {
        url_prefix: "http://e".to_owned(),
        filter_verb: "f".to_owned(),
        prioritize_verb: "p".to_owned(),
        preempt_verb: "v".to_owned(),
        bind_verb: "b".to_owned(),
        weight: 2,
        timeout: Duration::from_secs(30),
        node_cache_capable: true,
        managed_resources: vec!["a.b/c".to_owned(), "a.b/d".to_owned()],
        ignorable: true,
    };
    assert_eq!(first.extender, expect);
    let tls =
        ExtenderTls { https: true, server_name: "name".to_owned(), ca_data: "YQ==".to_owned(), ..Default::default() };
    assert_eq!(first.tls, tls);
    let least = Extender {
        url_prefix: "http://g".to_owned(),
        filter_verb: String::new(),
        prioritize_verb: String::new(),
        preempt_verb: String::new(),
        bind_verb: String::new(),
        weight: 0,
        timeout: Duration::from_secs(5),
        node_cache_capable: false,
        managed_resources: Vec::new(),
        ignorable: false,
    };
    assert_eq!((&second.extender, &second.tls), (&least, &ExtenderTls::default()));
}

#[test]
fn arguments() {
    let fit = |text: &str| {
        let p = one(&args("NodeResourcesFit", text));
        (p.strategy, p.resources.iter().map(|(name, weight)| format!("{name}={weight}")).collect::<Vec<_>>().join(","))
    };
    let strategy = |text: &str| fit(&format!("{{scoringStrategy: {{{text}}}}}"));
    assert_eq!(strategy("type: MostAllocated"), (Strategy::MostAllocated, "cpu=1,memory=1".to_owned()));
    assert_eq!(
        strategy("type: LeastAllocated, resources: [{name: nvidia.com/gpu, weight: 100}, {name: cpu, weight: 0}]"),
        (Strategy::LeastAllocated, "nvidia.com/gpu=100,cpu=1".to_owned())
    );
    let ratio = "requestedToCapacityRatio: {shape: [{utilization: 0, score: 0}, {utilization: 70, score: 10}]}";
    assert_eq!(
        strategy(&format!("type: RequestedToCapacityRatio, resources: [{{name: cpu, weight: 3}}], {ratio}")),
        (Strategy::RequestedToCapacityRatio(vec![(0, 0), (70, 10)]), "cpu=3".to_owned())
    );
    let p = one(&args("NodeResourcesFit", "{ignoredResources: [example.com/a], ignoredResourceGroups: [example.org]}"));
    assert_eq!((p.ignored_resources, p.ignored_groups), (vec!["example.com/a".into()], vec!["example.org".into()]));
    let p = one(&args("NodeResourcesBalancedAllocation", "{resources: [{name: cpu}, {name: nvidia.com/gpu}]}"));
    assert_eq!(p.balanced, ["cpu", "nvidia.com/gpu"]);
    let p = one(&args("InterPodAffinity", "{hardPodAffinityWeight: 7, ignorePreferredTermsOfExistingPods: true}"));
    assert_eq!((p.hard_pod_affinity_weight, p.ignore_preferred_terms), (7, true));
    let p = one(&args("PodTopologySpread", "{defaultingType: List}"));
    assert_eq!(p.default_constraints, Some(vec![]));
    let spread = "{defaultingType: List, defaultConstraints: [{maxSkew: 1, topologyKey: disk, \
                  whenUnsatisfiable: DoNotSchedule, minDomains: 2, nodeTaintsPolicy: Honor}]}";
    let c = one(&args("PodTopologySpread", spread)).default_constraints.unwrap().remove(0);
    assert_eq!((c.max_skew, c.topology_key.as_str(), c.when_unsatisfiable.as_str()), (1, "disk", "DoNotSchedule"));
    assert_eq!((c.min_domains, c.node_taints_policy.as_deref()), (Some(2), Some("Honor")));
    let affinity = "{addedAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: \
                    [{matchExpressions: [{key: disk, operator: In, values: [ssd]}]}]}, \
                    preferredDuringSchedulingIgnoredDuringExecution: [{weight: 3, preference: {matchFields: \
                    [{key: metadata.name, operator: In, values: [node-1]}]}}]}}";
    let added = one(&args("NodeAffinity", affinity)).added_affinity;
    let required = added.required_during_scheduling_ignored_during_execution.unwrap().node_selector_terms;
    assert_eq!(required[0].match_expressions.as_ref().unwrap()[0].key, "disk");
    assert_eq!(added.preferred_during_scheduling_ignored_during_execution.unwrap()[0].weight, 3);
}

#[test]
fn plug_ins_and_weights() {
    let weights = |text: &str| {
        let weights = one(&plugins(text)).weights;
        let all =
            Plugin::ALL.into_iter().filter(|p| weights.of(*p) > 0).map(|p| format!("{}={}", p.name(), weights.of(p)));
        all.collect::<Vec<_>>().join(" ")
    };
    let rest = "PodTopologySpread=2 InterPodAffinity=2 NodeResourcesBalancedAllocation=1 ImageLocality=1";
    for (text, expect) in [
        ("{score: {disabled: [{name: '*'}]}, preScore: {disabled: [{name: '*'}]}}", String::new()),
        (
            "{score: {enabled: [{name: NodeResourcesFit, weight: 5}], disabled: [{name: '*'}]}}",
            "NodeResourcesFit=5".to_owned(),
        ),
        ("{score: {disabled: [{name: TaintToleration}, {name: NodeAffinity}]}}", format!("NodeResourcesFit=1 {rest}")),
        // A weight that is not given is one, also of a plug-in that has another one by default.
        (
            "{score: {enabled: [{name: TaintToleration}]}, multiPoint: {enabled: [{name: NodeAffinity}]}}",
            format!("TaintToleration=1 NodeAffinity=1 NodeResourcesFit=1 {rest}"),
        ),
        // The point's own word goes before that of all points.
        (
            "{score: {enabled: [{name: NodeAffinity, weight: 9}]}, multiPoint: {enabled: [{name: NodeAffinity, weight: 4}]}}",
            format!("TaintToleration=3 NodeAffinity=9 NodeResourcesFit=1 {rest}"),
        ),
        (
            "{multiPoint: {disabled: [{name: ImageLocality}, {name: InterPodAffinity}]}}",
            "TaintToleration=3 NodeAffinity=2 NodeResourcesFit=1 PodTopologySpread=2 NodeResourcesBalancedAllocation=1"
                .to_owned(),
        ),
    ] {
        assert_eq!(weights(text), expect, "{text}");
    }
    let p = one(&plugins("{multiPoint: {disabled: [{name: NodePorts}, {name: InterPodAffinity}]}}"));
    assert_eq!(p.filters, Plugins::filters().without(Plugin::NodePorts).without(Plugin::InterPodAffinity));
    let p = one(&plugins("{filter: {disabled: [{name: NodeAffinity}]}}"));
    assert_eq!((p.filters, p.narrows), (Plugins::filters().without(Plugin::NodeAffinity), true));
    assert_eq!(p.weights, Weights::default());
    assert!(!one(&plugins("{preFilter: {disabled: [{name: NodeAffinity}]}}")).narrows);
    assert!(!one(&plugins("{postFilter: {disabled: [{name: DefaultPreemption}]}}")).preempts);
    assert!(!one(&plugins("{multiPoint: {disabled: [{name: DefaultPreemption}]}}")).preempts);
    let bare = "{multiPoint: {enabled: [{name: PrioritySort}, {name: DefaultBinder}, {name: SchedulingGates}, \
                {name: NodeName}, {name: VolumeBinding}, {name: ImageLocality, weight: 8}], disabled: [{name: '*'}]}}";
    let p = one(&plugins(bare));
    assert_eq!(p.filters, [Plugin::NodeName, Plugin::VolumeBinding].into_iter().collect());
    assert_eq!((p.weights.sum(), p.weights.of(Plugin::ImageLocality), p.preempts, p.narrows), (8, 8, false, false));
}

#[test]
fn several_profiles() {
    let profiles = read("profiles: [{schedulerName: a}, {schedulerName: b}]").scheduling.profiles;
    let expect = ["a", "b"].map(|name| Profile { name: name.to_owned(), ..Profile::default() });
    assert_eq!(profiles, expect);
}

#[test]
fn what_is_not_carried_out_is_said() {
    let every = "every node is looked at";
    for (text, expect) in [
        ("percentageOfNodesToScore: 50".to_owned(), vec![format!("percentageOfNodesToScore: {every}")]),
        (
            "profiles: [{percentageOfNodesToScore: 0}]".to_owned(),
            vec![format!("profiles[0].percentageOfNodesToScore: {every}")],
        ),
        (
            "parallelism: 16\nenableProfiling: true\ndelayCacheUntilActive: true".to_owned(),
            vec![
                "parallelism: nodes are looked at one after the other; no decision depends on it".to_owned(),
                "enableProfiling: nothing is profiled".to_owned(),
                "delayCacheUntilActive: a scheduler that does not lead reads along all the same".to_owned(),
            ],
        ),
        (
            "leaderElection: {leaderElect: true, leaseDuration: 15s}\nclientConnection: {kubeconfig: /etc/k, qps: 50.0}"
                .to_owned(),
            vec![
                "leaderElection: schedulers are elected as the cluster asks, by the Lease kube-system/kube-scheduler"
                    .to_owned(),
                "clientConnection: the scheduler has a connection of its own".to_owned(),
            ],
        ),
        (
            "podInitialBackoffSeconds: 2\npodMaxBackoffSeconds: 20".to_owned(),
            vec![
                "podInitialBackoffSeconds: back-offs are those of the default, 1s here".to_owned(),
                "podMaxBackoffSeconds: back-offs are those of the default, 10s here".to_owned(),
            ],
        ),
        (
            args("DefaultPreemption", "{minCandidateNodesPercentage: 20}"),
            vec!["profiles[0].pluginConfig[0].args: evictions are tried on every node".to_owned()],
        ),
        (
            args("VolumeBinding", "{bindTimeoutSeconds: 60}"),
            vec!["profiles[0].pluginConfig[0].args.bindTimeoutSeconds: claims have 600s to be bound".to_owned()],
        ),
        (
            args("Coscheduling", "{permitWaitingTimeSeconds: 10}"),
            vec![
                "profiles[0].pluginConfig[0]: there is no plug-in \"Coscheduling\", so that nothing takes its arguments"
                    .to_owned(),
            ],
        ),
        (
            plugins("{score: {disabled: [{name: NodeAfinity}]}}"),
            vec![
                "profiles[0].plugins.score.disabled[0]: there is no plug-in \"NodeAfinity\", so that nothing is \
                 disabled by it"
                    .to_owned(),
            ],
        ),
        (
            plugins("{multiPoint: {enabled: [{name: DynamicResources}], disabled: [{name: VolumeBinding}]}}"),
            vec![
                "profiles[0].plugins.preFilter: VolumeBinding stays enabled".to_owned(),
                "profiles[0].plugins.filter: VolumeBinding stays enabled".to_owned(),
                "profiles[0].plugins.reserve: VolumeBinding stays enabled".to_owned(),
                "profiles[0].plugins.preBind: VolumeBinding stays enabled".to_owned(),
            ],
        ),
        (
            plugins("{preEnqueue: {disabled: [{name: '*'}]}, filter: {enabled: [{name: NodePorts}]}}"),
            vec![
                "profiles[0].plugins.preEnqueue: SchedulingGates stays enabled".to_owned(),
                "profiles[0].plugins.filter: filters keep their default order, which shows only in the reasons of nodes \
                 that several refuse"
                    .to_owned(),
            ],
        ),
        (
            plugins("{preFilter: {disabled: [{name: NodePorts}]}, filter: {disabled: [{name: VolumeZone}]}}"),
            vec![
                "profiles[0].plugins.preFilter: NodePorts stays enabled, since its filter is".to_owned(),
                "profiles[0].plugins.preFilter: VolumeZone is disabled, since its filter is".to_owned(),
            ],
        ),
        (
            plugins("{preScore: {disabled: [{name: TaintToleration}]}, score: {enabled: [{name: VolumeBinding}]}}"),
            vec![
                "profiles[0].plugins.preScore: TaintToleration stays enabled, since its score is".to_owned(),
                "profiles[0].plugins.score: VolumeBinding scores no node: free capacity is not looked at".to_owned(),
            ],
        ),
    ] {
        let expect: Vec<String> = expect.into_iter().map(|line| format!("s.yaml: {line}")).collect();
        assert_eq!(read(&text).warnings, expect, "{text}");
    }
}

#[test]
fn gpus_are_shared_where_it_is_enabled() {
    let default = GpuShare::default();
    let shares = |p: &Profile| (p.filters.has(Plugin::GPUShare), p.weights.of(Plugin::GPUShare));
    assert_eq!(shares(&one("")), (false, 0));
    assert_eq!(shares(&one(&args("GPUShare", "{policy: Packing}"))), (false, 0));
    assert_eq!(shares(&one(&plugins("{multiPoint: {enabled: [{name: GPUShare}]}}"))), (true, 1));
    let p = one(&plugins(
        "{multiPoint: {enabled: [{name: GPUShare, weight: 7}]}, score: {disabled: [{name: NodeAffinity}]}}",
    ));
    assert_eq!((shares(&p), p.weights.of(Plugin::NodeAffinity), p.gpu_share), ((true, 7), 0, default.clone()));
    let share = |text: &str| one(&args("GPUShare", text)).gpu_share;
    assert_eq!(share("{}"), default);
    assert_eq!(share("{policy: DotProd}"), GpuShare { policy: Policy::DotProd, ..default.clone() });
    let largest = share("{policy: Random, largestNode: {cpu: 1500m, gpuMilli: 4000}}");
    assert_eq!(largest, GpuShare { policy: Policy::Random, largest: (1500, 4000), workload: vec![] });
    let workload =
        share("{policy: FGD, workload: [{cpu: 4, gpuMilli: 460, weight: 9, models: [T4, A10]}, {gpuMilli: 2000}]}");
    let target = |cpu, gpu, models: &[&str], pods| Target {
        cpu,
        gpu,
        models: models.iter().map(|m| (*m).to_owned()).collect(),
        pods,
    };
    let expect = vec![target(4000, Ask::Share(460), &["T4", "A10"], 9), target(0, Ask::Whole(2), &[], 1)];
    assert_eq!(workload, GpuShare { policy: Policy::Fgd, workload: expect, ..default });
    for (text, expect) in [
        (
            plugins("{filter: {enabled: [{name: GPUShare}]}}"),
            "s.yaml: profiles[0].plugins.reserve: GPUShare gives devices to pods, since its filter is enabled",
        ),
        (
            plugins("{reserve: {enabled: [{name: GPUShare}]}}"),
            "s.yaml: profiles[0].plugins.reserve: GPUShare gives no devices to pods, since its filter is disabled",
        ),
    ] {
        assert_eq!(read(&text).warnings, [expect], "{text}");
    }
}

#[test]
fn what_is_wrong_is_refused_by_its_field() {
    let fit = |text: &str| args("NodeResourcesFit", &format!("{{scoringStrategy: {{{text}}}}}"));
    let arg = "profiles[0].pluginConfig[0].args";
    let scoring = format!("{arg}.scoringStrategy");
    let group = "kubescheduler.config.k8s.io";
    for (text, expect) in [
        ("profile: []".to_owned(), vec!["profile: unknown field \"profile\"; did you mean \"profiles\"?".to_owned()]),
        ("profiles: [{schedulerName: ''}]".to_owned(), vec!["profiles[0].schedulerName: Required value: must not be empty".to_owned()]),
        (
            "profiles: [{schedulerName: a}, {plugins: {}}]".to_owned(),
            vec!["profiles[1].schedulerName: Required value: must be given".to_owned()],
        ),
        (
            "profiles: [{schedulerName: a}, {schedulerName: b}, {schedulerName: a}]".to_owned(),
            vec![
                "profiles[2].schedulerName: Duplicate value: \"a\": profiles[0].schedulerName is the same".to_owned(),
            ],
        ),
        ("percentageOfNodesToScore: 101".to_owned(), vec!["percentageOfNodesToScore: Invalid value: 101: not in valid range [0-100]".to_owned()]),
        ("parallelism: 0".to_owned(), vec!["parallelism: Invalid value: 0: should be an integer value greater than zero".to_owned()]),
        ("podInitialBackoffSeconds: 0".to_owned(), vec!["podInitialBackoffSeconds: Invalid value: 0: must be greater than 0".to_owned()]),
        (
            "podInitialBackoffSeconds: 20".to_owned(),
            vec!["podInitialBackoffSeconds: Invalid value: 20: must be greater than or equal to PodInitialBackoffSeconds".to_owned()],
        ),
        (
            "leaderElection: {resourceLock: endpoints}".to_owned(),
            vec!["leaderElection.resourceLock: Invalid value: \"endpoints\": resourceLock value must be \"leases\"".to_owned()],
        ),
        (
            "extenders: [{prioritizeVerb: p, weight: 0}]".to_owned(),
            vec!["extenders[0].weight: Invalid value: 0: must have a positive weight applied to it".to_owned()],
        ),
        (
            "extenders: [{bindVerb: b}, {bindVerb: b}]".to_owned(),
            vec![
                "extenders: Invalid value: \"found 2 extenders implementing bind\": only one extender can implement bind"
                    .to_owned(),
            ],
        ),
        (
            "extenders: [{managedResources: [{name: cpu}]}]".to_owned(),
            vec![
                "extenders[0].managedResources[0].name: Invalid value: \"cpu\": is an invalid extended resource name"
                    .to_owned(),
            ],
        ),
        (
            "extenders: [{managedResources: [{name: a.b/c}]}, {managedResources: [{name: a.b/c}]}]".to_owned(),
            vec![
                "extenders[1].managedResources[0].name: Invalid value: \"a.b/c\": duplicate extender managed resource name"
                    .to_owned(),
            ],
        ),
        (
            "extenders: [{tlsConfig: {insecure: true, caFile: ca.pem}}]".to_owned(),
            vec![
                "extenders[0].tlsConfig: specifying a root certificates file with the insecure flag is not allowed"
                    .to_owned(),
            ],
        ),
        (
            "extenders: [{tlsConfig: {certData: YQ==}}]".to_owned(),
            vec![
                "extenders[0].tlsConfig: certFile or certData and keyFile or keyData must be specified together"
                    .to_owned(),
            ],
        ),
        (
            plugins("{filter: {enabled: [{name: MyFilter}]}}"),
            vec!["profiles[0].plugins.filter.enabled[0]: FilterPlugin \"MyFilter\" does not exist".to_owned()],
        ),
        (
            plugins("{multiPoint: {enabled: [{name: Coscheduling}]}}"),
            vec!["profiles[0].plugins.multiPoint.enabled[0]: PreFilterPlugin \"Coscheduling\" does not exist".to_owned()],
        ),
        (
            plugins("{filter: {enabled: [{name: ImageLocality}]}}"),
            vec!["profiles[0].plugins.filter.enabled[0]: plugin \"ImageLocality\" does not extend FilterPlugin plugin".to_owned()],
        ),
        (
            plugins("{score: {enabled: [{name: ImageLocality}, {name: ImageLocality}]}}"),
            vec!["profiles[0].plugins.score.enabled[1]: plugin \"ImageLocality\" already registered as \"ScorePlugin\"".to_owned()],
        ),
        (
            plugins("{filter: {enabled: [{name: EBSLimits}]}}"),
            vec![format!(
                "profiles[0].plugins.filter.enabled[0]: Invalid value: \"EBSLimits\": was invalid in version \"{group}/v1\" \
                 (KubeSchedulerConfiguration is version \"{group}/v1\")"
            )],
        ),
        (
            plugins("{queueSort: {disabled: [{name: '*'}]}, bind: {disabled: [{name: '*'}]}}"),
            vec![
                "profiles[0]: only one queue sort plugin required for profile with scheduler name \
                 \"default-scheduler\", but got 0"
                    .to_owned(),
                "profiles[0]: at least one bind plugin is needed for profile with scheduler name \"default-scheduler\""
                    .to_owned(),
            ],
        ),
        (
            plugins("{score: {enabled: [{name: ImageLocality, weight: 2147483647}]}}"),
            vec!["profiles[0]: total score of Score plugins could overflow: weights add up to at most 21474836".to_owned()],
        ),
        (
            "profiles: [{pluginConfig: [{name: NodePorts}, {name: NodePorts}]}]".to_owned(),
            vec!["profiles[0].pluginConfig[1]: Duplicate value: \"NodePorts\"".to_owned()],
        ),
        (
            args("NodeResourcesFit", "{kind: NodeAffinityArgs}"),
            vec![format!(
                "{arg}.kind: args for plugin NodeResourcesFit were not of type NodeResourcesFitArgs.{group}, got \
                 NodeAffinityArgs.{group}"
            )],
        ),
        (args("NodePorts", "{a: 1}"), vec![format!("{arg}.a: unknown field \"a\"; remove it or correct its name")]),
        (
            fit("type: Most"),
            vec![format!(
                "{scoring}.type: Unsupported value: \"Most\": supported values: \"LeastAllocated\", \"MostAllocated\", \
                 \"RequestedToCapacityRatio\""
            )],
        ),
        (
            fit("type: MostAllocated, resources: [{name: cpu, weight: 101}]"),
            vec![format!(
                "{scoring}.resources[0].weight: Invalid value: 101: resource weight of cpu not in valid range (0, 100]"
            )],
        ),
        (
            fit("type: RequestedToCapacityRatio"),
            vec![format!(
                "{scoring}.requestedToCapacityRatio: Required value: must be specified when type is \
                 RequestedToCapacityRatio"
            )],
        ),
        (
            fit("type: RequestedToCapacityRatio, requestedToCapacityRatio: {shape: []}"),
            vec![format!(
                "{scoring}.requestedToCapacityRatio.shape: Required value: at least one point must be specified"
            )],
        ),
        (
            fit("type: LeastAllocated, requestedToCapacityRatio: {shape: [{utilization: 0, score: 1}]}"),
            vec![format!(
                "{scoring}.requestedToCapacityRatio: Forbidden: must be nil when type is not RequestedToCapacityRatio"
            )],
        ),
        (
            fit(
                "type: RequestedToCapacityRatio, requestedToCapacityRatio: {shape: [{utilization: 5, score: 11}, \
                 {utilization: 5, score: 0}, {utilization: 101, score: 0}]}",
            ),
            vec![
                format!(
                    "{scoring}.requestedToCapacityRatio.shape[0].score: Invalid value: 11: not in valid range [0, 10]"
                ),
                format!(
                    "{scoring}.requestedToCapacityRatio.shape[1].utilization: Invalid value: 5: values must be sorted \
                     in increasing order"
                ),
                format!(
                    "{scoring}.requestedToCapacityRatio.shape[2].utilization: Invalid value: 101: not in valid range \
                     [0, 100]"
                ),
            ],
        ),
        (
            args("NodeResourcesFit", "{ignoredResourceGroups: [a/b]}"),
            vec![format!("{arg}.ignoredResourceGroups[0]: Invalid value: \"a/b\": resource group name can't contain '/'")],
        ),
        (
            args("NodeResourcesBalancedAllocation", "{resources: [{name: cpu, weight: 2}, {name: cpu, weight: 1}]}"),
            vec![
                format!("{arg}.resources[0].weight: Invalid value: 2: must be 1"),
                format!("{arg}.resources[1].weight: Duplicate value: \"cpu\""),
            ],
        ),
        (
            args("InterPodAffinity", "{hardPodAffinityWeight: 101}"),
            vec![format!("{arg}.hardPodAffinityWeight: Invalid value: 101: not in valid range [0, 100]")],
        ),
        (
            args(
                "PodTopologySpread",
                "{defaultConstraints: [{maxSkew: 1, topologyKey: z, whenUnsatisfiable: ScheduleAnyway}]}",
            ),
            vec![format!(
                "{arg}.defaultConstraints: Invalid value: \"System\": when .defaultConstraints are not empty"
            )],
        ),
        (
            args(
                "PodTopologySpread",
                "{defaultingType: List, defaultConstraints: [{maxSkew: 0, topologyKey: '', whenUnsatisfiable: Never, \
                 labelSelector: {}}]}",
            ),
            vec![
                format!("{arg}.defaultConstraints[0].maxSkew: Invalid value: 0: not in valid range (0, inf)"),
                format!("{arg}.defaultConstraints[0].topologyKey: Required value: can not be empty"),
                format!(
                    "{arg}.defaultConstraints[0].whenUnsatisfiable: Unsupported value: \"Never\": supported values: \
                     \"DoNotSchedule\", \"ScheduleAnyway\""
                ),
                format!(
                    "{arg}.defaultConstraints[0].labelSelector: Forbidden: constraint must not define a selector, as \
                     they deduced for each pod"
                ),
            ],
        ),
        (
            args(
                "PodTopologySpread",
                "{defaultingType: List, defaultConstraints: [{maxSkew: 3000000000, topologyKey: z, \
                 whenUnsatisfiable: ScheduleAnyway}]}",
            ),
            vec![format!(
                "{arg}.defaultConstraints[0].maxSkew: Invalid value: 3000000000: must be less than or equal to \
                 2147483647"
            )],
        ),
        (
            args("GPUShare", "{policy: Worst, largestNode: {cpu: 0, gpuMilli: -1, gpus: 8}}"),
            vec![
                format!(
                    "{arg}.policy: Unsupported value: \"Worst\": supported values: \"Random\", \"DotProd\", \"BestFit\", \
                     \"Packing\", \"FGD\""
                ),
                format!("{arg}.largestNode.cpu: Invalid value: 0: not in valid range [1, 100000000] (thousandths)"),
                format!("{arg}.largestNode.gpuMilli: Invalid value: -1: not in valid range [1, 100000000] (thousandths)"),
                format!("{arg}.largestNode.gpus: unknown field \"gpus\"; remove it or correct its name"),
            ],
        ),
        (
            args("GPUShare", "{policy: FGD}"),
            vec![format!("{arg}.workload: Required value: FGD measures fragmentation by the pods that are expected")],
        ),
        (
            args("GPUShare", "{policy: FGD, workload: [{gpuMilli: 1500}, {gpuMilli: 65000}, {weight: 0}]}"),
            vec![
                format!("{arg}.workload[0].gpuMilli: Invalid value: 1500: must be less than 1000 or a multiple of it"),
                format!("{arg}.workload[1].gpuMilli: Invalid value: 65000: must be less than or equal to 64000"),
                format!("{arg}.workload[2].weight: Invalid value: 0: must be greater than or equal to 1"),
            ],
        ),
        (
            args("PodTopologySpread", "{defaultingType: Both}"),
            vec![format!("{arg}.defaultingType: Unsupported value: \"Both\": supported values: \"System\", \"List\"")],
        ),
        (
            args(
                "NodeAffinity",
                "{addedAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: \
                 [{matchExpressions: [{key: a, operator: Gt, values: [x]}, {key: a, operator: In}]}]}}}",
            ),
            vec![
                format!(
                    "{arg}.addedAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]\
                     .matchExpressions[0].values: Invalid value: \"list\": for 'Gt', 'Lt' operators, the value must be \
                     an integer"
                ),
                format!(
                    "{arg}.addedAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]\
                     .matchExpressions[1]: Invalid value: \"map\": for 'in', 'notin' operators, values set can't be \
                     empty"
                ),
            ],
        ),
        (
            args("DefaultPreemption", "{minCandidateNodesPercentage: 0, minCandidateNodesAbsolute: 0}"),
            vec![
                format!(
                    "{arg}.minCandidateNodesPercentage: Invalid value: 0: cannot be zero at the same time as \
                     minCandidateNodesAbsolute"
                ),
                format!(
                    "{arg}.minCandidateNodesAbsolute: Invalid value: 0: cannot be zero at the same time as \
                     minCandidateNodesPercentage"
                ),
            ],
        ),
        (
            args("VolumeBinding", "{shape: []}"),
            vec![format!(
                "{arg}.shape: Invalid value: \"list\": unexpected field `shape`, remove it or turn on the feature gate \
                 StorageCapacityScoring"
            )],
        ),
    ] {
        let problems = read_file("s.yaml", whole(&text).as_bytes()).expect_err(&text);
        let got: Vec<String> = problems.list.iter().map(|p| format!("{}: {}", p.field, p.message)).collect();
        assert_eq!(got, expect, "{text}");
    }
}

#[test]
fn a_file_holds_one_configuration() {
    for (text, expect) in [
        (String::new(), "error: s.yaml: there is no KubeSchedulerConfiguration in it"),
        (
            "apiVersion: v1\nkind: Pod".to_owned(),
            "error: s.yaml, document 1, line 2: kind: must be KubeSchedulerConfiguration of kubescheduler.config.k8s.io/v1",
        ),
        (
            format!("{}---\n{}", whole(""), whole("")),
            "error: s.yaml, document 2, line 5: kind: a scheduler has one KubeSchedulerConfiguration, and another \
             document is given",
        ),
        (
            whole("").replace("/v1", "/v1beta3"),
            "error: s.yaml, document 1, line 1: apiVersion: no kind \"KubeSchedulerConfiguration\" is registered for \
             version \"kubescheduler.config.k8s.io/v1beta3\"; write kubescheduler.config.k8s.io/v1",
        ),
    ] {
        let problems = read_file("s.yaml", text.as_bytes()).expect_err(&text);
        assert_eq!(problems.to_string(), expect, "{text}");
    }
}
