//! What was recorded of a client: cases of requests and answers, and the files that hold them.
//!
//! A file has a section of the recorded day: a title for each case (the command that was run), below it the
//! exchanges, each with the versions of the client that sent it.
//!
//! ```text
//! ### 7 get deployment web
//! >>> 1.29 1.31
//! GET /apis/apps/v1/namespaces/default/deployments/web
//! Accept: application/json
//! <<< 200 application/json
//! {"apiVersion": "apps/v1", …}
//! ```
//!
//! A long answer that comes again is marked by a line `&N`, and where it comes again stands `*N`, in whatever file.
//!
//! In requests, `{{7.1/metadata/uid}}` stands for what the first answer of case 7 has there. In answers `<any>`
//! stands for what is not compared, and `<uid-1>` and the like for what differs from run to run ([`super::normal`]).

use std::collections::BTreeMap;
use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// The most characters of JSON in one line.
const WIDTH: usize = 118;
/// The shortest answer that is not written again where it comes again.
const LONG: usize = 400;

/// A request's body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    /// There is none.
    None,
    /// JSON or YAML, as it was sent, but for references.
    Text(String),
    /// Protobuf as it was sent.
    Protobuf(Vec<u8>),
    /// Protobuf that refers to an answer: what it says, as JSON.
    Encoded(String),
}

/// An answer's body.
#[derive(Clone, PartialEq, Debug)]
pub enum Shown {
    /// It is not compared.
    Nothing,
    /// JSON, or protobuf that was decoded.
    Json(Value),
    /// Any other text.
    Text(String),
}

/// An answer.
#[derive(Clone, PartialEq, Debug)]
pub struct Answer {
    /// The status code.
    pub code: u16,
    /// The headers that matter: the media type without its name first.
    pub head: String,
    /// Its body.
    pub body: Shown,
}

/// A request and its answer.
#[derive(Clone, PartialEq, Debug)]
pub struct Exchange {
    /// Its method.
    pub method: String,
    /// Path and query, with references.
    pub target: String,
    /// The headers that matter.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Body,
    /// What is answered.
    pub answer: Answer,
}

/// What one command asks.
#[derive(Clone, PartialEq, Debug)]
pub struct Case {
    /// The part of the day that it belongs to.
    pub section: String,
    /// The command.
    pub title: String,
    /// What it asks.
    pub exchanges: Vec<Exchange>,
}

/// The cases of one version of a client.
pub type Session = Vec<Case>;

/// Files by name, of sessions by version.
pub fn write(sessions: &BTreeMap<String, Session>) -> BTreeMap<String, String> {
    let Some(longest) = sessions.values().max_by_key(|session| session.len()) else { return BTreeMap::new() };
    let mut files: Vec<(String, String)> = Vec::new();
    let merged: Vec<_> = (0..longest.len()).map(|number| merge(asked(sessions, number))).collect();
    let mut repeated = Repeated::of(merged.iter().flatten().map(|(_, exchange)| &exchange.answer));
    for ((number, Case { section, title, .. }), merged) in longest.iter().enumerate().zip(&merged) {
        if files.last().is_none_or(|(last, _)| last != section) {
            files.push((section.clone(), String::new()));
        }
        let (_, text) = files.last_mut().expect("it was just made");
        let _ = writeln!(text, "### {} {title}", number + 1);
        for (versions, exchange) in merged {
            let _ = writeln!(text, ">>> {}", versions.join(" "));
            write_request(exchange, text);
            let _ = writeln!(text, "<<< {} {}", exchange.answer.code, exchange.answer.head);
            repeated.write(&exchange.answer, text);
        }
    }
    let named = files.into_iter().enumerate();
    named.map(|(number, (section, text))| (format!("{:02}-{section}.txt", number + 1), text)).collect()
}

/// What each version asks in a case.
fn asked(sessions: &BTreeMap<String, Session>, number: usize) -> Vec<(&str, Vec<Exchange>)> {
    let exchanges = |session: &Session| session.get(number).map(|case| case.exchanges.clone()).unwrap_or_default();
    sessions.iter().map(|(version, session)| (&**version, exchanges(session))).collect()
}

