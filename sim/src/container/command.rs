//! The commands that the scripted shell knows.

use std::collections::BTreeMap;
use std::time::Duration;

use skeg_core::Wall;

use super::files::{Entry, Files, absolute};
use super::process::MAX_STDIN;
use super::tar;

/// The commands, all of which are in `/bin`.
const COMMANDS: [&str; 38] = [
    ":", "[", "ash", "bash", "cat", "cd", "date", "echo", "env", "exec", "exit", "export", "false", "grep", "head",
    "hostname", "id", "kill", "ls", "mkdir", "printenv", "printf", "ps", "pwd", "rm", "seq", "sh", "sleep", "sort",
    "tail", "tar", "tee", "test", "touch", "true", "uname", "wc", "whoami",
];

/// The standard streams of a command.
#[derive(Debug, Default)]
pub struct Io {
    /// What it reads.
    pub stdin: Vec<u8>,
    /// What it wrote.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: Vec<u8>,
}

impl Io {
    fn say(&mut self, line: &str) {
        self.stdout.extend_from_slice(line.as_bytes());
        self.stdout.push(b'\n');
    }

    /// Writes an error and fails with exit code 1.
    pub fn fail(&mut self, line: &str) -> Done {
        self.fail_with(1, line)
    }

    /// Writes an error and fails with an exit code.
    pub fn fail_with(&mut self, code: i32, line: &str) -> Done {
        self.stderr.extend_from_slice(line.as_bytes());
        self.stderr.push(b'\n');
        Done::Code(code)
    }
}

/// What a command works on.
pub struct Context<'a> {
    /// The container's files.
    pub files: &'a mut Files,
    /// The process's environment.
    pub env: &'a mut BTreeMap<String, String>,
    /// Its working directory.
    pub directory: &'a mut String,
    /// The time.
    pub now: Wall,
    /// The container's own command, for `ps`.
    pub main: &'a str,
}

/// How a command ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Done {
    /// With this exit code.
    Code(i32),
    /// It ends the shell with this exit code.
    Exit(i32),
    /// It sleeps, and then succeeds.
    Sleep(Duration),
    /// It kills the container's own process with this signal, and succeeds.
    Kill(i32),
}

/// The name of a command that the shell knows, from a name or a path; `None` if there is no such command.
pub fn known(name: &str) -> Option<&'static str> {
    let base = match name.rsplit_once('/') {
        Some(("/bin" | "/usr/bin" | "/usr/local/bin" | "/sbin" | "/usr/sbin", base)) => base,
        Some(_) => return None,
        None => name,
    };
    COMMANDS.into_iter().find(|known| *known == base)
}

/// Whether a command is a shell.
pub fn is_shell(name: &str) -> bool {
    matches!(known(name), Some("sh" | "bash" | "ash"))
}

/// Whether a command reads its standard input to the end before it says anything.
pub fn reads_stdin(argv: &[String]) -> bool {
    let Some((name, args)) = argv.split_first() else { return false };
    let files = args.iter().filter(|a| !a.starts_with('-') || *a == "-").count();
    match known(name) {
        Some("cat" | "sort") => files == 0 || args.iter().any(|a| a == "-"),
        Some("tee") => true,
        Some("wc") => files == 0,
        Some("grep") => files <= 1,
        Some("head" | "tail") => reads_from(args).1.is_none(),
        Some("tar") => matches!(TarArgs::parse(args), Ok(TarArgs { create: false, file: None, .. })),
        Some("sh" | "bash" | "ash") => args.is_empty() || args == ["-"] || args == ["-s"],
        _ => false,
    }
}

