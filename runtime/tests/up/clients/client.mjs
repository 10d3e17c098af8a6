// `@kubernetes/client-node` with a cluster, whose kubeconfig is the argument: a function a subject.
// NODE_MODULES is the directory that the package is in. Exits with an error where an answer is not what Kubernetes gives.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { PassThrough, Writable } from 'node:stream';
import { pathToFileURL } from 'node:url';

const modules = process.env.NODE_MODULES;
const k8s = await import(pathToFileURL(createRequire(`${modules}/`).resolve('@kubernetes/client-node')));

const PATIENCE_MS = 60_000;
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

async function waitFor(what, holds) {
  const end = Date.now() + PATIENCE_MS;
  for (;;) {
    const found = await holds();
    if (found) return found;
    assert(Date.now() < end, `not within ${PATIENCE_MS} ms: ${what}`);
    await sleep(50);
  }
}

/** What the server says where a call must fail. */
async function refused(code, call) {
  const error = await call().then(
    () => assert.fail(`it must be refused with ${code}`),
    (error) => error,
  );
  assert.equal(error.code, code, `${error}`);
  return String(error.body);
}

/** What is written to a stream, as text. */
function collect() {
  const stream = new Writable({
    write(chunk, _encoding, done) {
      stream.text += chunk;
      done();
    },
  });
  stream.text = '';
  return stream;
}

/** An informer that lists and watches, is stopped, misses changes, and is started again. */
async function informer(config, core) {
  const metadata = (name, team = 'node') => ({ name, labels: { team } });
  const list = () => core.listNamespacedConfigMap({ namespace: 'default', labelSelector: 'team=node' });
  const path = '/api/v1/namespaces/default/configmaps';
  const create = (name) =>
    core.createNamespacedConfigMap({ namespace: 'default', body: { metadata: metadata(name), data: { n: '1' } } });
  const seen = [];
  const watched = k8s.makeInformer(config, path, list, 'team=node');
  for (const verb of ['add', 'update', 'delete']) {
    watched.on(verb, (object) => seen.push(`${verb} ${object.metadata.name}`));
  }
  // `stop` aborts the watch, and the client hands that on as an error.
  watched.on('error', (error) => error.name !== 'AbortError' && seen.push(`error ${error}`));

  await create('before');
  await watched.start();
  await waitFor('the list', () => seen.length === 1);
  await create('after');
  const replace = { metadata: metadata('before'), data: { n: '2' } };
  await core.replaceNamespacedConfigMap({ name: 'before', namespace: 'default', body: replace });
  await core.deleteNamespacedConfigMap({ name: 'after', namespace: 'default' });
  await waitFor('the watch', () => seen.length === 4);
  assert.deepEqual(seen, ['add before', 'add after', 'update before', 'delete after']);
  assert.equal(watched.get('before', 'default').data.n, '2');

  // Started again, it watches from the last version that it saw.
  await watched.stop();
  await create('meanwhile');
  await core.deleteNamespacedConfigMap({ name: 'before', namespace: 'default' });
  await watched.start();
  await waitFor('what was missed', () => seen.length >= 6);
  assert.deepEqual(seen.slice(4), ['add meanwhile', 'delete before']);
  await watched.stop();
}

/** Watches: one that the server ends, bookmarks, and a version that is no number. */
async function watches(config, core) {
  const events = [];
  const watch = (query) =>
    new Promise((done, fail) => {
      new k8s.Watch(config)
        .watch('/api/v1/nodes', query, (type, object) => events.push([type, object]), done)
        .catch(fail);
    });
  await watch({ timeoutSeconds: 1, allowWatchBookmarks: true, resourceVersion: '0' });
  assert.deepEqual(new Set(events.filter(([type]) => type === 'ADDED').map(([, node]) => node.kind)), new Set(['Node']));
  events.length = 0;
  const initial = { sendInitialEvents: true, resourceVersionMatch: 'NotOlderThan', allowWatchBookmarks: true };
  await watch({ timeoutSeconds: 1, ...initial });
  const nodes = (await core.listNode()).items.length;
  const [type, bookmark] = events[nodes];
  assert.deepEqual([type, bookmark.metadata.annotations], ['BOOKMARK', { 'k8s.io/initial-events-end': 'true' }]);
  const failed = await watch({ resourceVersion: 'none' });
  assert.match(String(failed), /Unprocessable Entity/);
}

