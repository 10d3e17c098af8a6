//! What the HTTP threads and the machines' thread say to each other about the inside of containers.

use std::collections::BTreeMap;
use std::time::Duration;

use skeg_core::Wall;
use skeg_core::agent::{ContainerId, ContainerSpec};
use skeg_sim::container::inside::{ProcessId, Told};
use skeg_sim::container::log::Line;
use skeg_sim::container::process::{Input, Output};
use skeg_sim::runtime::{Fire, NodeRuntime};
use skeg_sim::scenario::ImageProfile;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

use crate::up::usage::{Usage, Used};

/// Maximum number of lines that wait for a follower of a log; a slower one is cut off.
const FOLLOWED: usize = 4096;

/// The number of a visit.
pub type VisitId = u64;

/// A container of a pod, as a client names it.
#[derive(Clone, Debug)]
pub struct Place {
    /// The node.
    pub node: String,
    /// UID of the pod.
    pub pod_uid: String,
    /// Name of the container.
    pub container: String,
}

/// What is asked of the machines' thread.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum Visit {
    /// Reads the log of the run with this id; `None` if it is not there any more. More lines than these may be told: at
    /// most so many from the end, from this time on.
    Log {
        node: String,
        id: String,
        follow: bool,
        tail: Option<usize>,
        since: Option<Wall>,
        reply: oneshot::Sender<Option<LogRead>>,
    },
    /// Starts a process. It fails with the container runtime's message.
    Exec {
        place: Place,
        argv: Vec<String>,
        env: BTreeMap<String, String>,
        directory: String,
        tty: bool,
        reply: oneshot::Sender<Result<Visited, String>>,
    },
    /// Attaches to the container's own process.
    Attach { place: Place, stdin: bool, reply: oneshot::Sender<Result<Visited, String>> },
    /// Bytes for the standard input of a visit's process; none when it has ended.
    Input { visit: VisitId, bytes: Option<Vec<u8>> },
    /// The client's terminal has so many columns and rows.
    Resize { visit: VisitId, width: u16, height: u16 },
    /// Connects to a port of a pod; `None` if its containers are simulated.
    Dial { place: Place, port: u16, reply: oneshot::Sender<Option<Result<TcpStream, String>>> },
    /// The client has gone.
    Leave { visit: VisitId },
    /// Reads what every container uses.
    Usage { reply: oneshot::Sender<Used> },
}

/// A log as it was read.
#[derive(Debug)]
pub struct LogRead {
    /// The lines that are kept.
    pub lines: Vec<Line>,
    /// The lines that follow, until the container ends.
    pub follows: Option<mpsc::Receiver<Line>>,
}

/// A visit that has begun.
#[derive(Debug)]
pub struct Visited {
    /// Its number.
    pub id: VisitId,
    /// What comes of the process. It ends after [`Output::Exit`].
    pub heard: mpsc::UnboundedReceiver<Output>,
}

/// Somebody who looks into a container.
struct Visitor {
    node: usize,
    container: ContainerId,
    what: What,
}

enum What {
    Log(mpsc::Sender<Line>),
    /// A process, and whether it is the visitor's own.
    Process(ProcessId, bool, mpsc::UnboundedSender<Output>),
    /// A container whose process is not played: its log is all that there is.
    Container(mpsc::UnboundedSender<Output>),
}

/// All visits, on the machines' thread.
#[derive(Default)]
pub struct Visitors {
    visitors: BTreeMap<VisitId, Visitor>,
    next: VisitId,
}

impl Visitors {
    fn add(&mut self, visitor: Visitor) -> VisitId {
        self.next += 1;
        self.visitors.insert(self.next, visitor);
        self.next
    }

