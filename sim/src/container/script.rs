//! The language of the scripted shell: simple commands with quotes, variables and redirections, joined by `;`, `&&`,
//! `||` and `|`. Loops, conditions, functions and substitutions are refused by name.

/// A part of a word.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Piece {
    /// Text as it is.
    Text(String),
    /// The value of a variable.
    Variable(String),
}

/// A word, before its variables are replaced.
pub type Word = Vec<Piece>;

/// Where a redirection leads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Redirect {
    /// `< FILE`.
    In(Word),
    /// `> FILE`, `2>> FILE`: the number of the stream, whether to append, and the file.
    Out(u8, bool, Word),
    /// `2>&1`, `1>&2`: from, to.
    Join(u8, u8),
}

/// A simple command.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Command {
    /// `NAME=VALUE` before the first word.
    pub assignments: Vec<(String, Word)>,
    /// The command and its arguments.
    pub words: Vec<Word>,
    /// Its redirections.
    pub redirects: Vec<Redirect>,
}

/// When a pipeline runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// After the one before it, however that ended (`;`).
    Always,
    /// If the one before it succeeded (`&&`).
    Success,
    /// If the one before it failed (`||`).
    Failure,
}

/// Commands joined by `|`, and when they run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pipeline {
    /// When it runs.
    pub when: When,
    /// The commands; at least one.
    pub commands: Vec<Command>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Token {
    /// A word, and whether any of it was quoted.
    Word(Word, bool),
    Operator(&'static str),
    Redirect(u8, &'static str),
}

const OPERATORS: [&str; 12] = ["&&", "||", ";;", ">>", "<<", ">&", ";", "&", "|", "(", ")", "\n"];
const NOT_SPOKEN: [&str; 16] = [
    "if", "then", "else", "elif", "fi", "for", "while", "until", "do", "done", "case", "esac", "function", "{", "}",
    "!",
];

fn not_spoken(what: &str) -> String {
    format!("syntax error: {:?} is not understood by the simulated shell", what.replace('\n', "newline"))
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The name of a variable after `$`, and what follows it; `None` if the dollar stands for itself.
fn variable(after: &str) -> Result<Option<(String, &str)>, String> {
    if after.starts_with('(') {
        return Err(not_spoken("$("));
    }
    if let Some(braced) = after.strip_prefix('{') {
        let (name, rest) = braced.split_once('}').ok_or_else(|| "syntax error: missing '}'".to_owned())?;
        let plain = !name.is_empty() && (name.chars().all(is_name) || matches!(name, "?" | "$" | "#" | "@" | "*"));
        return if plain { Ok(Some((name.to_owned(), rest))) } else { Err(not_spoken(&format!("${{{name}}}"))) };
    }
    if let Some(c) = after.chars().next().filter(|c| matches!(c, '?' | '$' | '#' | '@' | '*') || c.is_ascii_digit()) {
        return Ok(Some((c.to_string(), &after[1..])));
    }
    let end = after.find(|c| !is_name(c)).unwrap_or(after.len());
    Ok((end > 0).then(|| (after[..end].to_owned(), &after[end..])))
}

/// Reads one word from the beginning of `rest`.
fn word<'a>(mut rest: &'a str, quoted: &mut bool) -> Result<(Word, &'a str), String> {
    let mut word = Word::new();
    let mut text = String::new();
    let mut double = false;
    while let Some(c) = rest.chars().next() {
        if !double && " \t\r\n;&|<>()".contains(c) {
            break;
        }
        rest = &rest[c.len_utf8()..];
        match c {
            '\'' if !double => {
                let (inside, after) = rest.split_once('\'').ok_or("syntax error: unterminated quoted string")?;
                (text, rest, *quoted) = (text + inside, after, true);
            }
            '"' => (double, *quoted) = (!double, true),
            '\\' => {
                let Some(next) = rest.chars().next() else { break };
                rest = &rest[next.len_utf8()..];
                if double && !"\"\\$`\n".contains(next) {
                    text.push('\\');
                }
                if next != '\n' {
                    text.push(next);
                }
                *quoted = true;
            }
            '`' => return Err(not_spoken("`")),
            '$' => match variable(rest)? {
                Some((name, after)) => {
                    if !text.is_empty() {
                        word.push(Piece::Text(std::mem::take(&mut text)));
                    }
                    word.push(Piece::Variable(name));
                    rest = after;
                }
                None => text.push('$'),
            },
            c => text.push(c),
        }
    }
    if double {
        return Err("syntax error: unterminated quoted string".to_owned());
    }
    if !text.is_empty() {
        word.push(Piece::Text(text));
    }
    Ok((word, rest))
}

fn tokens(script: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = script;
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\r']);
        if rest.is_empty() {
            return Ok(tokens);
        }
        if rest.starts_with('#') {
            rest = &rest[rest.find('\n').unwrap_or(rest.len())..];
            continue;
        }
        // `2>`, `2>>`, `2>&`.
        let (stream, after) = match rest.as_bytes() {
            [digit @ (b'0'..=b'2'), b'>' | b'<', ..] => (Some(digit - b'0'), &rest[1..]),
            _ => (None, rest),
        };
        if let Some(operator) = [">>", ">&", ">", "<<", "<"].into_iter().find(|o| after.starts_with(o)) {
            if operator == "<<" {
                return Err(not_spoken("<<"));
            }
            tokens.push(Token::Redirect(stream.unwrap_or(u8::from(operator != "<")), operator));
            rest = &after[operator.len()..];
            continue;
        }
        if let Some(operator) = OPERATORS.into_iter().find(|o| rest.starts_with(o)) {
            if matches!(operator, "&" | "(" | ")" | ";;") {
                return Err(not_spoken(operator));
            }
            tokens.push(Token::Operator(operator));
            rest = &rest[operator.len()..];
            continue;
        }
        let mut quoted = false;
        let (word, after) = word(rest, &mut quoted)?;
        tokens.push(Token::Word(word, quoted));
        rest = after;
    }
}

/// The name and value of an assignment.
fn assignment(word: &Word) -> Option<(String, Word)> {
    let Piece::Text(first) = word.first()? else { return None };
    let (name, value) = first.split_once('=')?;
    if name.is_empty() || !name.chars().all(is_name) || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let begin = (!value.is_empty()).then(|| Piece::Text(value.to_owned()));
    Some((name.to_owned(), begin.into_iter().chain(word[1..].iter().cloned()).collect()))
}

/// Parses a script.
pub fn parse(script: &str) -> Result<Vec<Pipeline>, String> {
    let mut pipelines: Vec<Pipeline> = Vec::new();
    let mut open: Vec<Command> = Vec::new();
    let mut command = Command::default();
    let mut when = When::Always;
    let mut tokens = tokens(script)?.into_iter();
    loop {
        let token = tokens.next();
        let empty = command == Command::default();
        match token {
            Some(Token::Word(word, quoted)) => {
                let first = command.words.is_empty();
                if let (true, false, [Piece::Text(text)]) = (first, quoted, word.as_slice())
                    && NOT_SPOKEN.contains(&text.as_str())
                {
                    return Err(not_spoken(text));
                }
                match assignment(&word).filter(|_| first) {
                    Some(assignment) => command.assignments.push(assignment),
                    None => command.words.push(word),
                }
            }
            Some(Token::Redirect(stream, operator)) => {
                let Some(Token::Word(target, _)) = tokens.next() else {
                    return Err("syntax error: a redirection leads nowhere".to_owned());
                };
                command.redirects.push(match (operator, target.as_slice()) {
                    ("<", _) => Redirect::In(target),
                    (">&", [Piece::Text(to)]) if to == "1" || to == "2" => {
                        Redirect::Join(stream, if to == "1" { 1 } else { 2 })
                    }
                    (">&", _) => return Err(not_spoken(">&")),
                    (operator, _) => Redirect::Out(stream, operator == ">>", target),
                });
            }
            Some(Token::Operator("\n")) if empty && open.is_empty() && when == When::Always => {}
            Some(Token::Operator("\n")) if empty => {}
            Some(Token::Operator(operator)) if empty => {
                return Err(format!("syntax error: unexpected {operator:?}"));
            }
            Some(Token::Operator("|")) => open.push(std::mem::take(&mut command)),
            end @ (Some(Token::Operator(_)) | None) => {
                if !empty {
                    open.push(std::mem::take(&mut command));
                    pipelines.push(Pipeline { when, commands: std::mem::take(&mut open) });
                } else if !open.is_empty() || when != When::Always {
                    return Err("syntax error: unexpected end of file".to_owned());
                }
                when = match end {
                    Some(Token::Operator("&&")) => When::Success,
                    Some(Token::Operator("||")) => When::Failure,
                    Some(_) => When::Always,
                    None => return Ok(pipelines),
                };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Piece, Redirect, When, parse};

    /// Found by fuzzing: what Unicode calls white space and a shell does not was read again and again.
    #[test]
    fn only_blanks_and_line_ends_part_words() {
        for odd in ["\u{b}", "\u{c}", "\u{85}", "\u{2003}"] {
            let words = super::tokens(&format!("echo{odd}x {odd}")).expect("it is read");
            assert_eq!(words.len(), 2, "{odd:?}");
        }
    }

    #[test]
    fn scripts_are_taken_apart() {
        let script = "a=1 echo 'x y' \"$HOME/${b}\" > out 2>&1 && cat < in | wc -l || true; exit\n# nothing\n\nls";
        let pipelines = parse(script).unwrap();
        let text = |t: &str| Piece::Text(t.to_owned());
        let when: Vec<(When, usize)> = pipelines.iter().map(|p| (p.when, p.commands.len())).collect();
        let want = [(When::Always, 1), (When::Success, 2), (When::Failure, 1), (When::Always, 1), (When::Always, 1)];
        assert_eq!(when, want);
        let first = &pipelines[0].commands[0];
        assert_eq!(first.assignments, [("a".to_owned(), vec![text("1")])]);
        let home = vec![Piece::Variable("HOME".to_owned()), text("/"), Piece::Variable("b".to_owned())];
        assert_eq!(first.words, [vec![text("echo")], vec![text("x y")], home]);
        assert_eq!(first.redirects, [Redirect::Out(1, false, vec![text("out")]), Redirect::Join(2, 1)]);
        assert_eq!(parse("echo \"\" ''").unwrap()[0].commands[0].words, [vec![text("echo")], vec![], vec![]]);
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let check = |script: &str, part: &str| {
            let why = parse(script).unwrap_err();
            assert!(why.contains(part), "{script}: {why}");
        };
        check("for i in 1 2; do echo; done", "\"for\" is not understood");
        check("echo $(date)", "\"$(\" is not understood");
        check("echo `date`", "\"`\" is not understood");
        check("echo ${a:-b}", "${a:-b}");
        check("sleep 1 &", "\"&\" is not understood");
        check("cat <<EOF", "\"<<\" is not understood");
        check("echo 'x", "unterminated");
        check("echo \"x", "unterminated");
        check("| cat", "unexpected \"|\"");
        check("echo &&", "unexpected end of file");
        check("echo >", "leads nowhere");
    }
}
