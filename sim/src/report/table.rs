//! Aligned columns of text.

/// A table with padded columns; columns that contain only numbers are right-aligned.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Creates a table with a row of headings.
    pub fn new(headings: &[&str]) -> Table {
        Table { rows: vec![headings.iter().map(|h| (*h).to_owned()).collect()] }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Renders the table as text, indented by two, with the last column unpadded.
    pub fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let cell = |row: &'_ [String], c: usize| row.get(c).cloned().unwrap_or_default();
        let width = |c| self.rows.iter().map(|r| cell(r, c).chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let right: Vec<bool> = (0..columns).map(|c| self.rows.len() > 1 && self.is_numeric(c)).collect();
        let mut out = String::new();
        for row in &self.rows {
            let mut line = String::from(" ");
            for c in 0..columns {
                let text = cell(row, c);
                let pad = " ".repeat(widths[c] - text.chars().count());
                line += &if right[c] { format!(" {pad}{text}") } else { format!(" {text}{pad}") };
                line.push(' ');
            }
            out += line.trim_end();
            out.push('\n');
        }
        out
    }

    fn is_numeric(&self, column: usize) -> bool {
        let numeric = |s: &String| !s.is_empty() && s.chars().all(|c| c.is_ascii_digit() || ".,%/-".contains(c));
        self.rows[1..].iter().all(|r| r.get(column).is_some_and(numeric))
    }
}
