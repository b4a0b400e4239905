//! What a terminal shows of what is written to it, as far as our programs write there: text, carriage return, new line, and
//! the sequences that clear a line or colour it.
//!
//! Not here: anything else a terminal can do, which is a fault.

/// A terminal of so many columns, from its first line on.
pub struct Screen {
    columns: usize,
    lines: Vec<Vec<char>>,
    column: usize,
    /// A sequence that has not wholly come.
    pending: String,
    /// The widest that anything was written.
    pub widest: usize,
    /// How often the line was cleared.
    pub cleared: usize,
}

impl Screen {
    pub fn new(columns: usize) -> Self {
        let lines = vec![Vec::new()];
        Self { columns, lines, column: 0, pending: String::new(), widest: 0, cleared: 0 }
    }

    /// From now on it has so many columns.
    pub fn resize(&mut self, columns: usize) {
        (self.columns, self.widest) = (columns, 0);
    }

    /// Something is written to it.
    pub fn write(&mut self, text: &str) {
        let text = std::mem::take(&mut self.pending) + text;
        let mut rest = text.chars();
        while let Some(next) = rest.next() {
            match next {
                '\r' => self.column = 0,
                '\n' => {
                    self.lines.push(Vec::new());
                    self.column = 0;
                }
                '\x1b' => {
                    let sequence = rest.as_str();
                    let Some(end) = sequence.find(|c: char| c.is_ascii_alphabetic()) else {
                        self.pending = format!("\x1b{sequence}");
                        return;
                    };
                    match &sequence[..=end] {
                        "[K" => {
                            self.cleared += 1;
                            let column = self.column;
                            self.lines.last_mut().unwrap().truncate(column);
                        }
                        colour if colour.starts_with('[') && colour.ends_with('m') => {}
                        other => panic!("{other:?} is not expected"),
                    }
                    rest = sequence[end + 1..].chars();
                }
                text => {
                    let line = self.lines.last_mut().unwrap();
                    line.resize(line.len().max(self.column + 1), ' ');
                    line[self.column] = text;
                    self.column += 1;
                    self.widest = self.widest.max(self.column);
                }
            }
        }
    }

    /// The line that the cursor is in.
    pub fn last(&self) -> String {
        self.lines.last().unwrap().iter().collect()
    }

    /// All lines above it.
    pub fn above(&self) -> Vec<String> {
        let above = &self.lines[..self.lines.len() - 1];
        above.iter().map(|line| line.iter().collect()).collect()
    }
}
