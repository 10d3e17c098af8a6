//! A process in a container: one of the commands that are known, or the scripted shell.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use skeg_core::Wall;

use super::command::{self, Context, Done, Io};
use super::files::{Files, absolute};
use super::script::{self, Command, Piece, Pipeline, Redirect, When, Word};

/// Maximum bytes of standard input that wait for a command that reads all of it.
pub const MAX_STDIN: usize = 65 << 20;
/// Maximum bytes of a command's words and of the environment together, as Linux has it.
const MAX_ARGUMENTS: usize = 2 << 20;
/// What a command costs beside the bytes that it takes in and gives out.
const COMMAND_WORK: usize = 4 << 10;
/// Maximum work between two inputs: bytes that commands take in and give out.
const MAX_WORK: usize = 256 << 20;
/// How deep scripts may run scripts.
const MAX_DEPTH: u32 = 8;

/// What surrounds a process.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// Environment variables.
    pub env: BTreeMap<String, String>,
    /// Its working directory.
    pub directory: String,
    /// The container's own command, for `ps`.
    pub main: String,
    /// Whether it has a terminal.
    pub tty: bool,
}

/// What comes to a process.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// Nothing yet: it begins.
    Begin,
    /// Bytes on standard input.
    Stdin(&'a [u8]),
    /// Standard input has ended.
    End,
    /// It has slept long enough.
    Woken,
}

/// What comes of a process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Bytes on standard output.
    Stdout(Vec<u8>),
    /// Bytes on standard error.
    Stderr(Vec<u8>),
    /// It wants to be woken after this time.
    Sleep(Duration),
    /// The container's own process gets this signal.
    Kill(i32),
    /// It has ended, with this exit code. Nothing follows.
    Exit(i32),
}

/// Standard input that waits. It is taken from the front without moving the rest.
#[derive(Debug, Default)]
struct Stdin {
    bytes: Vec<u8>,
    /// How much has been taken.
    taken: usize,
    /// How far no end of a line is.
    searched: usize,
    ended: bool,
}

impl Stdin {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.taken);
        self.searched -= self.taken;
        self.taken = 0;
        self.bytes.extend_from_slice(bytes);
    }

    fn len(&self) -> usize {
        self.bytes.len() - self.taken
    }

    /// Takes all that waits.
    fn take(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.drain(..self.taken);
        (self.taken, self.searched) = (0, 0);
        bytes
    }

    /// Takes a line, or what is left after the end.
    fn take_line(&mut self) -> Option<Vec<u8>> {
        let Some(at) = self.bytes[self.searched..].iter().position(|b| *b == b'\n') else {
            self.searched = self.bytes.len();
            return (self.ended && self.len() > 0).then(|| self.take());
        };
        let end = self.searched + at + 1;
        let line = self.bytes[self.taken..end].to_vec();
        (self.taken, self.searched) = (end, end);
        Some(line)
    }
}

/// Why a command does not run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct TooLong;

/// A process.
#[derive(Debug)]
pub struct Process {
    surroundings: Surroundings,
    /// Pipelines that are still to run.
    script: VecDeque<Pipeline>,
    /// Whether its script comes from standard input, line by line.
    reads_script: bool,
    /// `$0`, `$1` and so on.
    parameters: Vec<String>,
    stdin: Stdin,
    /// The line that is being typed at a terminal.
    typed: Vec<u8>,
    /// Whether a prompt waits for a line.
    prompted: bool,
    status: i32,
    sleeping: bool,
    ended: bool,
    depth: u32,
    /// How much work is left until the next input.
    work: usize,
}

/// Whether every command that a process with this command line would run is known.
pub fn understood(argv: &[String]) -> bool {
    let is_known = |command: &Command| match command.words.first().map(Vec::as_slice) {
        None => true,
        Some([Piece::Text(name)]) => command::known(name).is_some(),
        Some(_) => false,
    };
    match shell_script(argv) {
        Some(Shell::Stdin) => true,
        Some(Shell::Script(script, _)) => {
            script::parse(&script).is_ok_and(|pipelines| pipelines.iter().flat_map(|p| &p.commands).all(is_known))
        }
        None => argv.first().is_some_and(|name| command::known(name).is_some()),
    }
}