/// `-n 5`, `-5`, `-c +3` and the file of `head` and `tail`: unit, number and sign, then the file.
fn reads_from(args: &[String]) -> ((char, Option<String>), Option<String>) {
    let (mut count, mut file) = (('n', None), None);
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.strip_prefix('-').filter(|rest| !rest.is_empty()) {
            Some("n" | "c") => count = (arg.chars().nth(1).unwrap_or('n'), args.next().cloned()),
            Some(rest) if rest.starts_with(['n', 'c']) => {
                count = (rest.as_bytes()[0] as char, Some(rest[1..].to_owned()))
            }
            Some(number) => count = ('n', Some(number.to_owned())),
            None => file = (arg != "-").then(|| arg.clone()),
        }
    }
    (count, file)
}

/// Runs a command.
pub fn run(argv: &[String], io: &mut Io, context: &mut Context<'_>) -> Done {
    let Some((name, args)) = argv.split_first() else { return Done::Code(0) };
    let Some(command) = known(name) else { return io.fail_with(127, &format!("sh: {name}: not found")) };
    match command {
        "true" | ":" => Done::Code(0),
        "false" => Done::Code(1),
        "exit" => Done::Exit(args.first().and_then(|code| code.parse().ok()).unwrap_or(0) & 0xff),
        "echo" => echo(args, io),
        "printf" => printf(args, io),
        "cat" => cat(args, io, context),
        "tee" => tee(args, io, context),
        "ls" => ls(args, io, context),
        "env" | "printenv" => env(args, io, context),
        "export" => export(args, context),
        "pwd" => said(io, context.directory),
        "cd" => cd(args, io, context),
        "hostname" => {
            let name = context.files.read("/etc/hostname").map(<[u8]>::to_vec).unwrap_or_default();
            io.stdout.extend(name);
            Done::Code(0)
        }
        "whoami" => said(io, "root"),
        "id" => said(io, "uid=0(root) gid=0(root) groups=0(root)"),
        "date" => said(io, &context.now.to_time().0.to_string()),
        "uname" => said(io, if args.is_empty() { "Linux" } else { "Linux skeg 6.1.0 simulated x86_64 Linux" }),
        "sleep" => sleep(args, io),
        "mkdir" => mkdir(args, io, context),
        "rm" => rm(args, io, context),
        "touch" => touch(args, io, context),
        "test" => Done::Code(i32::from(!test(args, context))),
        "[" => match args.split_last() {
            Some((last, args)) if last == "]" => Done::Code(i32::from(!test(args, context))),
            _ => io.fail_with(2, "sh: [: missing ]"),
        },
        "head" | "tail" => head_or_tail(command == "head", args, io, context),
        "wc" => wc(args, io, context),
        "grep" => grep(args, io, context),
        "seq" => seq(args, io),
        "sort" => sort(args, io, context),
        "ps" => said(io, &format!("PID   USER     TIME  COMMAND\n    1 root      0:00 {}", context.main)),
        "kill" => kill(args, io),
        "tar" => archive(args, io, context),
        other => io.fail(&format!("sh: {other} is not simulated here")),
    }
}

fn said(io: &mut Io, line: &str) -> Done {
    io.say(line);
    Done::Code(0)
}

/// `\n`, `\t`, `\\` and `\0`.
fn unescaped(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, if c == '\\' { chars.next() } else { None }) {
            ('\\', Some('n')) => out.push('\n'),
            ('\\', Some('t')) => out.push('\t'),
            ('\\', Some('r')) => out.push('\r'),
            ('\\', Some('0')) => out.push('\0'),
            ('\\', Some('\\')) => out.push('\\'),
            ('\\', Some(other)) => out.extend(['\\', other]),
            (c, _) => out.push(c),
        }
    }
    out
}

fn echo(args: &[String], io: &mut Io) -> Done {
    let flags = args.iter().take_while(|a| matches!(a.as_str(), "-n" | "-e" | "-ne" | "-en")).count();
    let has = |flag: char| args[..flags].iter().any(|a| a.contains(flag));
    let text = args[flags..].join(" ");
    let text = if has('e') { unescaped(&text) } else { text };
    io.stdout.extend_from_slice(text.as_bytes());
    if !has('n') {
        io.stdout.push(b'\n');
    }
    Done::Code(0)
}