/// Long answers that come again.
struct Repeated {
    /// How often each comes.
    times: BTreeMap<String, usize>,
    /// The mark of each that was written.
    marks: BTreeMap<String, usize>,
}

impl Repeated {
    fn of<'a>(answers: impl Iterator<Item = &'a Answer>) -> Repeated {
        let mut times = BTreeMap::new();
        for text in answers.map(shown).filter(|text| text.len() >= LONG) {
            *times.entry(text).or_default() += 1;
        }
        Repeated { times, marks: BTreeMap::new() }
    }

    fn write(&mut self, answer: &Answer, text: &mut String) {
        let shown = shown(answer);
        if let Some(mark) = self.marks.get(&shown) {
            let _ = writeln!(text, "*{mark}");
            return;
        }
        if self.times.get(&shown).is_some_and(|times| *times > 1) {
            let mark = self.marks.len() + 1;
            let _ = writeln!(text, "&{mark}");
            self.marks.insert(shown.clone(), mark);
        }
        text.push_str(&shown);
    }
}

/// An answer's body as lines.
fn shown(answer: &Answer) -> String {
    match &answer.body {
        Shown::Nothing => String::new(),
        Shown::Json(value) => {
            let mut text = String::new();
            write_json(value, 0, &mut text);
            text + "\n"
        }
        Shown::Text(body) => body.split('\n').map(|line| format!("| {line}\n")).collect(),
    }
}

/// One list of the exchanges of several versions, in each version's order, each with those that have it.
fn merge(mut asked: Vec<(&str, Vec<Exchange>)>) -> Vec<(Vec<&str>, Exchange)> {
    let mut merged = Vec::new();
    while let Some(next) = next_of(&asked) {
        let mut versions = Vec::new();
        for (version, exchanges) in &mut asked {
            if exchanges.first() == Some(&next) {
                exchanges.remove(0);
                versions.push(*version);
            }
        }
        merged.push((versions, next));
    }
    merged
}

/// The first exchange of some version that no other has further behind.
fn next_of(asked: &[(&str, Vec<Exchange>)]) -> Option<Exchange> {
    let firsts = || asked.iter().filter_map(|(_, exchanges)| exchanges.first());
    let is_behind = |first: &&Exchange| asked.iter().any(|(_, all)| all.iter().skip(1).any(|other| other == *first));
    firsts().find(|first| !is_behind(first)).or_else(|| firsts().next()).cloned()
}

fn write_request(Exchange { method, target, headers, body, .. }: &Exchange, text: &mut String) {
    let _ = writeln!(text, "{method} {target}");
    for (name, value) in headers {
        let _ = writeln!(text, "{name}: {value}");
    }
    match body {
        Body::None => {}
        Body::Text(body) => body.lines().for_each(|line| text.push_str(&format!("| {line}\n"))),
        Body::Protobuf(bytes) => {
            let said = skeg_core::protobuf::decode(bytes, None).expect("it was decoded before");
            let _ = writeln!(text, "# {said}\nbase64 {}", STANDARD.encode(bytes));
        }
        Body::Encoded(said) => {
            let _ = writeln!(text, "protobuf {said}");
        }
    }
}