impl Process {
    /// Makes a process. Fails with the message of the container runtime if there is no such command.
    pub fn new(argv: &[String], surroundings: Surroundings) -> Result<Process, String> {
        let name = argv.first().map_or("", String::as_str);
        if command::known(name).is_none() {
            let place =
                if name.contains('/') { "no such file or directory" } else { "executable file not found in $PATH" };
            let process = format!("exec: {name:?}: {}{place}", if name.contains('/') { "stat " } else { "" });
            let why = format!("OCI runtime exec failed: exec failed: unable to start container process: {process}");
            return Err(why);
        }
        let mut process = Process {
            surroundings,
            script: VecDeque::new(),
            reads_script: false,
            parameters: Vec::new(),
            stdin: Stdin::default(),
            typed: Vec::new(),
            prompted: false,
            status: 0,
            sleeping: false,
            ended: false,
            depth: 0,
            work: MAX_WORK,
        };
        if process.surroundings.directory.is_empty() {
            process.surroundings.directory = "/".to_owned();
        }
        match shell_script(argv) {
            Some(Shell::Script(script, parameters)) => {
                process.parameters = parameters;
                match script::parse(&script) {
                    Ok(pipelines) => process.script = pipelines.into(),
                    Err(why) => process.script.push_back(complaint(&why)),
                }
            }
            Some(Shell::Stdin) => process.reads_script = true,
            None => {
                let words = argv.iter().map(|word| vec![Piece::Text(word.clone())]).collect();
                let commands = vec![Command { words, ..Command::default() }];
                process.script.push_back(Pipeline { when: When::Always, commands });
            }
        }
        Ok(process)
    }

    /// Takes an input. After [`Output::Exit`] nothing more comes out.
    pub fn handle(&mut self, now: Wall, input: Input<'_>, files: &mut Files, out: &mut Vec<Output>) {
        if self.ended {
            return;
        }
        match input {
            Input::Begin => {}
            Input::Woken => self.sleeping = false,
            Input::End => self.stdin.ended = true,
            Input::Stdin(bytes) if self.surroundings.tty => self.type_in(bytes, out),
            Input::Stdin(bytes) => self.stdin.push(bytes),
        }
        if self.stdin.len() + self.typed.len() > MAX_STDIN {
            self.say(&Io { stderr: b"sh: Cannot allocate memory\n".to_vec(), ..Io::default() }, out);
            return self.end(137, out);
        }
        self.work = MAX_WORK;
        self.advance(now, files, out);
    }

    /// A terminal: what is typed is shown, and goes to the process in lines.
    fn type_in(&mut self, bytes: &[u8], out: &mut Vec<Output>) {
        let mut echo = Vec::new();
        for byte in bytes {
            match byte {
                b'\r' | b'\n' => {
                    echo.extend_from_slice(b"\r\n");
                    self.typed.push(b'\n');
                    self.stdin.push(&std::mem::take(&mut self.typed));
                    self.prompted = false;
                }
                0x7f | 0x08 if !self.typed.is_empty() => {
                    self.typed.pop();
                    echo.extend_from_slice(b"\x08 \x08");
                }
                0x7f | 0x08 => {}
                // Control-C.
                0x03 => {
                    echo.extend_from_slice(b"^C\r\n");
                    self.typed.clear();
                    self.script.clear();
                    self.prompted = false;
                    self.sleeping = false;
                    self.status = 130;
                    self.stdin.ended |= !self.reads_script;
                }
                // Control-D.
                0x04 if self.typed.is_empty() => self.stdin.ended = true,
                byte if *byte >= 0x20 || *byte == b'\t' => {
                    self.typed.push(*byte);
                    echo.push(*byte);
                }
                _ => {}
            }
        }
        if !echo.is_empty() {
            out.push(Output::Stdout(echo));
        }
    }

