//! Parses YAML text into trees, in bounded memory. A file is split into documents as in Kubernetes' YAML reader, and
//! each document is parsed on its own.

use serde_saphyr::{DuplicateKeyPolicy, Error};

use super::problem::{Problem, Problems};
use super::tree::Tree;

/// Maximum size of a file.
pub const MAX_FILE_BYTES: u64 = 64 << 20;
/// Maximum nesting of maps and lists.
pub const MAX_DEPTH: usize = 100;
/// Maximum number of values in one file, including those that aliases add.
const MAX_VALUES: usize = 4_000_000;
/// Maximum number of values that aliases may add to one document.
const MAX_REPLAYED: usize = 100_000;
/// Maximum length of a document's text after its aliases are expanded.
const MAX_TEXT: usize = MAX_FILE_BYTES as usize;
/// Stack size of the parser, which recurses up to [`MAX_DEPTH`] deep with large stack frames.
const PARSER_STACK: usize = 16 << 20;

/// A document of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// The file, by the name that was given.
    pub file: String,
    /// Number of the document, from one; documents without content are not counted.
    pub number: usize,
    /// The number of lines in the file before the text from which the tree was parsed.
    pub lines_before: u64,
    /// The content.
    pub root: Tree,
}

impl Document {
    /// Creates a problem with a field of this document.
    pub fn problem(&self, field: &str, message: impl Into<String>) -> Problem {
        self.problem_at(self.root.locate(field), field, message)
    }

    /// Creates a problem at a line of the tree.
    pub fn problem_at(&self, line: u32, field: &str, message: impl Into<String>) -> Problem {
        Problem {
            file: self.file.clone(),
            document: self.number,
            line: self.lines_before + u64::from(line),
            field: field.to_owned(),
            message: message.into(),
        }
    }
}

/// Parses a file with any number of YAML (or JSON) documents. A problem in one document does not stop the others from
/// being parsed.
pub fn parse(file: &str, bytes: &[u8], problems: &mut Problems) -> Vec<Document> {
    // A separate thread, only for the size of its stack: the allowed nesting must not depend on the caller's stack.
    std::thread::scope(|scope| {
        let parser = std::thread::Builder::new().stack_size(PARSER_STACK);
        let parser = parser.spawn_scoped(scope, || parse_here(file, bytes, problems));
        parser.expect("a thread can be started").join().expect("the parser does not panic")
    })
}

fn parse_here(file: &str, bytes: &[u8], problems: &mut Problems) -> Vec<Document> {
    if bytes.len() as u64 > MAX_FILE_BYTES {
        problems.push(Problems::file(file, too_large_file()));
        return Vec::new();
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
        Err(e) => {
            let line = 1 + bytes[..e.valid_up_to()].iter().filter(|b| **b == b'\n').count() as u64;
            let message = "the text is not UTF-8; save the file as UTF-8".to_owned();
            problems.push(Problem { file: file.to_owned(), document: 0, line, field: String::new(), message });
            return Vec::new();
        }
    };
    let mut documents = Vec::new();
    let mut number = 0;
    for (lines_before, chunk) in split(text) {
        number += 1;
        match parse_chunk(chunk) {
            Ok(trees) => {
                if trees.is_empty() {
                    number -= 1;
                }
                for (i, root) in trees.into_iter().enumerate() {
                    number += usize::from(i > 0);
                    documents.push(Document { file: file.to_owned(), number, lines_before, root });
                }
            }
            Err((line, message)) => {
                let line = if line == 0 { 0 } else { lines_before + line };
                problems.push(Problem { file: file.to_owned(), document: number, line, field: String::new(), message });
            }
        }
    }
    documents
}

/// The message for a file that is too large.
pub fn too_large_file() -> String {
    format!("the file is larger than {} MiB; split it into several files", MAX_FILE_BYTES >> 20)
}

