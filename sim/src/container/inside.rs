//! All that clients can see inside a node's containers: logs, files and processes.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1 as core_v1;
use skeg_core::Wall;
use skeg_core::agent::{ContainerId, ContainerSpec};

use super::environment;
use super::files::Files;
use super::log::{Line, Log};
use super::process::{self, Input, Output, Process, Surroundings};

/// A longer line is logged in parts.
const MAX_LINE: usize = 16 << 10;

/// The number of a process on its node.
pub type ProcessId = u64;

/// What happened inside the containers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Told {
    /// A container logged a line.
    Line(ContainerId, Line),
    /// A process did something. [`Output::Sleep`] and [`Output::Kill`] are never told.
    Process(ProcessId, Output),
    /// A container has ended, with this exit code.
    Ended(ContainerId, i32),
}

/// What is to be done later, or to a container.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Next {
    /// A process is to be woken after this time.
    Wake(Duration, ProcessId),
    /// A container ends, with this exit code.
    Exit(ContainerId, i32),
}

/// One container.
#[derive(Debug)]
struct Room {
    log: Log,
    files: Files,
    /// The container's own process, if the shell can play it.
    main: Option<ProcessId>,
    /// What the container's own process wrote after its last newline.
    line: Vec<u8>,
    running: bool,
    command: String,
}

/// The containers of a node.
#[derive(Debug, Default)]
pub struct Inside {
    rooms: BTreeMap<ContainerId, Room>,
    processes: BTreeMap<ProcessId, (ContainerId, Process)>,
    next: ProcessId,
    told: Vec<Told>,
}

/// The command of a container. Images whose command is a shell are known by name, if their shell is given an input.
fn command_of(container: &core_v1::Container) -> Vec<String> {
    let given = container.command.iter().flatten().chain(container.args.iter().flatten());
    let argv: Vec<String> = given.cloned().collect();
    let image = container.image.as_deref().unwrap_or_default();
    let name = image.rsplit('/').next().unwrap_or_default().split([':', '@']).next().unwrap_or_default();
    let shell = matches!(name, "alpine" | "bash" | "busybox" | "debian" | "ubuntu");
    match shell && argv.is_empty() && container.stdin == Some(true) {
        true => vec!["sh".to_owned()],
        false => argv,
    }
}

impl Inside {
    /// A container has started. With `plays`, its own process is played if the shell understands its command; returns
    /// whether it is.
    pub fn start(
        &mut self,
        now: Wall,
        id: &ContainerId,
        spec: &ContainerSpec,
        hostname: &str,
        plays: bool,
        next: &mut Vec<Next>,
    ) -> bool {
        let Some(container) = spec.container() else { return false };
        let (argv, image) = (command_of(container), container.image.as_deref().unwrap_or_default());
        let command = if argv.is_empty() { image.to_owned() } else { argv.join(" ") };
        let files = Files::new(hostname);
        let room = Room { log: Log::default(), files, main: None, line: Vec::new(), running: true, command };
        self.rooms.insert(id.clone(), room);
        if !plays || !process::understood(&argv) {
            self.log(now, id, format!("container {} of image {image} is simulated: no program runs in it", spec.name));
            return false;
        }
        let (tty, env) = (container.tty == Some(true), environment::of(container, hostname, |_| None));
        let directory = container.working_dir.clone().unwrap_or_default();
        let Ok(main) = self.enter(id, &argv, env, directory, tty) else { return false };
        self.rooms.get_mut(id).expect("it was just made").main = Some(main);
        self.feed(now, main, Input::Begin, next);
        if container.stdin != Some(true) {
            self.feed(now, main, Input::End, next);
        }
        true
    }

    /// Starts a process in a running container; [`Self::feed`] lets it begin. Fails with the runtime's message.
    pub fn exec(
        &mut self,
        id: &ContainerId,
        argv: &[String],
        env: BTreeMap<String, String>,
        directory: String,
        tty: bool,
    ) -> Result<ProcessId, String> {
        if !self.rooms.get(id).is_some_and(|room| room.running) {
            return Err(format!("failed to exec in container: container {:?} is not running", id.0));
        }
        self.enter(id, argv, env, directory, tty)
    }