    fn advance(&mut self, now: Wall, files: &mut Files, out: &mut Vec<Output>) {
        while !self.ended && !self.sleeping {
            if self.work == 0 {
                self.say(&Io { stderr: b"sh: Killed\n".to_vec(), ..Io::default() }, out);
                return self.end(137, out);
            }
            let Some(next) = self.script.front() else {
                if self.read_line(out) {
                    continue;
                }
                return;
            };
            let skipped = match next.when {
                When::Always => false,
                When::Success => self.status != 0,
                When::Failure => self.status == 0,
            };
            if skipped {
                self.script.pop_front();
                continue;
            }
            if !self.has_input(out) {
                return;
            }
            let pipeline = self.script.pop_front().expect("it was there");
            let (mut io, done) = self.run(&pipeline.commands, now, files);
            self.say(&io, out);
            io.stdout.clear();
            match done {
                Done::Code(code) => self.status = code,
                Done::Exit(code) => self.end(code, out),
                Done::Kill(signal) => {
                    self.status = 0;
                    out.push(Output::Kill(signal));
                }
                Done::Sleep(time) => {
                    self.status = 0;
                    self.sleeping = true;
                    out.push(Output::Sleep(time));
                }
            }
        }
    }

    /// Takes the next line of a script that comes from standard input. Returns whether there is something to do.
    fn read_line(&mut self, out: &mut Vec<Output>) -> bool {
        if !self.reads_script {
            self.end(self.status, out);
            return false;
        }
        let Some(line) = self.stdin.take_line() else {
            if self.stdin.ended {
                if self.surroundings.tty && self.prompted {
                    out.push(Output::Stdout(b"exit\r\n".to_vec()));
                }
                self.end(self.status, out);
            } else if self.surroundings.tty && !self.prompted {
                self.prompted = true;
                out.push(Output::Stdout(format!("{} # ", self.surroundings.directory).into_bytes()));
            }
            return false;
        };
        self.spend(line.len());
        match script::parse(&String::from_utf8_lossy(&line)) {
            Ok(pipelines) => self.script.extend(pipelines),
            Err(why) => self.script.push_back(complaint(&why)),
        }
        true
    }

    /// Whether the next pipeline has the input that it needs. `cat` alone passes on what has come.
    fn has_input(&mut self, out: &mut Vec<Output>) -> bool {
        let Some(next) = self.script.front() else { return true };
        let first = &next.commands[0];
        // A command line that is too long fails when it runs.
        let Ok(argv) = self.expand(&first.words) else { return true };
        let from_file = first.redirects.iter().any(|r| matches!(r, Redirect::In(_)));
        if from_file || self.stdin.ended || !command::reads_stdin(&argv) {
            return true;
        }
        let passes_on = next.commands.len() == 1 && first.redirects.is_empty() && argv.len() == 1;
        if passes_on && command::known(&argv[0]) == Some("cat") && self.stdin.len() > 0 {
            let io = Io { stdout: self.stdin.take(), ..Io::default() };
            self.say(&io, out);
        }
        false
    }

    /// Runs the commands of a pipeline, one after the other.
    fn run(&mut self, commands: &[Command], now: Wall, files: &mut Files) -> (Io, Done) {
        let mut all = Io::default();
        let mut done = Done::Code(0);
        for (n, command) in commands.iter().enumerate() {
            let mut io = Io { stdin: std::mem::take(&mut all.stdout), ..Io::default() };
            if n == 0 && self.expand(&command.words).is_ok_and(|argv| command::reads_stdin(&argv)) {
                io.stdin = self.stdin.take();
            }
            self.spend(COMMAND_WORK + io.stdin.len());
            done = self.run_one(command, now, files, &mut io);
            self.spend(io.stdout.len() + io.stderr.len());
            all.stdout = io.stdout;
            all.stderr.extend(io.stderr);
            if self.work == 0 {
                break;
            }
        }
        (all, done)
    }

    fn run_one(&mut self, command: &Command, now: Wall, files: &mut Files, io: &mut Io) -> Done {
        self.try_one(command, now, files, io).unwrap_or_else(|TooLong| io.fail_with(126, "sh: Argument list too long"))
    }

