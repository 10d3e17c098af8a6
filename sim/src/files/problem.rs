//! What is wrong with a file: what, where, and what to do about it.

use std::fmt;

/// Problems of one input that are printed; more are only counted.
pub const MAX_PROBLEMS: usize = 20;

/// One thing wrong with one place of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, as it was named.
    pub file: String,
    /// Number of the document in it, from one; zero where the whole file is meant.
    pub document: usize,
    /// Line in the file, from one; zero where there is none.
    pub line: u64,
    /// Path of the field: `spec.template.spec.containers[0].image`; may be empty.
    pub field: String,
    /// What is wrong, in Kubernetes' words where it has them, and what to do.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.file)?;
        if self.document > 0 {
            write!(f, ", document {}", self.document)?;
        }
        if self.line > 0 {
            write!(f, ", line {}", self.line)?;
        }
        if !self.field.is_empty() {
            write!(f, ": {}", self.field)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Everything wrong with an input, in the order of its files and lines. Never empty when it is an error.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Problems {
    /// The first [`MAX_PROBLEMS`].
    pub list: Vec<Problem>,
    /// How many more there are.
    pub more: usize,
    /// What would not be carried out of the rest.
    pub warnings: Vec<String>,
}

impl Problems {
    /// Notes a problem, or counts it if there are many already.
    pub fn push(&mut self, problem: Problem) {
        if self.list.contains(&problem) {
            return;
        }
        if self.list.len() < MAX_PROBLEMS {
            self.list.push(problem);
        } else {
            self.more += 1;
        }
    }

    /// Puts the problems of each file in the order of its lines; files stay as they are.
    pub fn sort(&mut self) {
        let mut files: Vec<String> = Vec::new();
        for p in &self.list {
            if !files.contains(&p.file) {
                files.push(p.file.clone());
            }
        }
        self.list.sort_by_key(|p| (files.iter().position(|f| *f == p.file), p.line));
    }

    /// A problem of a whole file.
    pub fn file(file: &str, message: impl Into<String>) -> Problem {
        Problem { file: file.to_owned(), document: 0, line: 0, field: String::new(), message: message.into() }
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.list.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        if self.more > 0 {
            write!(f, "\nerror: and {} more; correct these first", self.more)?;
        }
        self.warnings.iter().try_for_each(|warning| write!(f, "\nwarning: {warning}"))?;
        Ok(())
    }
}

impl std::error::Error for Problems {}
