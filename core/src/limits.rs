//! Every bound of the core in one place: queues, histories, retries, sizes, intervals.
//!
//! Where Kubernetes has a default, the value is Kubernetes' own and the flag or constant is named.

use std::time::Duration;

/// How long a client waits for a reply before it treats the outcome as unknown.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a watch that asked for bookmarks gets one (apiserver `bookmarkFrequency`).
pub const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// How long a client waits at least on a silent watch before it begins another (client-go `minWatchTimeout`); by chance
/// up to twice as long.
pub const WATCH_PATIENCE: Duration = Duration::from_secs(300);
/// How many events per kind the watch cache keeps at least for clients that resume.
pub const WATCH_CACHE_EVENTS: usize = 10_000;
/// How many old events, or revisions, are forgotten together, so that one wait for memory does for all of them.
pub const FORGOTTEN_AT_ONCE: usize = 32;
/// How often old revisions are compacted away (`--etcd-compaction-interval`).
pub const COMPACTION_INTERVAL: Duration = Duration::from_secs(300);
/// Compaction comes early once so many revisions have passed since the last: a burst of writes must not fill the store
/// with the past. What is kept is between once and twice as much.
pub const COMPACTION_REVISIONS: u64 = 150_000;
/// First back-off of a work queue's key (client-go `ItemExponentialFailureRateLimiter`).
pub const QUEUE_BACKOFF_BASE: Duration = Duration::from_millis(5);
/// Longest back-off of a work queue's key. client-go says 1000 s; a cluster that has healed should not wait that long.
pub const QUEUE_BACKOFF_MAX: Duration = Duration::from_secs(30);
/// Keys that one controller works on at a time (kube-controller-manager's `--concurrent-*-syncs` are 5 to 20).
pub const CONTROLLER_WORKERS: usize = 32;
/// How long a controller waits for its own writes to show up in its view before it lists again.
pub const OWN_WRITES_PATIENCE: Duration = Duration::from_secs(60);
/// How long a new leader waits for its views to reach its term by themselves before it lists again.
pub const CATCH_UP_PATIENCE: Duration = Duration::from_secs(1);
/// First back-off of a reflector (client-go).
pub const RELIST_BACKOFF_BASE: Duration = Duration::from_millis(800);
/// Longest back-off of a reflector (client-go).
pub const RELIST_BACKOFF_MAX: Duration = Duration::from_secs(30);
/// `--leader-elect-lease-duration`.
pub const LEASE_DURATION: Duration = Duration::from_secs(15);
/// `--leader-elect-renew-deadline`.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// `--leader-elect-retry-period`.
pub const RETRY_PERIOD: Duration = Duration::from_secs(2);
/// First batch of a slow start (controller_utils `SlowStartInitialBatchSize`).
pub const SLOW_START_INITIAL: usize = 1;
/// Most children that a controller makes or deletes in one pass (`BurstReplicas`).
pub const BURST_REPLICAS: usize = 500;
/// Kubelet `nodeLeaseDurationSeconds`; renewed every quarter of it.
pub const NODE_LEASE_DURATION: Duration = Duration::from_secs(40);
/// How often the kubelet looks whether the node's status changed (`nodeStatusUpdateFrequency`).
pub const NODE_STATUS_UPDATE_FREQUENCY: Duration = Duration::from_secs(10);
/// Most images that a node's status names (`nodeStatusMaxImages`).
pub const NODE_STATUS_MAX_IMAGES: usize = 50;
/// First back-off of a crashing container and of a failing image pull (kubelet `backOffPeriod`).
pub const CONTAINER_BACKOFF_BASE: Duration = Duration::from_secs(10);
/// Longest back-off of a crashing container and of a failing image pull (kubelet `MaxContainerBackOff`).
pub const CONTAINER_BACKOFF_MAX: Duration = Duration::from_secs(300);
/// First pause after a volume could not be mounted; it doubles.
pub const MOUNT_BACKOFF_BASE: Duration = Duration::from_millis(500);
/// Longest such pause.
pub const MOUNT_BACKOFF_MAX: Duration = Duration::from_secs(122);
/// How long a command to the container runtime may take (`runtimeRequestTimeout`).
pub const RUNTIME_REQUEST_TIMEOUT: Duration = Duration::from_secs(120);
/// How long an image pull may take before it counts as failed.
pub const IMAGE_PULL_TIMEOUT: Duration = Duration::from_secs(1800);
/// How often the agent compares what it knows with the runtime's list (kubelet, evented PLEG's relist period).
pub const RUNTIME_RELIST_INTERVAL: Duration = Duration::from_secs(300);
/// Shortest time between SIGTERM and SIGKILL (kubelet `minimumGracePeriodInSeconds`).
pub const MINIMUM_GRACE: Duration = Duration::from_secs(2);
/// Longest pause before a failed request of the node agent is sent again (kubelet's node registration).
pub const AGENT_RETRY_MAX: Duration = Duration::from_secs(7);
/// How many UIDs of pods that are gone the agent remembers, so that a stale list does not revive them.
pub const GONE_PODS: usize = 64;
/// Kubelet `nodeStatusReportFrequency`.
pub const NODE_STATUS_INTERVAL: Duration = Duration::from_secs(300);
/// How long an Event object lives (`--event-ttl`).
pub const EVENT_TTL: Duration = Duration::from_secs(3600);
/// First back-off of a pod that could not be scheduled (`podInitialBackoffSeconds`).
pub const SCHEDULER_BACKOFF_BASE: Duration = Duration::from_secs(1);
/// Longest back-off of a pod that could not be scheduled (`podMaxBackoffSeconds`).
pub const SCHEDULER_BACKOFF_MAX: Duration = Duration::from_secs(10);
/// How long a pod is left unschedulable without any event (`podMaxInUnschedulablePodsDuration`).
pub const SCHEDULER_UNSCHEDULABLE_MAX: Duration = Duration::from_secs(300);
/// Most requests of the scheduler that are on their way at once.
pub const SCHEDULER_IN_FLIGHT: usize = 2_000;
/// How many pod shapes keep a table of filtered and scored nodes; the least recently used one goes first.
pub const SCHEDULER_TABLES: usize = 128;
/// How many pod specs and unused shapes are remembered before they are swept.
pub const SCHEDULER_SHAPES: usize = 4_096;
/// How many node changes are kept for tables to catch up by, at least.
pub const SCHEDULER_CHANGES: usize = 4_096;
/// How soon a decision is tried again that a view which is behind forbade.
pub const STALE_VIEW_RETRY: Duration = Duration::from_secs(1);
/// Most addresses in one Endpoints object (endpoints controller `maxCapacity`).
pub const MAX_ENDPOINTS_PER_OBJECT: usize = 1000;
/// Most endpoints in one EndpointSlice (`--max-endpoints-per-slice`).
pub const MAX_ENDPOINTS_PER_SLICE: usize = 100;
/// How often the node lifecycle controller looks at the heartbeats (`--node-monitor-period`).
pub const NODE_MONITOR_PERIOD: Duration = Duration::from_secs(5);
/// Silence after which a node's conditions become Unknown (`--node-monitor-grace-period`).
pub const NODE_MONITOR_GRACE: Duration = Duration::from_secs(40);
/// The same for a node that has never posted its status (`--node-startup-grace-period`).
pub const NODE_STARTUP_GRACE: Duration = Duration::from_secs(60);
/// No node is declared silent while nothing at all was heard of any lease for this long: the fault may be ours.
pub const LEASE_VIEW_QUIET: Duration = Duration::from_secs(20);
/// After so long without any news of leases, longer than bookmarks are apart, every node's silence is counted anew.
pub const LEASE_VIEW_BLIND: Duration = Duration::from_secs(75);
/// One node a zone gets NoExecute taints each such interval (`--node-eviction-rate` 0.1).
pub const EVICTION_INTERVAL: Duration = Duration::from_secs(10);
/// The same in a large zone that is partially disrupted (`--secondary-node-eviction-rate` 0.01).
pub const SECONDARY_EVICTION_INTERVAL: Duration = Duration::from_secs(100);
/// A zone of more nodes is large (`--large-cluster-size-threshold`).
pub const LARGE_ZONE_NODES: usize = 50;
/// Share of nodes not ready that makes a zone partially disrupted, in per cent (`--unhealthy-zone-threshold` 0.55).
pub const UNHEALTHY_ZONE_PERCENT: usize = 55;
/// How long pods of a node that does not exist are left alone (podgc `quarantineTime`).
pub const ORPHAN_QUARANTINE: Duration = Duration::from_secs(40);
/// Finished pods that are kept (`--terminated-pod-gc-threshold`).
pub const TERMINATED_PODS: usize = 12_500;
/// Longest time after which garbage that may yet be owned is looked at again.
pub const GARBAGE_RETRY: Duration = Duration::from_secs(5);
/// How long the API server waits for the store before it treats the outcome as unknown.
pub const STORE_TIMEOUT: Duration = Duration::from_secs(8);
/// How long the API server hears nothing from the store before it asks whether the watch still lives.
pub const STORE_PROBE_AFTER: Duration = Duration::from_secs(5);
/// How long the API server hears nothing from the store before it connects anew.
pub const STORE_SILENCE: Duration = Duration::from_secs(15);
/// How many keys the API server loads at once when it begins; fewer where that takes too long, [`PAGE_SIZE`] at least.
pub const LOAD_PAGE: usize = 10_000;
/// How often the API server asks how far the store has told it everything, while something waits for that (Kubernetes'
/// `progressRequestPeriod`).
pub const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
/// First back-off of the API server's connection to the store.
pub const STORE_BACKOFF_BASE: Duration = Duration::from_millis(100);
/// Longest back-off of the API server's connection to the store.
pub const STORE_BACKOFF_MAX: Duration = Duration::from_secs(5);
/// How long a read waits for the watch cache to reach its revision (apiserver `blockTimeout`).
pub const CACHE_WAIT: Duration = Duration::from_secs(3);
/// How often the API server looks after its bookmarks, time-outs and the store.
pub const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(1);
/// How often a write is decided anew because others wrote in between.
pub const WRITE_ATTEMPTS: u32 = 64;
/// How many generated names are tried (apiserver `maxNameGenerationCreateAttempts`).
pub const NAME_ATTEMPTS: u32 = 8;
/// How many prepared pod specs the API server remembers.
pub const PREPARED_SPECS: usize = 4096;
/// Objects that the API server asks of the store at once for a page of a list.
pub const PAGE_SIZE: usize = 500;
/// How many pods may be evicted against one budget without its controller having seen it (`MaxDisruptedPodSize`).
pub const DISRUPTED_PODS: usize = 2000;
/// For how long events share one lease of the store (`LeaseReuseDurationSeconds`).
pub const EVENT_LEASE_REUSE: Duration = Duration::from_secs(60);
/// Pod specs that are held when what nobody else holds is let go for the first time.
pub const INTERNED_SPECS: usize = 4_096;
/// Texts of statuses that are held before they are collected anew.
pub const INTERNED_TEXTS: usize = 65_536;
/// Longest record of a durable store's journal, in bytes: ten times the largest transaction that etcd takes.
pub const JOURNAL_RECORD: usize = 16 * 1024 * 1024;
/// Most objects of a CustomResourceDefinition that goes that are deleted at a time.
pub const COLLECTED_AT_ONCE: usize = 500;
/// How long a namespace is left to finish between two looks at what is left in it.
pub const NAMESPACE_RETRY: Duration = Duration::from_secs(1);
/// How long an eviction may take from its admission to the pod's deletion (disruption controller `DeletionTimeout`).
pub const DISRUPTION_TIMEOUT: Duration = Duration::from_secs(120);
/// How often Events that are too old are looked for.
pub const EVENT_SWEEP_INTERVAL: Duration = Duration::from_secs(300);
/// Most Events that one sweep deletes at a time.
pub const EVENT_SWEEP_BATCH: usize = 500;
/// Least time between two syncs of a service proxy's table (kube-proxy `minSyncPeriod`).
pub const PROXY_MIN_SYNC: Duration = Duration::from_secs(1);
/// `service.spec.sessionAffinityConfig.clientIP.timeoutSeconds` where it is not given (three hours).
pub const AFFINITY_TIMEOUT: Duration = Duration::from_secs(10_800);
/// Most aliases that one lookup of the cluster DNS follows.
pub const DNS_ALIASES: usize = 8;
/// Time to live of the cluster DNS's records, in seconds (as kubeadm configures CoreDNS).
pub const DNS_TTL: u32 = 30;
/// How deep the schema of a custom resource may nest.
pub const SCHEMA_DEPTH: usize = 64;
/// Most fields that an object does not have, or has twice, which one answer names (`sigs.k8s.io/json`).
pub const STRICT_ERRORS: usize = 100;
/// How deep the paths of `managedFields` may be.
pub const FIELDS_DEPTH: usize = 128;
/// Most managers of an object by updates; of more, the oldest become one (`DefaultMaxUpdateManagers`).
pub const UPDATE_MANAGERS: usize = 10;
/// How deep the messages of a protobuf body may nest.
pub const PROTOBUF_DEPTH: usize = 100;
/// Most values that a protobuf body may stand for: an empty message takes two bytes there and some hundred here.
pub const PROTOBUF_VALUES: usize = 1_000_000;
/// Most operations in a JSON patch (apiserver `maxJSONPatchOperations`).
pub const JSON_PATCH_OPERATIONS: usize = 10_000;
/// Most bytes that the copy operations of one JSON patch may make (apiserver `JSONPatchMaxCopyBytes`).
pub const JSON_PATCH_COPIES: usize = 3 * 1024 * 1024;