    fn try_one(&mut self, command: &Command, now: Wall, files: &mut Files, io: &mut Io) -> Result<Done, TooLong> {
        let argv = self.expand(&command.words)?;
        let env = &self.surroundings.env;
        let mut size: usize = env.iter().map(|(n, v)| n.len() + v.len()).sum::<usize>() + length(&argv);
        for (name, value) in &command.assignments {
            let value = self.expand_one(value)?;
            size += name.len() + value.len();
            if size > MAX_ARGUMENTS {
                break;
            }
            self.surroundings.env.insert(name.clone(), value);
        }
        self.spend(size);
        if size > MAX_ARGUMENTS {
            return Err(TooLong);
        }
        for redirect in &command.redirects {
            if let Redirect::In(word) = redirect {
                let path = self.expand_one(word)?;
                match files.read(&absolute(&self.surroundings.directory, &path)) {
                    Ok(bytes) => io.stdin = bytes.to_vec(),
                    Err(why) => return Ok(io.fail(&format!("sh: can't open {path}: {why}"))),
                }
                self.spend(io.stdin.len());
            }
        }
        let done = match argv.split_first() {
            Some((exec, rest)) if exec == "exec" && !rest.is_empty() => match self.call(rest, now, files, io) {
                Done::Code(code) => Done::Exit(code),
                other => other,
            },
            _ => self.call(&argv, now, files, io),
        };
        Ok(self.redirect(&command.redirects, files, io)?.unwrap_or(done))
    }

    fn call(&mut self, argv: &[String], now: Wall, files: &mut Files, io: &mut Io) -> Done {
        if let Some(shell) = shell_script(argv) {
            return self.run_script(shell, now, files, io);
        }
        let Surroundings { env, directory, main, .. } = &mut self.surroundings;
        command::run(argv, io, &mut Context { files, env, directory, now, main })
    }

    /// Runs a shell inside this one, to its end. Its `sleep`s take no time.
    fn run_script(&mut self, shell: Shell, now: Wall, files: &mut Files, io: &mut Io) -> Done {
        if self.depth >= MAX_DEPTH {
            return io.fail("sh: scripts run scripts too deeply");
        }
        let script = match &shell {
            Shell::Script(script, _) => script.clone(),
            Shell::Stdin => String::from_utf8_lossy(&std::mem::take(&mut io.stdin)).into_owned(),
        };
        let argv = vec!["sh".to_owned(), "-c".to_owned(), script];
        let surroundings = Surroundings { tty: false, ..self.surroundings.clone() };
        let mut inner = Process::new(&argv, surroundings).expect("sh is known");
        inner.depth = self.depth + 1;
        inner.stdin = Stdin { bytes: std::mem::take(&mut io.stdin), ended: true, ..Stdin::default() };
        if let Shell::Script(_, parameters) = shell {
            inner.parameters = parameters;
        }
        let mut out = Vec::new();
        // The work is this one's.
        inner.work = self.work;
        loop {
            inner.advance(now, files, &mut out);
            if !std::mem::take(&mut inner.sleeping) {
                break;
            }
        }
        self.work = inner.work;
        let mut done = Done::Code(inner.status);
        for output in out {
            match output {
                Output::Stdout(bytes) => io.stdout.extend(bytes),
                Output::Stderr(bytes) => io.stderr.extend(bytes),
                Output::Kill(signal) => done = Done::Kill(signal),
                Output::Exit(_) | Output::Sleep(_) => {}
            }
        }
        done
    }

    /// Sends what a command wrote to where its redirections lead; a failure replaces its exit code.
    fn redirect(&mut self, redirects: &[Redirect], files: &mut Files, io: &mut Io) -> Result<Option<Done>, TooLong> {
        let mut failed = None;
        for redirect in redirects.iter().rev() {
            match redirect {
                Redirect::In(_) => {}
                Redirect::Join(2, 1) => io.stdout.extend(std::mem::take(&mut io.stderr)),
                Redirect::Join(1, 2) => io.stderr.extend(std::mem::take(&mut io.stdout)),
                Redirect::Join(..) => {}
                Redirect::Out(stream, append, word) => {
                    let path = self.expand_one(word)?;
                    let bytes = std::mem::take(if *stream == 2 { &mut io.stderr } else { &mut io.stdout });
                    if path == "/dev/null" {
                        continue;
                    }
                    if let Err(why) = files.write(&absolute(&self.surroundings.directory, &path), &bytes, *append) {
                        failed = Some(io.fail(&format!("sh: can't create {path}: {why}")));
                    }
                }
            }
        }
        Ok(failed)
    }