    fn enter(
        &mut self,
        id: &ContainerId,
        argv: &[String],
        env: BTreeMap<String, String>,
        directory: String,
        tty: bool,
    ) -> Result<ProcessId, String> {
        let main = self.rooms.get(id).map(|room| room.command.clone()).unwrap_or_default();
        let process = Process::new(argv, Surroundings { env, directory, main, tty })?;
        self.next += 1;
        self.processes.insert(self.next, (id.clone(), process));
        Ok(self.next)
    }

    /// Gives a process an input. Nothing happens if it has ended.
    pub fn feed(&mut self, now: Wall, process: ProcessId, input: Input<'_>, next: &mut Vec<Next>) {
        let Some((id, running)) = self.processes.get_mut(&process) else { return };
        let id = id.clone();
        let Some(room) = self.rooms.get_mut(&id) else { return };
        let is_main = room.main == Some(process);
        let mut out = Vec::new();
        running.handle(now, input, &mut room.files, &mut out);
        for output in out {
            match &output {
                Output::Sleep(time) => {
                    // A process that never wakes needs no timer.
                    if *time < Duration::from_secs(u64::from(u32::MAX)) {
                        next.push(Next::Wake(*time, process));
                    }
                    continue;
                }
                Output::Kill(signal) => {
                    next.push(Next::Exit(id.clone(), 128 + signal));
                    continue;
                }
                Output::Stdout(bytes) | Output::Stderr(bytes) if is_main => {
                    self.write(now, &id, bytes, matches!(output, Output::Stderr(_)));
                }
                Output::Stdout(_) | Output::Stderr(_) => {}
                Output::Exit(code) => {
                    self.processes.remove(&process);
                    if is_main {
                        next.push(Next::Exit(id.clone(), *code));
                    }
                }
            }
            self.told.push(Told::Process(process, output));
        }
    }

    /// Ends a process whose client has gone. A container's own process goes on.
    pub fn leave(&mut self, process: ProcessId) {
        let is_main =
            |(id, _): &(ContainerId, Process)| self.rooms.get(id).is_some_and(|room| room.main == Some(process));
        if self.processes.get(&process).is_some_and(|p| !is_main(p)) {
            self.processes.remove(&process);
        }
    }

    /// The container's own process, if it is played.
    pub fn main(&self, id: &ContainerId) -> Option<ProcessId> {
        self.rooms.get(id)?.main
    }

    /// Whether a container runs.
    pub fn is_running(&self, id: &ContainerId) -> bool {
        self.rooms.get(id).is_some_and(|room| room.running)
    }

    /// What a container has logged; `None` if it is not there any more.
    pub fn log_of(&self, id: &ContainerId) -> Option<&Log> {
        self.rooms.get(id).map(|room| &room.log)
    }

    /// What a container's own process writes, in lines.
    fn write(&mut self, now: Wall, id: &ContainerId, bytes: &[u8], stderr: bool) {
        let Some(room) = self.rooms.get_mut(id) else { return };
        room.line.extend_from_slice(bytes);
        let mut lines = Vec::new();
        let mut rest = room.line.as_slice();
        loop {
            let first = &rest[..rest.len().min(MAX_LINE + 1)];
            let end = first.iter().position(|b| *b == b'\n').or((first.len() > MAX_LINE).then_some(MAX_LINE));
            let Some(end) = end else { break };
            let (line, after) = rest.split_at(end + 1);
            lines.push(String::from_utf8_lossy(line).trim_end_matches(['\n', '\r']).to_owned());
            rest = after;
        }
        let read = room.line.len() - rest.len();
        room.line.drain(..read);
        for text in lines {
            self.push(id, Line { at: now, stderr, text });
        }
    }