    /// Takes a visit. `nodes` has the nodes' numbers by their names. Returns the node that has something to do later.
    pub fn handle(
        &mut self,
        visit: Visit,
        wall: Wall,
        nodes: &BTreeMap<String, usize>,
        runtimes: &mut [(usize, NodeRuntime)],
        images: &BTreeMap<String, ImageProfile>,
        later: &mut Vec<(Duration, Fire)>,
    ) -> Option<usize> {
        let node = |name: &str| nodes.get(name).copied();
        match visit {
            Visit::Log { node: name, id, follow, reply, .. } => {
                // An error means that the client has gone, which is fine, here and below.
                let _ = reply.send(node(&name).and_then(|node| self.read_log(node, &id, follow, runtimes)));
                None
            }
            Visit::Exec { place, argv, env, directory, tty, reply } => {
                let number = node(&place.node);
                let result = number.ok_or_else(|| lost(&place)).and_then(|node| {
                    let runtime = &mut runtimes[node].1;
                    let id = find(runtime, &place)?;
                    let inside = runtime.inside_mut().ok_or_else(|| lost(&place))?;
                    let process = inside.exec(&id, &argv, env, directory, tty)?;
                    let mut next = Vec::new();
                    // Only what it says from here on has a listener, so it begins after that.
                    let (says, heard) = mpsc::unbounded_channel();
                    let visitor = Visitor { node, container: id, what: What::Process(process, true, says) };
                    let visit = self.add(visitor);
                    inside.feed(wall, process, Input::Begin, &mut next);
                    NodeRuntime::next(next, later);
                    Ok(Visited { id: visit, heard })
                });
                let _ = reply.send(result);
                number
            }
            Visit::Attach { place, reply, .. } => {
                let result = node(&place.node).ok_or_else(|| lost(&place)).and_then(|node| {
                    let runtime = &mut runtimes[node].1;
                    let id = find(runtime, &place)?;
                    let inside = runtime.inside().filter(|inside| inside.is_running(&id));
                    let inside = inside.ok_or_else(|| format!("container {} not found", place.container))?;
                    let (says, heard) = mpsc::unbounded_channel();
                    let what = match inside.main(&id) {
                        Some(process) => What::Process(process, false, says),
                        None => What::Container(says),
                    };
                    Ok(Visited { id: self.add(Visitor { node, container: id, what }), heard })
                });
                let _ = reply.send(result);
                None
            }
            Visit::Input { visit, bytes } => {
                let Some(Visitor { node, what: What::Process(process, own, _), .. }) = self.visitors.get(&visit) else {
                    return None;
                };
                let input = match &bytes {
                    Some(bytes) => Input::Stdin(bytes),
                    None => Input::End,
                };
                // Standard input of a container's own process stays open when a client detaches.
                if *own || bytes.is_some() {
                    let mut next = Vec::new();
                    runtimes[*node].1.inside_mut()?.feed(wall, *process, input, &mut next);
                    NodeRuntime::next(next, later);
                }
                Some(*node)
            }
            // What plays in simulated containers draws on no terminal.
            Visit::Resize { .. } => None,
            Visit::Dial { reply, .. } => {
                let _ = reply.send(None);
                None
            }
            Visit::Usage { reply } => {
                let names: BTreeMap<usize, &str> = nodes.iter().map(|(name, node)| (*node, name.as_str())).collect();
                let all =
                    runtimes.iter().enumerate().flat_map(|(node, (_, runtime))| used(names[&node], runtime, images));
                let _ = reply.send(Used { containers: all.collect(), ..Used::default() });
                None
            }
            Visit::Leave { visit } => {
                let gone = self.visitors.remove(&visit)?;
                if let (What::Process(process, true, _), Some(inside)) = (gone.what, runtimes[gone.node].1.inside_mut())
                {
                    inside.leave(process);
                }
                None
            }
        }
    }

    fn read_log(&mut self, node: usize, id: &str, follow: bool, runtimes: &[(usize, NodeRuntime)]) -> Option<LogRead> {
        let container = ContainerId(id.into());
        let inside = runtimes[node].1.inside()?;
        let lines = inside.log_of(&container)?.lines().cloned().collect();
        let follows = (follow && inside.is_running(&container)).then(|| {
            let (sender, receiver) = mpsc::channel(FOLLOWED);
            self.add(Visitor { node, container, what: What::Log(sender) });
            receiver
        });
        Some(LogRead { lines, follows })
    }

    /// Must be called after a node's runtime was given anything: hands on what happened inside its containers.
    pub fn hand_on(&mut self, node: usize, runtime: &mut NodeRuntime) {
        let Some(inside) = runtime.inside_mut() else { return };
        for told in inside.take_told() {
            if !self.visitors.is_empty() {
                self.visitors.retain(|_, visitor| visitor.node != node || visitor.hears(&told));
            }
        }
    }
}

impl Visitor {
    /// Tells the visitor. Returns whether the visit goes on.
    fn hears(&self, told: &Told) -> bool {
        match (&self.what, told) {
            (What::Log(follower), Told::Line(container, line)) if *container == self.container => {
                follower.try_send(line.clone()).is_ok()
            }
            (What::Log(_), Told::Ended(container, _)) => *container != self.container,
            (What::Process(process, _, says), Told::Process(number, output)) if process == number => {
                says.send(output.clone()).is_ok() && !matches!(output, Output::Exit(_))
            }
            (What::Container(says), Told::Line(container, line)) if *container == self.container => {
                let text = format!("{}\n", line.text).into_bytes();
                says.send(if line.stderr { Output::Stderr(text) } else { Output::Stdout(text) }).is_ok()
            }
            (What::Container(says), Told::Ended(container, code)) if *container == self.container => {
                // An error means that the visitor has gone too.
                let _ = says.send(Output::Exit(*code));
                false
            }
            (What::Log(_) | What::Process(..) | What::Container(_), _) => true,
        }
    }
}

/// What a node's containers use.
fn used(node: &str, runtime: &NodeRuntime, images: &BTreeMap<String, ImageProfile>) -> Vec<Usage> {
    let of = |(spec, cpu_milli, memory_bytes): (&ContainerSpec, u64, u64)| Usage {
        node: node.to_owned(),
        pod_uid: spec.pod_uid.to_string(),
        container: spec.name.to_string(),
        cpu_milli,
        memory_bytes,
    };
    runtime.usage(images).map(of).collect()
}

fn lost(place: &Place) -> String {
    format!("container not found ({:?})", place.container)
}

/// The newest run of a container.
fn find(runtime: &NodeRuntime, place: &Place) -> Result<ContainerId, String> {
    let found = runtime.find(&place.pod_uid, &place.container);
    found.map(|(id, ..)| id.clone()).ok_or_else(|| lost(place))
}