    fn spend(&mut self, work: usize) {
        self.work = self.work.saturating_sub(work);
    }

    /// The words of a command, of which there are at most [`MAX_ARGUMENTS`] bytes in all.
    fn expand(&self, words: &[Word]) -> Result<Vec<String>, TooLong> {
        let mut argv = Vec::new();
        let mut size = 0;
        for word in words {
            let text = self.expand_one(word)?;
            size += text.len();
            if size > MAX_ARGUMENTS {
                return Err(TooLong);
            }
            // An unquoted variable without a value is no word; a quoted empty string is one.
            if word.is_empty() || !text.is_empty() {
                argv.push(text);
            }
        }
        Ok(argv)
    }

    fn expand_one(&self, word: &Word) -> Result<String, TooLong> {
        let mut text = String::new();
        for piece in word {
            text += &self.value(piece);
            if text.len() > MAX_ARGUMENTS {
                return Err(TooLong);
            }
        }
        Ok(text)
    }

    fn value(&self, piece: &Piece) -> String {
        let name = match piece {
            Piece::Text(text) => return text.clone(),
            Piece::Variable(name) => name.as_str(),
        };
        match name {
            "?" => self.status.to_string(),
            "$" => "7".to_owned(),
            "#" => self.parameters.len().saturating_sub(1).to_string(),
            "@" | "*" => self.parameters.get(1..).unwrap_or_default().join(" "),
            number if number.starts_with(|c: char| c.is_ascii_digit()) => {
                let parameter = number.parse().ok().and_then(|n: usize| self.parameters.get(n));
                parameter.cloned().unwrap_or_default()
            }
            name => self.surroundings.env.get(name).cloned().unwrap_or_default(),
        }
    }

    fn say(&self, io: &Io, out: &mut Vec<Output>) {
        let crlf = |bytes: &[u8]| {
            let lines = bytes.split_inclusive(|b| *b == b'\n');
            let ended = |line: &[u8]| match line.strip_suffix(b"\n") {
                Some(line) => [line, b"\r\n"].concat(),
                None => line.to_vec(),
            };
            lines.flat_map(ended).collect::<Vec<u8>>()
        };
        let tty = self.surroundings.tty;
        for (bytes, is_error) in [(&io.stdout, false), (&io.stderr, true)] {
            match bytes.is_empty() {
                true => {}
                // A terminal has one stream.
                false if tty => out.push(Output::Stdout(crlf(bytes))),
                false if is_error => out.push(Output::Stderr(bytes.clone())),
                false => out.push(Output::Stdout(bytes.clone())),
            }
        }
    }

    fn end(&mut self, code: i32, out: &mut Vec<Output>) {
        self.ended = true;
        self.status = code;
        out.push(Output::Exit(code));
    }
}

/// The bytes of words.
fn length(argv: &[String]) -> usize {
    argv.iter().map(String::len).sum()
}

/// What a shell runs.
enum Shell {
    /// A script and its parameters.
    Script(String, Vec<String>),
    /// What comes on standard input.
    Stdin,
}

/// What a command runs if it is a shell.
fn shell_script(argv: &[String]) -> Option<Shell> {
    let (name, args) = argv.split_first()?;
    if !command::is_shell(name) {
        return None;
    }
    let flags = args.iter().take_while(|a| a.starts_with('-')).count();
    let from_argument = args[..flags].iter().any(|a| !a.starts_with("--") && a.contains('c'));
    Some(match args.get(flags) {
        Some(script) if from_argument => {
            let parameters = args.get(flags + 1..).unwrap_or_default();
            let parameters = if parameters.is_empty() { vec![name.clone()] } else { parameters.to_vec() };
            Shell::Script(script.clone(), parameters)
        }
        Some(file) => {
            Shell::Script(format!("echo 'sh: can'\\''t open '\\''{file}'\\''' >&2; exit 2"), vec![name.clone()])
        }
        None => Shell::Stdin,
    })
}