    /// Logs a line.
    pub fn log(&mut self, now: Wall, id: &ContainerId, text: String) {
        self.push(id, Line { at: now, stderr: false, text });
    }

    fn push(&mut self, id: &ContainerId, line: Line) {
        if let Some(room) = self.rooms.get_mut(id) {
            room.log.push(line.clone());
            self.told.push(Told::Line(id.clone(), line));
        }
    }

    /// A container has ended: all processes in it end too.
    pub fn end(&mut self, now: Wall, id: &ContainerId, code: i32) {
        let Some(room) = self.rooms.get_mut(id) else { return };
        room.running = false;
        let main = room.main;
        if !room.line.is_empty() {
            let text = String::from_utf8_lossy(&std::mem::take(&mut room.line)).into_owned();
            self.push(id, Line { at: now, stderr: false, text });
        }
        if main.is_none() {
            self.log(now, id, format!("it exits with code {code}"));
        }
        let inside: Vec<ProcessId> =
            self.processes.iter().filter(|(_, (container, _))| container == id).map(|(process, _)| *process).collect();
        for process in inside {
            self.processes.remove(&process);
            let code = if main == Some(process) { code } else { 137 };
            self.told.push(Told::Process(process, Output::Exit(code)));
        }
        self.told.push(Told::Ended(id.clone(), code));
    }

    /// A container is removed, with its log and files.
    pub fn remove(&mut self, id: &ContainerId) {
        self.rooms.remove(id);
    }

    /// What happened since the last call.
    pub fn take_told(&mut self) -> Vec<Told> {
        std::mem::take(&mut self.told)
    }
}

#[cfg(test)]
mod tests {
    use super::{ContainerId, ContainerSpec, Input, Inside, Next, Output, ProcessId, Told};
    use serde_json::{Value, json};
    use skeg_core::Wall;
    use skeg_core::agent::SandboxId;
    use std::rc::Rc;
    use std::time::Duration;

    fn spec(container: Value) -> ContainerSpec {
        let pod: k8s_openapi::api::core::v1::PodSpec =
            serde_json::from_value(json!({"containers": [container]})).unwrap();
        let (pod_uid, name) = (Rc::from("u"), Rc::from("c"));
        ContainerSpec {
            sandbox: SandboxId(Rc::from("s")),
            pod_uid,
            pod: pod.into(),
            name,
            attempt: 0,
            ephemeral: None,
            target: None,
            resolved: None,
        }
    }

    fn id() -> ContainerId {
        ContainerId(Rc::from("id"))
    }

    /// Starts a container; returns whether its process is played, and what is to be done next.
    fn start(inside: &mut Inside, container: Value) -> (bool, Vec<Next>) {
        let mut next = Vec::new();
        let played = inside.start(Wall(0), &id(), &spec(container), "web-0", true, &mut next);
        (played, next)
    }

    fn lines(inside: &Inside) -> Vec<String> {
        inside.log_of(&id()).map(|log| log.lines().map(|l| l.text.clone()).collect()).unwrap_or_default()
    }

    #[test]
    fn commands_that_are_understood_are_played() {
        let check = |container: Value, log: &[&str], next: &[Next]| {
            let mut inside = Inside::default();
            let (played, got) = start(&mut inside, container.clone());
            assert!(played, "{container}");
            assert_eq!((lines(&inside), got.as_slice()), (log.iter().map(|l| (*l).to_owned()).collect(), next));
        };
        let exit = |code| Next::Exit(id(), code);
        let env = json!([{"name": "WHO", "value": "you"}]);
        check(
            json!({"name": "c", "command": ["sh", "-c", "echo hello $WHO from $HOSTNAME; exit 3"], "env": env}),
            &["hello you from web-0"],
            &[exit(3)],
        );
        check(json!({"name": "c", "args": ["sleep", "5"]}), &[], &[Next::Wake(Duration::from_secs(5), 1)]);
        check(json!({"name": "c", "command": ["sleep", "infinity"]}), &[], &[]);
        check(json!({"name": "c", "command": ["sh"]}), &[], &[exit(0)]);
        check(json!({"name": "c", "image": "docker.io/library/busybox:1", "stdin": true}), &[], &[]);
    }