fn printf(args: &[String], io: &mut Io) -> Done {
    let Some((format, args)) = args.split_first() else { return io.fail_with(2, "sh: printf: usage: printf FORMAT") };
    let mut args = args.iter();
    let mut parts = format.split('%');
    let mut out = unescaped(parts.next().unwrap_or_default());
    let mut literal = false;
    for part in parts {
        match part.chars().next() {
            _ if literal => literal = false,
            None => literal = true,
            Some('s' | 'd') => out += args.next().map_or("", String::as_str),
            Some(c) => return io.fail(&format!("sh: printf: %{c}: invalid format")),
        }
        let text = if part.starts_with(['s', 'd']) { &part[1..] } else { part };
        out += &unescaped(if part.is_empty() { "%" } else { text });
    }
    io.stdout.extend_from_slice(out.as_bytes());
    Done::Code(0)
}

/// The content of the files that are named, or of standard input; at most [`MAX_STDIN`] bytes.
fn input(command: &str, names: &[&String], io: &mut Io, context: &Context<'_>) -> (Vec<u8>, i32) {
    if names.is_empty() {
        return (std::mem::take(&mut io.stdin), 0);
    }
    let (mut content, mut code) = (Vec::new(), 0);
    for name in names {
        if *name == "-" {
            content.append(&mut io.stdin);
            continue;
        }
        match context.files.read(&absolute(context.directory, name)) {
            Ok(bytes) if content.len() + bytes.len() > MAX_STDIN => {
                io.fail(&format!("{command}: Cannot allocate memory"));
                return (Vec::new(), 1);
            }
            Ok(bytes) => content.extend_from_slice(bytes),
            Err(why) => {
                io.fail(&format!("{command}: {name}: {why}"));
                code = 1;
            }
        }
    }
    (content, code)
}

fn cat(args: &[String], io: &mut Io, context: &Context<'_>) -> Done {
    let (content, code) = input("cat", &args.iter().collect::<Vec<_>>(), io, context);
    io.stdout.extend(content);
    Done::Code(code)
}

fn tee(args: &[String], io: &mut Io, context: &mut Context<'_>) -> Done {
    let content = std::mem::take(&mut io.stdin);
    for name in args.iter().filter(|a| *a != "-a") {
        let append = args.iter().any(|a| a == "-a");
        if let Err(why) = context.files.write(&absolute(context.directory, name), &content, append) {
            return io.fail(&format!("tee: {name}: {why}"));
        }
    }
    io.stdout.extend(content);
    Done::Code(0)
}

fn ls(args: &[String], io: &mut Io, context: &Context<'_>) -> Done {
    let (flags, names): (Vec<&String>, Vec<&String>) = args.iter().partition(|a| a.starts_with('-') && a.len() > 1);
    let has = |flag: char| flags.iter().any(|f| f.contains(flag));
    let here = ".".to_owned();
    let names = if names.is_empty() { vec![&here] } else { names };
    let show = |name: &str, entry: &Entry| match entry {
        _ if !has('l') => name.to_owned(),
        Entry::Directory => format!("drwxr-xr-x    2 root     root          4096 {name}"),
        Entry::File(bytes) => format!("-rw-r--r--    1 root     root     {:>9} {name}", bytes.len()),
    };
    let mut code = 0;
    for name in names {
        let path = absolute(context.directory, name);
        match context.files.get(&path) {
            None => {
                io.fail(&format!("ls: {name}: No such file or directory"));
                code = 1;
            }
            Some(Entry::Directory) if !has('d') => {
                let shown = context.files.list(&path).filter(|(name, _)| has('a') || !name.starts_with('.'));
                let lines: Vec<String> = shown.map(|(name, entry)| show(name, entry)).collect();
                lines.iter().for_each(|line| io.say(line));
            }
            Some(entry) => io.say(&show(name, entry)),
        }
    }
    Done::Code(code)
}