/// JSON, of which each part is in one line if it fits.
pub fn write_json(value: &Value, indent: usize, text: &mut String) {
    let short = value.to_string();
    if short.len() + indent <= WIDTH {
        text.push_str(&short);
        return;
    }
    let next = indent + 1;
    let part = |first: &mut bool, text: &mut String| {
        text.push_str(if std::mem::take(first) { "\n" } else { ",\n" });
        text.extend(std::iter::repeat_n(' ', next));
    };
    let mut first = true;
    match value {
        Value::Array(items) => {
            text.push('[');
            for item in items {
                part(&mut first, text);
                write_json(item, next, text);
            }
            text.push(']');
        }
        Value::Object(fields) => {
            text.push('{');
            for (key, item) in fields {
                part(&mut first, text);
                let _ = write!(text, "{}: ", Value::String(key.clone()));
                write_json(item, next, text);
            }
            text.push('}');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => text.push_str(&short),
    }
}

/// Reads files, in the order of their names, to sessions by version.
pub fn read(files: &BTreeMap<String, String>) -> BTreeMap<String, Session> {
    let mut sessions: BTreeMap<String, Session> = BTreeMap::new();
    let versions = files.values().flat_map(|text| text.lines()).filter_map(|line| line.strip_prefix(">>> "));
    for version in versions.flat_map(|line| line.split(' ')) {
        sessions.entry(version.to_owned()).or_default();
    }
    let mut marked = BTreeMap::new();
    for (name, text) in files {
        let section = name.trim_end_matches(".txt").split_once('-').expect("a number and a name").1;
        for case in parts(text, "### ") {
            let (title, exchanges) = case.split_once('\n').expect("a title");
            let title = title.split_once(' ').expect("a number and a title").1;
            for session in sessions.values_mut() {
                session.push(Case { section: section.to_owned(), title: title.to_owned(), exchanges: Vec::new() });
            }
            for block in parts(exchanges, ">>> ") {
                let (versions, block) = block.split_once('\n').expect("a request");
                let exchange = read_exchange(block, &mut marked);
                for version in versions.split(' ') {
                    let case = sessions.get_mut(version).and_then(|session| session.last_mut());
                    case.expect("all versions are known").exchanges.push(exchange.clone());
                }
            }
        }
    }
    sessions
}

/// What begins at lines with this mark; what comes before the first is left out.
fn parts<'a>(text: &'a str, mark: &'a str) -> impl Iterator<Item = &'a str> {
    let starts = move |at: &usize| *at == 0 || text.as_bytes()[at - 1] == b'\n';
    let marks = move || text.match_indices(mark).map(|(at, _)| at).filter(starts);
    let ends = marks().skip(1).chain([text.len()]);
    marks().zip(ends).map(move |(at, end)| &text[at + mark.len()..end])
}

fn read_exchange(block: &str, marked: &mut BTreeMap<String, Shown>) -> Exchange {
    let (request, answer) = block.split_once("\n<<< ").unwrap_or_else(|| panic!("no answer: {block}"));
    let mut lines = request.lines();
    let (method, target) = lines.next().and_then(|line| line.split_once(' ')).expect("a method and a path");
    let (mut headers, mut asked, mut text) = (Vec::new(), Body::None, Vec::new());
    for line in lines {
        if let Some(line) = line.strip_prefix("| ") {
            text.push(line);
        } else if let Some(bytes) = line.strip_prefix("base64 ") {
            asked = Body::Protobuf(STANDARD.decode(bytes).expect("base64"));
        } else if let Some(said) = line.strip_prefix("protobuf ") {
            asked = Body::Encoded(said.to_owned());
        } else if !line.starts_with("# ") {
            let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("no header: {line}"));
            headers.push((name.to_owned(), value.to_owned()));
        }
    }
    if !text.is_empty() {
        asked = Body::Text(text.join("\n"));
    }
    let (head, shown) = answer.split_once('\n').expect("a line with the code");
    let (code, head) = head.split_once(' ').expect("a code and a media type");
    let body = match shown.strip_prefix('*') {
        Some(mark) => marked.get(mark.trim_end()).expect("it was marked before").clone(),
        None => {
            let marks = shown.strip_prefix('&').map(|shown| shown.split_once('\n').expect("a mark"));
            let body = read_shown(marks.map_or(shown, |(_, shown)| shown));
            if let Some((mark, _)) = marks {
                marked.insert(mark.to_owned(), body.clone());
            }
            body
        }
    };
    let answer = Answer { code: code.parse().expect("a code"), head: head.to_owned(), body };
    Exchange { method: method.to_owned(), target: target.to_owned(), headers, body: asked, answer }
}

fn read_shown(text: &str) -> Shown {
    match text {
        "" => Shown::Nothing,
        text if text.starts_with('|') => {
            let lines: Vec<&str> = text.lines().map(|line| line.get(2..).unwrap_or_default()).collect();
            Shown::Text(lines.join("\n"))
        }
        json => Shown::Json(serde_json::from_str(json).unwrap_or_else(|e| panic!("{e}: {json}"))),
    }
}