    /// Work that grew with the square of what is written would take minutes.
    #[test]
    fn long_writes_are_logged_in_lines() {
        let mut inside = Inside::default();
        start(&mut inside, json!({"name": "c", "command": ["cat"], "stdin": true}));
        let main = inside.main(&id()).unwrap();
        let text = format!("{}\n{}", "x".repeat(super::MAX_LINE + 5), "a\n".repeat(1_000_000));
        inside.feed(Wall(0), main, Input::Stdin(text.as_bytes()), &mut Vec::new());
        let told = inside.take_told();
        let mut lines =
            told.iter().filter_map(|t| if let Told::Line(_, line) = t { Some(line.text.len()) } else { None });
        assert_eq!((lines.next(), lines.next(), lines.next()), (Some(super::MAX_LINE + 1), Some(4), Some(1)));
        assert_eq!(lines.count(), 999_999);
    }

    #[test]
    fn others_are_said_to_be_simulated() {
        for command in [
            json!(null),
            json!(["nginx"]),
            json!(["sh", "-c", "while true; do date; done"]),
            json!(["sh", "-c", "nginx"]),
        ] {
            let mut inside = Inside::default();
            let (played, next) = start(&mut inside, json!({"name": "c", "image": "nginx:1", "command": command}));
            assert!(!played && next.is_empty(), "{command}");
            assert_eq!(lines(&inside), ["container c of image nginx:1 is simulated: no program runs in it"]);
            inside.end(Wall(1), &id(), 0);
            assert_eq!(lines(&inside)[1..], ["it exits with code 0"]);
        }
    }

    #[test]
    fn processes_end_with_their_container() {
        let mut inside = Inside::default();
        start(&mut inside, json!({"name": "c", "image": "nginx"}));
        let exec = |inside: &mut Inside, argv: &[&str]| -> Result<ProcessId, String> {
            let argv: Vec<String> = argv.iter().map(|w| (*w).to_owned()).collect();
            inside.exec(&id(), &argv, Default::default(), String::new(), false)
        };
        assert!(exec(&mut inside, &["nginx"]).is_err());
        let (writer, reader) = (exec(&mut inside, &["tee", "/tmp/x"]).unwrap(), exec(&mut inside, &["cat"]).unwrap());
        let mut next = Vec::new();
        for input in [Input::Stdin(b"text"), Input::End] {
            inside.feed(Wall(0), writer, input, &mut next);
        }
        inside.feed(Wall(0), reader, Input::Stdin(b"on"), &mut next);
        inside.end(Wall(0), &id(), 143);
        let said = |process, bytes: &[u8]| Told::Process(process, Output::Stdout(bytes.to_vec()));
        let told: Vec<Told> = inside.take_told().into_iter().filter(|t| !matches!(t, Told::Line(..))).collect();
        let exit = |process, code| Told::Process(process, Output::Exit(code));
        let ended = Told::Ended(id(), 143);
        assert_eq!(told, [said(writer, b"text"), exit(writer, 0), said(reader, b"on"), exit(reader, 137), ended]);
        assert_eq!(next, []);
        assert!(exec(&mut inside, &["cat"]).unwrap_err().contains("is not running"));
        inside.remove(&id());
        assert!(inside.log_of(&id()).is_none());
    }

    #[test]
    fn a_process_may_kill_its_container() {
        let mut inside = Inside::default();
        start(&mut inside, json!({"name": "c", "image": "nginx"}));
        let argv = ["kill".to_owned(), "1".to_owned()];
        let process = inside.exec(&id(), &argv, Default::default(), String::new(), false).unwrap();
        let mut next = Vec::new();
        inside.feed(Wall(0), process, Input::Begin, &mut next);
        assert_eq!(next, [Next::Exit(id(), 143)]);
    }
}