fn env(args: &[String], io: &mut Io, context: &Context<'_>) -> Done {
    if let Some(name) = args.first() {
        return match context.env.get(name) {
            Some(value) => said(io, value),
            None => Done::Code(1),
        };
    }
    context.env.iter().for_each(|(name, value)| io.say(&format!("{name}={value}")));
    Done::Code(0)
}

fn export(args: &[String], context: &mut Context<'_>) -> Done {
    for (name, value) in args.iter().filter_map(|a| a.split_once('=')) {
        context.env.insert(name.to_owned(), value.to_owned());
    }
    Done::Code(0)
}

fn cd(args: &[String], io: &mut Io, context: &mut Context<'_>) -> Done {
    let to = args.first().cloned().unwrap_or_else(|| "/root".to_owned());
    let path = absolute(context.directory, &to);
    if !context.files.is_directory(&path) {
        return io.fail_with(2, &format!("sh: cd: can't cd to {to}: No such file or directory"));
    }
    *context.directory = path;
    Done::Code(0)
}

fn sleep(args: &[String], io: &mut Io) -> Done {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["infinity"] => Done::Sleep(Duration::MAX),
        words => match crate::hook::total(words) {
            Some(time) => Done::Sleep(time),
            None => io.fail(&format!("sleep: invalid time interval '{}'", words.join(" "))),
        },
    }
}

fn mkdir(args: &[String], io: &mut Io, context: &mut Context<'_>) -> Done {
    let parents = args.iter().any(|a| a == "-p");
    for name in args.iter().filter(|a| !a.starts_with('-')) {
        if let Err(why) = context.files.make_directory(&absolute(context.directory, name), parents) {
            return io.fail(&format!("mkdir: can't create directory '{name}': {why}"));
        }
    }
    Done::Code(0)
}

fn rm(args: &[String], io: &mut Io, context: &mut Context<'_>) -> Done {
    let (flags, names): (Vec<&String>, Vec<&String>) = args.iter().partition(|a| a.starts_with('-'));
    let has = |letters: [char; 2]| flags.iter().any(|f| f.contains(letters));
    for name in names {
        let removed = context.files.remove(&absolute(context.directory, name), has(['r', 'R']));
        if let Err(why) = removed
            && !has(['f', 'f'])
        {
            return io.fail(&format!("rm: can't remove '{name}': {why}"));
        }
    }
    Done::Code(0)
}

fn touch(args: &[String], io: &mut Io, context: &mut Context<'_>) -> Done {
    for name in args.iter().filter(|a| !a.starts_with('-')) {
        let path = absolute(context.directory, name);
        if !context.files.is_directory(&path)
            && let Err(why) = context.files.write(&path, b"", true)
        {
            return io.fail(&format!("touch: {name}: {why}"));
        }
    }
    Done::Code(0)
}

fn test(args: &[String], context: &Context<'_>) -> bool {
    let get = |name: &str| context.files.get(&absolute(context.directory, name));
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["!", rest @ ..] => !test(&rest.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>(), context),
        ["-d", name] => matches!(get(name), Some(Entry::Directory)),
        ["-f", name] => matches!(get(name), Some(Entry::File(_))),
        ["-s", name] => matches!(get(name), Some(Entry::File(bytes)) if !bytes.is_empty()),
        ["-e" | "-r" | "-w", name] => get(name).is_some(),
        ["-n", text] | [text] => !text.is_empty(),
        ["-z", text] => text.is_empty(),
        [a, "=" | "==", b] => a == b,
        [a, "!=", b] => a != b,
        [a, operator, b] => match (a.parse::<i64>(), *operator, b.parse::<i64>()) {
            (Ok(a), "-eq", Ok(b)) => a == b,
            (Ok(a), "-ne", Ok(b)) => a != b,
            (Ok(a), "-lt", Ok(b)) => a < b,
            (Ok(a), "-le", Ok(b)) => a <= b,
            (Ok(a), "-gt", Ok(b)) => a > b,
            (Ok(a), "-ge", Ok(b)) => a >= b,
            _ => false,
        },
        _ => false,
    }
}