/// A pipeline that writes a syntax error and fails with exit code 2.
fn complaint(why: &str) -> Pipeline {
    let text = |t: &str| vec![Piece::Text(t.to_owned())];
    let words = vec![text("sh"), text("-c"), text("echo \"$0\" >&2; exit 2"), text(&format!("sh: {why}"))];
    Pipeline { when: When::Always, commands: vec![Command { words, ..Command::default() }] }
}

#[cfg(test)]
mod tests {
    use super::{Input, Output, Process, Surroundings, understood};
    use crate::container::files::Files;
    use skeg_core::Wall;
    use std::time::Duration;

    fn argv(line: &[&str]) -> Vec<String> {
        line.iter().map(|w| (*w).to_owned()).collect()
    }

    fn surroundings(tty: bool) -> Surroundings {
        let env = [("COLOUR", "red"), ("HOME", "/root")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        Surroundings { env: env.into(), directory: "/".to_owned(), main: "nginx".to_owned(), tty }
    }

    /// Standard output, standard error and the exit code.
    fn run(command: &[&str], stdin: &str, files: &mut Files) -> (String, String, i32) {
        let mut process = Process::new(&argv(command), surroundings(false)).unwrap();
        let mut out = Vec::new();
        for input in [Input::Begin, Input::Stdin(stdin.as_bytes()), Input::End] {
            process.handle(Wall(0), input, files, &mut out);
        }
        let (mut stdout, mut stderr, mut code) = (Vec::new(), Vec::new(), None);
        for output in out {
            assert_eq!(code, None, "nothing follows the exit");
            match output {
                Output::Stdout(bytes) => stdout.extend(bytes),
                Output::Stderr(bytes) => stderr.extend(bytes),
                Output::Exit(with) => code = Some(with),
                other => panic!("{other:?}"),
            }
        }
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(stdout), text(stderr), code.expect("it ends"))
    }

    #[test]
    fn commands_do_what_a_person_expects() {
        let files = &mut Files::new("web-0");
        let mut check = |script: &str, stdin: &str, stdout: &str, stderr: &str, code: i32| {
            let got = run(&["sh", "-c", script], stdin, files);
            assert_eq!((got.0.as_str(), got.1.as_str(), got.2), (stdout, stderr, code), "{script}");
        };
        check("echo hello; exit 3", "", "hello\n", "", 3);
        check("echo $COLOUR ${HOME}/x '$COLOUR' \"$COLOUR y\"", "", "red /root/x $COLOUR red y\n", "", 0);
        check("true && echo a || echo b", "", "a\n", "", 0);
        check("false && echo a || echo b", "", "b\n", "", 0);
        check("false; echo $?", "", "1\n", "", 0);
        check("cat", "typed\n", "typed\n", "", 0);
        check("cat /etc/hostname; hostname", "", "web-0\nweb-0\n", "", 0);
        check("cat /none", "", "", "cat: /none: No such file or directory\n", 1);
        check("nothing", "", "", "sh: nothing: not found\n", 127);
        check("echo a > /tmp/f; echo b >> /tmp/f; cat < /tmp/f", "", "a\nb\n", "", 0);
        check("cat /none > /tmp/err 2>&1; wc -l /tmp/err", "", "1 /tmp/err\n", "", 0);
        check("cat /none 2>/dev/null || echo missing >&2", "", "", "missing\n", 0);
        check("ls /tmp", "", "err\nf\n", "", 0);
        check("ls -l /tmp/f", "", "-rw-r--r--    1 root     root             4 /tmp/f\n", "", 0);
        check("cd /tmp && pwd && ls", "", "/tmp\nerr\nf\n", "", 0);
        check("seq 20 | tail -n 2 | head -1; seq 3 | wc -l", "", "19\n3\n", "", 0);
        check("seq 12 | grep 1 | grep -v 0 | sort", "", "1\n11\n12\n", "", 0);
        check(
            "mkdir -p /a/b && touch /a/b/c && test -f /a/b/c && [ -d /a ] && rm -r /a && ls /a",
            "",
            "",
            "ls: /a: No such file or directory\n",
            1,
        );
        check("x=1; export y=2; echo $x$y; env | grep y=", "", "12\ny=2\n", "", 0);
        check("printf '%s-%s\\n' a b; printf '100%%\\n'", "", "a-b\n100%\n", "", 0);
        check("echo -n a; echo -e 'b\\tc'", "", "ab\tc\n", "", 0);
        check("sh -c 'echo $0 $1; exit 4' me you; echo $?", "", "me you\n4\n", "", 0);
        check("echo 'echo inner' | sh", "", "inner\n", "", 0);
        check("exec echo done; echo never", "", "done\n", "", 0);
        check("ps | grep nginx", "", "    1 root      0:00 nginx\n", "", 0);
        check("kill 55", "", "", "sh: kill: (55) - No such process\n", 1);
        check("date", "", "1970-01-01T00:00:00Z\n", "", 0);
        check(
            "for x in y; do :; done",
            "",
            "",
            "sh: syntax error: \"for\" is not understood by the simulated shell\n",
            2,
        );
        check("tail -c +3 /etc/hostname; tail -c 2 /etc/hostname", "", "b-0\n0\n", "", 0);
    }