/// Splits a text at its `---` and `...` lines, which YAML does not allow anywhere else at the start of a line. Pieces
/// without content are dropped; a piece that contains only directives is joined with the next one.
fn split(text: &str) -> Vec<(u64, &str)> {
    let mut pieces = Vec::new();
    let (mut start, mut start_line, mut content, mut directive) = (0, 0u64, false, false);
    let (mut offset, mut line_number) = (0, 0u64);
    for line in text.split_inclusive('\n') {
        let marker =
            line.strip_prefix("---").filter(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\n', '\r']));
        if let Some(rest) = marker {
            if content {
                pieces.push((start_line, &text[start..offset]));
            }
            if content || !directive {
                (start, start_line) = (offset, line_number);
            }
            content = has_content(rest);
            directive = false;
        } else if line.starts_with('%') && !content {
            directive = true;
        } else if line.trim_end() == "..." {
            if content {
                pieces.push((start_line, &text[start..offset]));
            }
            (start, start_line) = (offset + line.len(), line_number + 1);
            (content, directive) = (false, false);
        } else if has_content(line) {
            content = true;
        }
        offset += line.len();
        line_number += 1;
    }
    if content {
        pieces.push((start_line, &text[start..]));
    }
    pieces
}

fn has_content(line: &str) -> bool {
    let line = line.trim();
    !line.is_empty() && !line.starts_with('#')
}

fn parse_chunk(text: &str) -> Result<Vec<Tree>, (u64, String)> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_nodes: MAX_VALUES,
            max_total_scalar_bytes: MAX_TEXT,
            max_events: 3 * MAX_VALUES,
            max_documents: 10_000,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_REPLAYED, },
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        // Kubernetes' YAML reader implements YAML 1.1, where `defaultMode: 0644` is 420.
        legacy_octal_numbers: true,
        reject_unsupported_tags: true,
        with_snippet: false,
        emit_comments: false,
    };
    serde_saphyr::from_multiple_with_options::<Tree>(text, options)
        .map_err(|e| (e.location().map_or(0, |l| l.line()), message_of(&e)))
}