fn head_or_tail(head: bool, args: &[String], io: &mut Io, context: &Context<'_>) -> Done {
    let ((unit, count), file) = reads_from(args);
    let name = if head { "head" } else { "tail" };
    let count = count.unwrap_or_else(|| "10".to_owned());
    let Ok(number) = count.trim_start_matches(['+', '-']).parse::<usize>() else {
        return io.fail(&format!("{name}: invalid number '{count}'"));
    };
    let (content, code) = input(name, &file.iter().collect::<Vec<_>>(), io, context);
    // Where the first `n` characters or lines end.
    let end = |n: usize| match unit {
        'c' => n.min(content.len()),
        _ => match n.checked_sub(1) {
            None => 0,
            Some(last) => content
                .iter()
                .enumerate()
                .filter(|(_, b)| **b == b'\n')
                .map(|(at, _)| at)
                .nth(last)
                .map_or(content.len(), |at| at + 1),
        },
    };
    let all = || if unit == 'c' { content.len() } else { content.split_inclusive(|b| *b == b'\n').count() };
    let range = match (head, count.starts_with('+')) {
        (true, _) => 0..end(number),
        (false, true) => end(number.saturating_sub(1))..content.len(),
        (false, false) => end(all().saturating_sub(number))..content.len(),
    };
    io.stdout.extend_from_slice(&content[range]);
    Done::Code(code)
}

fn wc(args: &[String], io: &mut Io, context: &Context<'_>) -> Done {
    let (flags, names): (Vec<&String>, Vec<&String>) = args.iter().partition(|a| a.starts_with('-') && a.len() > 1);
    let (content, code) = input("wc", &names, io, context);
    let text = String::from_utf8_lossy(&content);
    let counts = [('l', text.matches('\n').count()), ('w', text.split_whitespace().count()), ('c', content.len())];
    let asked = |letter: char| flags.is_empty() || flags.iter().any(|f| f.contains(letter));
    let shown: Vec<String> = counts.iter().filter(|(l, _)| asked(*l)).map(|(_, n)| n.to_string()).collect();
    let name = names.first().map_or(String::new(), |name| format!(" {name}"));
    io.say(&format!("{}{name}", shown.join(" ")));
    Done::Code(code)
}

fn grep(args: &[String], io: &mut Io, context: &Context<'_>) -> Done {
    let (flags, names): (Vec<&String>, Vec<&String>) = args.iter().partition(|a| a.starts_with('-') && a.len() > 1);
    let has = |flag: char| flags.iter().any(|f| f.contains(flag));
    let Some((pattern, files)) = names.split_first() else { return io.fail_with(2, "grep: no pattern is given") };
    let (content, code) = input("grep", files, io, context);
    let fold = |text: &str| if has('i') { text.to_lowercase() } else { text.to_owned() };
    let pattern = fold(pattern);
    let text = String::from_utf8_lossy(&content).into_owned();
    let mut found = 0;
    for line in text.lines().filter(|line| fold(line).contains(&pattern) != has('v')) {
        found += 1;
        if !has('c') && !has('q') {
            io.say(line);
        }
    }
    if has('c') {
        io.say(&found.to_string());
    }
    Done::Code(if code != 0 { 2 } else { i32::from(found == 0) })
}

fn seq(args: &[String], io: &mut Io) -> Done {
    let numbers: Vec<i64> = args.iter().filter_map(|a| a.parse().ok()).collect();
    let (from, to) = match *numbers.as_slice() {
        [to] => (1, to),
        [from, to] => (from, to),
        _ => return io.fail("seq: one or two numbers are needed"),
    };
    for n in (from..=to).take(100_000) {
        io.say(&n.to_string());
    }
    Done::Code(0)
}