    #[test]
    fn scripts_have_an_end() {
        let files = &mut Files::new("web-0");
        let mut check = |script: &str, stdin: &[u8], stderr: &str, code: i32| {
            let mut process = Process::new(&argv(&["sh", "-c", script]), surroundings(false)).unwrap();
            let mut out = Vec::new();
            for input in [Input::Begin, Input::Stdin(stdin), Input::End] {
                process.handle(Wall(0), input, files, &mut out);
            }
            let said = |o: &Output| matches!(o, Output::Stderr(b) if b.ends_with(stderr.as_bytes()));
            assert!(out.iter().any(said), "{script}: {:?}", out.last());
            assert_eq!(out.last(), Some(&Output::Exit(code)), "{script}");
        };
        let doubled = |n: usize| format!("x=0123456789abcdef;{}", "x=$x$x;".repeat(n));
        check(&format!("{} exit $?", doubled(20)), b"", "sh: Argument list too long\n", 126);
        check(&format!("{} echo $x $x $x", doubled(16)), b"", "sh: Argument list too long\n", 126);
        check(&format!("{} a=$x b=$x c=$x", doubled(16)), b"", "sh: Argument list too long\n", 126);
        // Each level runs the next a hundred times.
        let twice = "sh -c \"$x\";".repeat(100);
        check(&format!("export x='{twice}'; {twice}"), b"", "sh: Killed\n", 137);
        let many = vec![b'.'; super::MAX_STDIN / 2];
        check(&format!("cat > /tmp/f; cat {}", "/tmp/f ".repeat(3)), &many, "cat: Cannot allocate memory\n", 1);
        check(&format!("cat > /tmp/f;{}", "cat /tmp/f;".repeat(10)), &many, "sh: Killed\n", 137);
    }

    /// Work that grew with the square of what comes would take much longer.
    #[test]
    fn lines_are_taken_one_by_one() {
        let files = &mut Files::new("web-0");
        let lines = format!(": {}\n", "x".repeat(1000)).repeat(5_000);
        assert_eq!(run(&["sh"], &lines, files), (String::new(), String::new(), 0));
        let mut process = Process::new(&argv(&["sh"]), surroundings(true)).unwrap();
        let mut out = Vec::new();
        process.typed = vec![b'x'; super::MAX_STDIN];
        process.handle(Wall(0), Input::Stdin(b"x"), files, &mut out);
        assert_eq!(out.last(), Some(&Output::Exit(137)));
    }

