//! Every bound of the core in one place: queues, histories, retries, sizes, intervals.
//!
//! Where Kubernetes has a default, the value is Kubernetes' own and the flag or constant is named.

use std::time::Duration;

/// How long pods of a gang wait until all of them are ready to be bound (`DefaultSchedulingTimeoutDuration` of
/// `workloadmanager`).
pub const GANG_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// How long a client waits for a reply before it treats the outcome as unknown.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Interval between the bookmarks of a watch that asked for them (apiserver `bookmarkFrequency`).
pub const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// How long before the time-out of a watch its last bookmark comes.
pub const BOOKMARK_BEFORE_TIMEOUT: Duration = Duration::from_secs(2);
/// Minimum time that a client waits on a silent watch before it opens another (client-go `minWatchTimeout`); the actual
/// time is random, up to twice as long.
pub const WATCH_PATIENCE: Duration = Duration::from_secs(300);
/// Minimum number of events per kind that the watch cache keeps for clients that resume a watch.
pub const WATCH_CACHE_EVENTS: usize = 10_000;
/// How many old events or revisions are dropped together, so that their cache misses overlap.
pub const FORGOTTEN_AT_ONCE: usize = 32;
/// Interval between compactions of old revisions (`--etcd-compaction-interval`).
pub const COMPACTION_INTERVAL: Duration = Duration::from_secs(300);
/// Compaction happens early once this many revisions have passed since the last one, so that a burst of writes does not
/// fill the store with history. The store keeps between one and two times as many revisions.
pub const COMPACTION_REVISIONS: u64 = 150_000;
/// First back-off of a key in a work queue (client-go `ItemExponentialFailureRateLimiter`).
pub const QUEUE_BACKOFF_BASE: Duration = Duration::from_millis(5);
/// Longest back-off of a key in a work queue. client-go uses 1000 s, which is too long for a cluster that has
/// recovered.
pub const QUEUE_BACKOFF_MAX: Duration = Duration::from_secs(30);
/// How many keys one controller processes at a time (kube-controller-manager's `--concurrent-*-syncs` are 5 to 20).
pub const CONTROLLER_WORKERS: usize = 32;
/// How long a controller waits for its own writes to show up in its view before it relists.
pub const OWN_WRITES_PATIENCE: Duration = Duration::from_secs(60);
/// How long a new leader waits for its views to reach the revision of its term before it relists.
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
/// Most children that a controller creates or deletes in one pass (`BurstReplicas`).
pub const BURST_REPLICAS: usize = 500;
/// Kubelet `nodeLeaseDurationSeconds`; the lease is renewed every quarter of it.
pub const NODE_LEASE_DURATION: Duration = Duration::from_secs(40);
/// How often the kubelet checks whether the node's status has changed (`nodeStatusUpdateFrequency`).
pub const NODE_STATUS_UPDATE_FREQUENCY: Duration = Duration::from_secs(10);
/// Most images that a node's status lists (`nodeStatusMaxImages`).
pub const NODE_STATUS_MAX_IMAGES: usize = 50;
/// First back-off of a crashing container and of a failing image pull (kubelet `backOffPeriod`).
pub const CONTAINER_BACKOFF_BASE: Duration = Duration::from_secs(10);
/// Longest back-off of a crashing container and of a failing image pull (kubelet `MaxContainerBackOff`).
pub const CONTAINER_BACKOFF_MAX: Duration = Duration::from_secs(300);
/// First back-off after a volume mount failed; it doubles.
pub const MOUNT_BACKOFF_BASE: Duration = Duration::from_millis(500);
/// Longest back-off after a volume mount failed.
pub const MOUNT_BACKOFF_MAX: Duration = Duration::from_secs(122);
/// Time-out of a command to the container runtime (`runtimeRequestTimeout`).
pub const RUNTIME_REQUEST_TIMEOUT: Duration = Duration::from_secs(120);
/// Time-out of an image pull.
pub const IMAGE_PULL_TIMEOUT: Duration = Duration::from_secs(1800);
/// How often the agent compares its state with the runtime's list (kubelet, relist period of the evented PLEG).
pub const RUNTIME_RELIST_INTERVAL: Duration = Duration::from_secs(300);
/// Shortest time between SIGTERM and SIGKILL (kubelet `minimumGracePeriodInSeconds`).
pub const MINIMUM_GRACE: Duration = Duration::from_secs(2);
/// Longest delay before the node agent retries a failed request (kubelet's node registration).
pub const AGENT_RETRY_MAX: Duration = Duration::from_secs(7);
/// How many UIDs of deleted pods the agent remembers, so that a stale list does not bring them back.
pub const GONE_PODS: usize = 64;
/// How often the kubelet reports the node's status even if it has not changed (`nodeStatusReportFrequency`).
pub const NODE_STATUS_INTERVAL: Duration = Duration::from_secs(300);
/// Time to live of an Event object (`--event-ttl`).
pub const EVENT_TTL: Duration = Duration::from_secs(3600);
/// First back-off of a pod that could not be scheduled (`podInitialBackoffSeconds`).
pub const SCHEDULER_BACKOFF_BASE: Duration = Duration::from_secs(1);
/// How long a pod waits for its claims to be bound before it is scheduled again (VolumeBinding `bindTimeoutSeconds`).
pub const VOLUME_BIND_TIMEOUT: Duration = Duration::from_secs(600);
/// Longest back-off of a pod that could not be scheduled (`podMaxBackoffSeconds`).
pub const SCHEDULER_BACKOFF_MAX: Duration = Duration::from_secs(10);
/// How long a pod stays unschedulable without any event before it is retried (`podMaxInUnschedulablePodsDuration`).
pub const SCHEDULER_UNSCHEDULABLE_MAX: Duration = Duration::from_secs(300);
/// How far devices for the claims of a pod are looked for on one node. kube-scheduler looks for ten seconds.
pub const DEVICE_SEARCH_STEPS: u32 = 100_000;
/// How many expressions that select devices are kept compiled.
pub const DEVICE_SELECTORS: usize = 1_024;
/// Most requests of the scheduler in flight at once.
pub const SCHEDULER_IN_FLIGHT: usize = 2_000;
/// How many pod shapes have a table of filtered and scored nodes; the least recently used table is dropped first.
pub const SCHEDULER_TABLES: usize = 128;
/// Most GPUs of a node that are counted.
pub const GPU_DEVICES: usize = 64;
/// Minimum number of questions about other pods that are counted for, before those no longer asked are dropped.
pub const SCHEDULER_COUNTERS: usize = 4_096;
/// How many pod specs and unused shapes are kept before unused ones are dropped.
pub const SCHEDULER_SHAPES: usize = 4_096;
/// Minimum number of node changes that are kept so that tables can catch up.
pub const SCHEDULER_CHANGES: usize = 4_096;
/// How long a node waits before it tries again to resize a pod that it has no room for (kubelet `initialRetryDelay`).
pub const RESIZE_RETRY: Duration = Duration::from_secs(30);
/// Delay before a decision is retried that was not made because a view lags.
pub const STALE_VIEW_RETRY: Duration = Duration::from_secs(1);
/// Most addresses in one Endpoints object (endpoints controller `maxCapacity`).
pub const MAX_ENDPOINTS_PER_OBJECT: usize = 1000;
/// Most addresses of one subset of Endpoints that are mirrored (`--mirroring-max-endpoints-per-subset`).
pub const MAX_MIRRORED_PER_SUBSET: usize = 1000;
/// Most endpoints in one EndpointSlice (`--max-endpoints-per-slice`).
pub const MAX_ENDPOINTS_PER_SLICE: usize = 100;
/// How often the node lifecycle controller checks the heartbeats (`--node-monitor-period`).
pub const NODE_MONITOR_PERIOD: Duration = Duration::from_secs(5);
/// Time without a heartbeat after which a node's conditions become Unknown (`--node-monitor-grace-period`).
pub const NODE_MONITOR_GRACE: Duration = Duration::from_secs(40);
/// The same for a node that has never posted its status (`--node-startup-grace-period`).
pub const NODE_STARTUP_GRACE: Duration = Duration::from_secs(60);
/// If no lease event of any node has arrived for this long, no node is declared silent: the fault may be in this
/// process.
pub const LEASE_VIEW_QUIET: Duration = Duration::from_secs(20);
/// After this long without any lease event or bookmark (longer than the bookmark interval), the silence of every node
/// is measured anew.
pub const LEASE_VIEW_BLIND: Duration = Duration::from_secs(75);
/// In each such interval, one node per zone gets NoExecute taints (`--node-eviction-rate` 0.1).
pub const EVICTION_INTERVAL: Duration = Duration::from_secs(10);
/// The same interval in a large zone that is partially disrupted (`--secondary-node-eviction-rate` 0.01).
pub const SECONDARY_EVICTION_INTERVAL: Duration = Duration::from_secs(100);
/// A zone with more nodes than this is large (`--large-cluster-size-threshold`).
pub const LARGE_ZONE_NODES: usize = 50;
/// Percentage of nodes that are not ready which makes a zone partially disrupted (`--unhealthy-zone-threshold` 0.55).
pub const UNHEALTHY_ZONE_PERCENT: usize = 55;
/// How long pods of a node that does not exist are left alone (podgc `quarantineTime`).
pub const ORPHAN_QUARANTINE: Duration = Duration::from_secs(40);
/// How many finished pods are kept (`--terminated-pod-gc-threshold`).
pub const TERMINATED_PODS: usize = 12_500;
/// Longest delay before the garbage collector checks an object again whose owners may still exist.
pub const GARBAGE_RETRY: Duration = Duration::from_secs(5);
/// Delay before a claim is looked at again that a pod uses, or that is not the pod's whose name it bears.
pub const CLAIM_CONFLICT_RETRY: Duration = Duration::from_secs(5);
/// How long the API server waits for the store before it treats the outcome as unknown.
pub const STORE_TIMEOUT: Duration = Duration::from_secs(8);
/// How long the API server hears nothing from the store before it checks whether its watch is still alive.
pub const STORE_PROBE_AFTER: Duration = Duration::from_secs(5);
/// How long the API server hears nothing from the store before it reconnects.
pub const STORE_SILENCE: Duration = Duration::from_secs(15);
/// How many keys the API server loads per page when it starts. It uses smaller pages, down to [`PAGE_SIZE`], if one
/// takes too long.
pub const LOAD_PAGE: usize = 10_000;
/// How often the API server requests a progress notification from the store while a request waits for a revision
/// (Kubernetes' `progressRequestPeriod`).
pub const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
/// First back-off of the API server's connection to the store.
pub const STORE_BACKOFF_BASE: Duration = Duration::from_millis(100);
/// Longest back-off of the API server's connection to the store.
pub const STORE_BACKOFF_MAX: Duration = Duration::from_secs(5);
/// How long a read waits for the watch cache to reach its revision (apiserver `blockTimeout`).
pub const CACHE_WAIT: Duration = Duration::from_secs(3);
/// How often the API server handles its bookmarks, time-outs and the store connection.
pub const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(1);
/// How often a write is retried because other writes came in between.
pub const WRITE_ATTEMPTS: u32 = 64;
/// How many generated names are tried (apiserver `maxNameGenerationCreateAttempts`).
pub const NAME_ATTEMPTS: u32 = 8;
/// How many prepared pod specs the API server caches.
pub const PREPARED_SPECS: usize = 4096;
/// How many objects the API server reads from the store at once for a page of a list.
pub const PAGE_SIZE: usize = 500;
/// How many pods may be evicted against one PodDisruptionBudget before its controller has observed it
/// (`MaxDisruptedPodSize`).
pub const DISRUPTED_PODS: usize = 2000;
/// How long new events share one lease in the store (`LeaseReuseDurationSeconds`).
pub const EVENT_LEASE_REUSE: Duration = Duration::from_secs(60);
/// How many pod specs are interned before unused ones are dropped for the first time.
pub const INTERNED_SPECS: usize = 4_096;
/// How many status texts are interned before the table is started anew.
pub const INTERNED_TEXTS: usize = 65_536;
/// Longest record in a durable store's journal, in bytes: ten times the largest transaction that etcd accepts.
pub const JOURNAL_RECORD: usize = 16 * 1024 * 1024;
/// How many custom objects are deleted at a time when their CustomResourceDefinition is deleted.
pub const COLLECTED_AT_ONCE: usize = 500;
/// How long a Service waits before it is looked for a free load balancer address again.
pub const LOAD_BALANCER_RETRY: Duration = Duration::from_secs(5);
/// How long a node waits before a range for its pods is looked for again.
pub const POD_RANGE_RETRY: Duration = Duration::from_secs(10);
/// How long the namespace controller waits before it checks again what is left in a namespace.
pub const NAMESPACE_RETRY: Duration = Duration::from_secs(1);
/// How long a pod may take from the admission of its eviction to its deletion (disruption controller
/// `DeletionTimeout`).
pub const DISRUPTION_TIMEOUT: Duration = Duration::from_secs(120);
/// Minimum time between two syncs of a service proxy's table (kube-proxy `minSyncPeriod`).
pub const PROXY_MIN_SYNC: Duration = Duration::from_secs(1);
/// Default of `service.spec.sessionAffinityConfig.clientIP.timeoutSeconds` (three hours).
pub const AFFINITY_TIMEOUT: Duration = Duration::from_secs(10_800);
/// Most CNAME aliases that one lookup in the cluster DNS follows.
pub const DNS_ALIASES: usize = 8;
/// Time to live of cluster DNS records, in seconds (as kubeadm configures CoreDNS).
pub const DNS_TTL: u32 = 30;
/// Maximum nesting depth of a custom resource's schema.
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
/// Most bytes that the copy operations of one JSON patch may produce (apiserver `JSONPatchMaxCopyBytes`).
pub const JSON_PATCH_COPIES: usize = 3 * 1024 * 1024;
/// What one evaluation of an expression in CEL may cost (`PerCallLimit`).
pub const CEL_CALL: u64 = skeg_cel::MAX_COST;
/// What all rules of a custom object may cost together (`RuntimeCELCostBudget`).
pub const CEL_BUDGET: u64 = 10_000_000;
/// What all `matchConditions` of a webhook may cost together (`RuntimeCELCostBudgetMatchConditions`).
pub const CEL_CONDITIONS: u64 = 2_500_000;
/// Maximum bytes of a message that an expression makes (`MaxEvaluatedMessageExpressionSizeBytes`).
pub const CEL_MESSAGE: usize = 5 * 1024;