fn sort(args: &[String], io: &mut Io, context: &Context<'_>) -> Done {
    let names: Vec<&String> = args.iter().filter(|a| !a.starts_with('-')).collect();
    let (content, code) = input("sort", &names, io, context);
    let text = String::from_utf8_lossy(&content).into_owned();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines.iter().for_each(|line| io.say(line));
    Done::Code(code)
}

/// Only the container's own process, number 1, can be killed.
fn kill(args: &[String], io: &mut Io) -> Done {
    let signal = match args.first().map(String::as_str) {
        Some("-9" | "-KILL" | "-SIGKILL") => 9,
        Some("-2" | "-INT") => 2,
        _ => 15,
    };
    match args.iter().rfind(|a| !a.starts_with('-')).map(String::as_str) {
        Some("1") => Done::Kill(signal),
        other => io.fail(&format!("sh: kill: ({}) - No such process", other.unwrap_or_default())),
    }
}

/// The arguments of `tar`.
#[derive(Debug)]
struct TarArgs {
    create: bool,
    /// `None` for standard input or output.
    file: Option<String>,
    directory: String,
    names: Vec<String>,
}

impl TarArgs {
    fn parse(args: &[String]) -> Result<TarArgs, String> {
        let mut parsed = TarArgs { create: false, file: None, directory: ".".to_owned(), names: Vec::new() };
        let (mut extract, mut first) = (false, true);
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let letters = arg.strip_prefix('-').or(if first { Some(arg) } else { None });
            first = false;
            match letters {
                Some("" | "-") | None => parsed.names.push(arg.clone()),
                Some(long) if long.starts_with('-') => {}
                Some(letters) => {
                    for letter in letters.chars() {
                        match letter {
                            'c' => parsed.create = true,
                            'x' => extract = true,
                            'f' => parsed.file = args.next().filter(|f| *f != "-").cloned(),
                            'C' => parsed.directory = args.next().cloned().unwrap_or_default(),
                            'm' | 'o' | 'p' | 'v' | 'h' | 'P' => {}
                            other => return Err(format!("tar: the option '{other}' is not simulated")),
                        }
                    }
                }
            }
        }
        if parsed.create == extract { Err("tar: one of 'c' and 'x' is needed".to_owned()) } else { Ok(parsed) }
    }
}

fn archive(args: &[String], io: &mut Io, context: &mut Context<'_>) -> Done {
    let tar = match TarArgs::parse(args) {
        Ok(tar) => tar,
        Err(why) => return io.fail(&why),
    };
    let directory = absolute(context.directory, &tar.directory);
    let file = tar.file.map(|file| absolute(context.directory, &file));
    if !context.files.is_directory(&directory) {
        return io.fail(&format!("tar: can't change directory to '{}': No such file or directory", tar.directory));
    }
    if !tar.create {
        let archive = match file {
            None => std::mem::take(&mut io.stdin),
            Some(file) => match context.files.read(&file) {
                Ok(bytes) => bytes.to_vec(),
                Err(why) => return io.fail(&format!("tar: {file}: Cannot open: {why}")),
            },
        };
        return match tar::unpack(&archive, &directory, context.files) {
            Ok(()) => Done::Code(0),
            Err(why) => io.fail(&why),
        };
    }
    let (mut archive, mut code) = (Vec::new(), 0);
    for name in &tar.names {
        let stripped = name.trim_start_matches('/').trim_end_matches('/');
        if name.starts_with('/') {
            io.stderr.extend_from_slice(b"tar: Removing leading `/' from member names\n");
        }
        let stripped = if stripped.is_empty() { "." } else { stripped };
        if let Err(why) = tar::pack(context.files, &absolute(&directory, name), stripped, &mut archive) {
            io.fail(&format!("tar: {name}: Cannot stat: {why}"));
            code = 2;
        }
    }
    tar::finish(&mut archive);
    match file {
        None => io.stdout.extend(archive),
        Some(file) => {
            if let Err(why) = context.files.write(&file, &archive, false) {
                return io.fail(&format!("tar: {file}: Cannot open: {why}"));
            }
        }
    }
    Done::Code(code)
}
