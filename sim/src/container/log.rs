//! What a container has logged.

use std::collections::VecDeque;

use skeg_core::Wall;

/// Maximum bytes of lines that are kept of a container; older ones are forgotten, as when the kubelet rotates logs.
const KEPT: usize = 64 << 10;

/// One line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// When it was written.
    pub at: Wall,
    /// Whether it was written to standard error.
    pub stderr: bool,
    /// The text, without a newline.
    pub text: String,
}

/// The newest lines of a container.
#[derive(Clone, Debug, Default)]
pub struct Log {
    lines: VecDeque<Line>,
    bytes: usize,
}

impl Log {
    /// Appends a line.
    pub fn push(&mut self, line: Line) {
        self.bytes += line.text.len();
        self.lines.push_back(line);
        while self.bytes > KEPT
            && let Some(oldest) = self.lines.pop_front()
        {
            self.bytes -= oldest.text.len();
        }
    }

    /// The lines, the oldest first.
    pub fn lines(&self) -> impl DoubleEndedIterator<Item = &Line> {
        self.lines.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::{KEPT, Line, Log};
    use skeg_core::Wall;

    #[test]
    fn the_newest_lines_are_kept() {
        let mut log = Log::default();
        for n in 0..10 {
            log.push(Line { at: Wall(n), stderr: false, text: "x".repeat(KEPT / 4) });
        }
        assert_eq!(log.lines().map(|l| l.at.0).collect::<Vec<_>>(), [6, 7, 8, 9]);
    }
}