/// The parser's message without its position, with advice if one of our own limits was exceeded.
fn message_of(error: &Error) -> String {
    use serde_saphyr::budget::BudgetBreach;
    let aliases = "write the repeated parts out instead of using aliases";
    match error.without_snippet() {
        Error::Budget { breach: BudgetBreach::Depth { .. }, .. } => too_deep(),
        Error::Budget { breach: BudgetBreach::Nodes { .. } | BudgetBreach::Events { .. }, .. } => {
            format!("the document holds more than {MAX_VALUES} values; split it into several documents and files")
        }
        Error::Budget { breach: BudgetBreach::ScalarBytes { .. }, .. } => {
            format!("the document is larger than {} MiB once its aliases are expanded; {aliases}", MAX_TEXT >> 20)
        }
        Error::Budget { breach: BudgetBreach::AliasAnchorRatio { .. } | BudgetBreach::Aliases { .. }, .. }
        | Error::AliasReplayCounterOverflow { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => {
            format!("aliases expand to more than {MAX_REPLAYED} values; {aliases}")
        }
        Error::AliasError { error, .. } => message_of(error),
        other => {
            let text = other.to_string();
            if text.contains("recursion limit") || text.contains("nesting") {
                return too_deep();
            }
            let text = text.split("\n").next().unwrap_or_default();
            let text = text.rfind(" at line ").map_or(text, |i| &text[..i]);
            let text = text.strip_prefix("error: ").unwrap_or(text);
            format!("error converting YAML to JSON: yaml: {text}; correct the YAML")
        }
    }
}

fn too_deep() -> String {
    format!("maps and lists are nested deeper than {MAX_DEPTH} levels; no Kubernetes object is")
}

#[cfg(test)]
mod tests {
    use super::{Problems, parse, split};
    use serde_json::json;

    fn values(text: &str) -> Vec<serde_json::Value> {
        let mut problems = Problems::default();
        let docs = parse("f.yaml", text.as_bytes(), &mut problems);
        assert!(problems.is_empty(), "{problems}");
        docs.iter().map(|d| d.root.to_value()).collect()
    }

    fn error(text: &str) -> String {
        let mut problems = Problems::default();
        parse("f.yaml", text.as_bytes(), &mut problems);
        problems.to_string()
    }

    #[test]
    fn documents_are_told_apart() {
        let text =
            "# a licence\n---\n# nothing\n---\na: 1\n---\n\n--- # note\nb: |\n  ---\n  x\n...\n%YAML 1.2\n---\nc: 3\n";
        assert_eq!(values(text), [json!({"a": 1}), json!({"b": "---\nx\n"}), json!({"c": 3})]);
        let lines: Vec<u64> = split(text).iter().map(|(l, _)| *l).collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(values("{\"a\": [1, 2.5, null, true]}"), [json!({"a": [1, 2.5, null, true]})]);
        assert!(values("").is_empty() && values("---\n---\n# x\n").is_empty());
    }

    #[test]
    fn scalars_are_read_as_kubernetes_reads_them() {
        let got = values("a: 0644\nb: yes\nc: '1'\nd: 1e3\n1: x\ntrue: w\ne: ~\nf: off\ng: 0x10\n");
        let want = json!({"a": 420, "b": true, "c": "1", "d": 1000.0, "1": "x", "true": "w", "e": null, "f": false,
            "g": 16});
        assert_eq!(got, [want]);
    }

    #[test]
    fn anchors_and_merges_work_in_bounds() {
        let text = "base: &b {x: 1, z: 2}\nuse:\n  <<: *b\n  z: 3\nagain: *b\n";
        assert_eq!(
            values(text),
            [json!({"base": {"x": 1, "z": 2}, "use": {"x": 1, "z": 3}, "again": {"x": 1, "z": 2}})]
        );
    }

    #[test]
    fn lines_are_those_of_the_file() {
        let mut problems = Problems::default();
        let docs = parse("f.yaml", b"---\na: 1\n---\nspec:\n  c:\n  - name: x\n    p: 1\n", &mut problems);
        let p = docs[1].problem("spec.c[0].p", "bad");
        assert_eq!(p.to_string(), "error: f.yaml, document 2, line 7: spec.c[0].p: bad");
        assert_eq!(docs[1].problem("spec.c[0].absent.more", "bad").line, 6);
    }

    #[test]
    fn what_cannot_be_read_is_refused_clearly() {
        assert_eq!(
            error("a: 1\n---\nb: [1\n---\nc: {\n").lines().count(),
            2,
            "each document reports: {}",
            error("a: 1\n---\nb: [1\n---\nc: {\n")
        );
        assert!(error("a: &x [*x]\n").contains("error: f.yaml, document 1"), "{}", error("a: &x [*x]\n"));
        let deep = "[".repeat(5000) + &"]".repeat(5000);
        assert!(error(&deep).contains("nested deeper than 100 levels"), "{}", error(&deep));
        let deep: String = (0..300).map(|i| format!("{}a:\n", " ".repeat(i))).collect();
        assert!(error(&deep).contains("nested deeper than 100 levels"), "{}", error(&deep));
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for i in 1..10 {
            let refs = vec![format!("*a{}", i - 1); 10].join(", ");
            bomb += &format!("a{i}: &a{i} [{refs}]\n");
        }
        assert!(error(&bomb).contains("instead of using aliases"), "{}", error(&bomb));
        let mut long = format!("a: &a \"{}\\n\"\nl:\n", "y".repeat(1 << 20));
        for i in 0..500 {
            long += &format!("- &b{i} {i}\n- *a\n");
        }
        assert!(error(&long).contains("instead of using aliases"), "{}", error(&long));
        assert!(error("a: !ruby/object:X {}\n").contains("line 1"));
        let mut problems = Problems::default();
        parse("f.yaml", b"a: 1\nb: \xff\n", &mut problems);
        assert_eq!(problems.to_string(), "error: f.yaml, line 2: the text is not UTF-8; save the file as UTF-8");
    }

    #[test]
    fn keys_that_occur_twice_are_found() {
        let mut problems = Problems::default();
        let docs = parse("f.yaml", b"a:\n- b: 1\n  c: 2\n  b: 3\n", &mut problems);
        assert_eq!(docs[0].root.duplicates(), [("a[0].b".to_owned(), 4, 2)]);
    }
}