/** Commands by WebSocket, logs, and what a pod reports. */
async function exec(config, core) {
  const container = { name: 'c', image: 'nginx:1' };
  const body = { metadata: { name: 'node-exec' }, spec: { containers: [container] } };
  await core.createNamespacedPod({ namespace: 'default', body });
  const pod = { name: 'node-exec', namespace: 'default' };
  await waitFor('the pod runs', async () => (await core.readNamespacedPod(pod)).status.phase === 'Running');

  const [stdin, stdout, stderr] = [new PassThrough(), collect(), collect()];
  const command = ['sh', '-c', 'echo out; echo err >&2; cat; exit 3'];
  const status = await new Promise((done, fail) => {
    const inside = new k8s.Exec(config);
    inside.exec('default', 'node-exec', 'c', command, stdout, stderr, stdin, false, done).catch(fail);
    stdin.end('typed\n');
  });
  assert.equal(status.status, 'Failure');
  assert.deepEqual(status.details.causes, [{ reason: 'ExitCode', message: '3' }]);
  await waitFor('the output', () => stdout.text === 'out\ntyped\n' && stderr.text === 'err\n');

  const log = collect();
  await new k8s.Log(config).log('default', 'node-exec', 'c', log, { tailLines: 1 });
  await waitFor('the log', () => log.text.includes('is simulated'));
  const usage = await waitFor('it is measured', async () => {
    const { items } = await new k8s.Metrics(config).getPodMetrics('default');
    return items.find((item) => item.metadata.name === 'node-exec');
  });
  assert.match(usage.containers[0].usage.cpu, /^\d+[nm]?$/);
  await core.deleteNamespacedPod({ ...pod, gracePeriodSeconds: 0 });
}

/** Objects of any kind, by what discovery says, with a patch of each type. */
async function objects(config) {
  const api = k8s.KubernetesObjectApi.makeApiClient(config);
  const spec = { apiVersion: 'v1', kind: 'Service', metadata: { name: 'any', namespace: 'default' } };
  await api.create({ ...spec, spec: { ports: [{ name: 'http', port: 80, protocol: 'TCP' }] } });
  const patch = (body, strategy) =>
    api.patch({ ...spec, ...body }, undefined, undefined, 'node', undefined, strategy);
  const ports = (port) => ({ spec: { ports: [{ name: `p${port}`, port, protocol: 'TCP' }] } });
  let after = await patch(ports(81), k8s.PatchStrategy.StrategicMergePatch);
  assert.deepEqual(after.spec.ports.map(({ port }) => port), [81, 80]);
  after = await patch(ports(82), k8s.PatchStrategy.MergePatch);
  assert.deepEqual(after.spec.ports.map(({ port }) => port), [82]);
  after = await patch(ports(83), k8s.PatchStrategy.ServerSideApply);
  assert.deepEqual(after.spec.ports.map(({ port }) => port).sort(), [82, 83]);
  const listed = await api.list('v1', 'Service', 'default');
  assert(listed.items.some(({ metadata }) => metadata.name === 'any'));
  await api.delete(spec);
  assert.match(await refused(404, () => api.read(spec)), /services \\?"any\\?" not found/);
}

const config = new k8s.KubeConfig();
config.loadFromFile(process.argv[2]);
const core = config.makeApiClient(k8s.CoreV1Api);
for (const subject of [informer, watches, exec, objects]) {
  const begun = Date.now();
  await subject(config, core);
  console.log(`well: ${subject.name} (${Date.now() - begun} ms)`);
}
process.exit(0);