    #[test]
    fn files_are_copied_by_tar() {
        let mut files = Files::new("a");
        files.write("/tmp/f", b"content", false).unwrap();
        let mut process = Process::new(&argv(&["tar", "cf", "-", "/tmp/f"]), surroundings(false)).unwrap();
        let mut out = Vec::new();
        process.handle(Wall(0), Input::Begin, &mut files, &mut out);
        let [Output::Stdout(archive), Output::Stderr(note), Output::Exit(0)] = out.as_slice() else {
            panic!("{out:?}")
        };
        assert_eq!(note, b"tar: Removing leading `/' from member names\n");
        let mut other = Files::new("b");
        let unpack = argv(&["tar", "-xmf", "-", "-C", "/home"]);
        let mut process = Process::new(&unpack, surroundings(false)).unwrap();
        let mut out = Vec::new();
        process.handle(Wall(0), Input::Begin, &mut other, &mut out);
        archive.chunks(100).for_each(|part| process.handle(Wall(0), Input::Stdin(part), &mut other, &mut out));
        assert_eq!(out, []);
        process.handle(Wall(0), Input::End, &mut other, &mut out);
        assert_eq!(out, [Output::Exit(0)]);
        assert_eq!(other.read("/home/tmp/f"), Ok(&b"content"[..]));
    }

    #[test]
    fn a_shell_at_a_terminal_shows_what_is_typed() {
        let mut files = Files::new("a");
        let mut process = Process::new(&argv(&["/bin/sh"]), surroundings(true)).unwrap();
        let mut said = |input: Input<'_>| {
            let mut out = Vec::new();
            process.handle(Wall(0), input, &mut files, &mut out);
            let text = |output: &Output| match output {
                Output::Stdout(bytes) => String::from_utf8(bytes.clone()).unwrap(),
                Output::Exit(code) => format!("exit {code}"),
                other => panic!("{other:?}"),
            };
            out.iter().map(text).collect::<String>()
        };
        assert_eq!(said(Input::Begin), "/ # ");
        assert_eq!(said(Input::Stdin(b"ecx\x7fho hi\r")), "ecx\x08 \x08ho hi\r\nhi\r\n/ # ");
        assert_eq!(said(Input::Stdin(b"cat\r")), "cat\r\n");
        assert_eq!(said(Input::Stdin(b"x\r")), "x\r\nx\r\n");
        assert_eq!(said(Input::Stdin(b"\x03")), "^C\r\n/ # ");
        assert_eq!(said(Input::Stdin(b"\x04")), "exit\r\nexit 130");
        assert_eq!(said(Input::Stdin(b"more")), "");
    }

    #[test]
    fn a_process_sleeps_and_cat_passes_on() {
        let mut files = Files::new("a");
        let mut process = Process::new(&argv(&["sh", "-c", "sleep 5; kill -9 1"]), surroundings(false)).unwrap();
        let mut out = Vec::new();
        process.handle(Wall(0), Input::Begin, &mut files, &mut out);
        assert_eq!(out, [Output::Sleep(Duration::from_secs(5))]);
        process.handle(Wall(0), Input::Woken, &mut files, &mut out);
        assert_eq!(out[1..], [Output::Kill(9), Output::Exit(0)]);
        let mut cat = Process::new(&argv(&["cat"]), surroundings(false)).unwrap();
        let mut out = Vec::new();
        cat.handle(Wall(0), Input::Stdin(b"a"), &mut files, &mut out);
        cat.handle(Wall(0), Input::Stdin(b"b"), &mut files, &mut out);
        assert_eq!(out, [Output::Stdout(b"a".to_vec()), Output::Stdout(b"b".to_vec())]);
        let why = Process::new(&argv(&["nginx"]), surroundings(false)).unwrap_err();
        assert!(why.ends_with("exec: \"nginx\": executable file not found in $PATH"), "{why}");
    }

    #[test]
    fn what_is_understood_is_known_before_it_runs() {
        for line in [&["sh"][..], &["sh", "-c", "sleep 5; echo x | wc -l"], &["/bin/echo", "x"], &["sleep", "1d"]] {
            assert!(understood(&argv(line)), "{line:?}");
        }
        for line in
            [&["nginx"][..], &["sh", "-c", "while :; do :; done"], &["sh", "-c", "nginx"], &["sh", "-c", "$X"], &[]]
        {
            assert!(!understood(&argv(line)), "{line:?}");
        }
    }
}
