//! Problems with input files: what is wrong, where, and how to fix it.

use std::fmt;

/// The maximum number of problems that are printed for one input; further ones are only counted.
pub const MAX_PROBLEMS: usize = 20;

/// One problem at one place of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, by the name that was given.
    pub file: String,
    /// Number of the document in the file, from one; zero if the problem is about the whole file.
    pub document: usize,
    /// Line in the file, from one; zero if there is none.
    pub line: u64,
    /// Path of the field, such as `spec.template.spec.containers[0].image`; may be empty.
    pub field: String,
    /// What is wrong, in Kubernetes' own words where possible, and what to do.
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

/// All problems of an input, in the order of files and lines. When it is returned as an error, it is never empty.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Problems {
    /// The first [`MAX_PROBLEMS`].
    pub list: Vec<Problem>,
    /// The number of further problems.
    pub more: usize,
    /// Features of the rest of the input that are not implemented.
    pub warnings: Vec<String>,
}

impl Problems {
    /// Adds a problem, or only counts it if there are [`MAX_PROBLEMS`] already.
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

    /// Sorts the problems of each file by line; the order of the files does not change.
    pub fn sort(&mut self) {
        let mut files: Vec<String> = Vec::new();
        for p in &self.list {
            if !files.contains(&p.file) {
                files.push(p.file.clone());
            }
        }
        self.list.sort_by_key(|p| (files.iter().position(|f| *f == p.file), p.line));
    }

    /// A problem that is about a whole file.
    pub fn file(file: &str, message: impl Into<String>) -> Problem {
        Problem { file: file.to_owned(), document: 0, line: 0, field: String::new(), message: message.into() }
    }

    /// Whether there are no problems.
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
