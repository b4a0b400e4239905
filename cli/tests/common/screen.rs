//! What a terminal shows of what is written to it, as far as our programs write there: text, carriage return, new line, and
//! the sequences that clear a line, go up a row, or colour. A line that is wider than the window goes on in the next row, also
//! when the window has become narrower since, as most terminals have it.
//!
//! Not here: anything else a terminal can do, which is a fault.

/// A terminal of so many columns, from its first line on.
pub struct Screen {
    columns: usize,
    lines: Vec<Vec<char>>,
    /// Where the cursor is: the line, and in it the column, as if it were in one row.
    line: usize,
    column: usize,
    /// It stays in the last column of its row until something is written.
    is_at_edge: bool,
    /// A sequence that has not wholly come.
    pending: String,
    /// How often the line was cleared.
    pub cleared: usize,
}

impl Screen {
    pub fn new(columns: usize) -> Self {
        let lines = vec![Vec::new()];
        let pending = String::new();
        Self { columns, lines, line: 0, column: 0, is_at_edge: false, pending, cleared: 0 }
    }

    /// From now on it has so many columns.
    pub fn resize(&mut self, columns: usize) {
        self.columns = columns;
        self.is_at_edge = self.column > 0 && self.column.is_multiple_of(columns);
    }

    /// Something is written to it.
    pub fn write(&mut self, text: &str) {
        let text = std::mem::take(&mut self.pending) + text;
        let mut rest = text.chars();
        while let Some(next) = rest.next() {
            match next {
                '\r' => {
                    (self.column, self.is_at_edge) = (self.row() * self.columns, false);
                }
                '\n' => {
                    (self.line, self.column, self.is_at_edge) = (self.line + 1, 0, false);
                    self.lines.resize(self.lines.len().max(self.line + 1), Vec::new());
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
                            self.lines[self.line].truncate(self.column);
                        }
                        "[A" if self.row() > 0 => self.column -= self.columns,
                        "[A" => {
                            self.line -= 1;
                            let rows = self.lines[self.line].len().div_ceil(self.columns).max(1);
                            self.column = (rows - 1) * self.columns + self.column % self.columns;
                        }
                        colour if colour.starts_with('[') && colour.ends_with('m') => {}
                        other => panic!("{other:?} is not expected"),
                    }
                    rest = sequence[end + 1..].chars();
                }
                text => {
                    let line = &mut self.lines[self.line];
                    line.resize(line.len().max(self.column + 1), ' ');
                    line[self.column] = text;
                    self.column += 1;
                    self.is_at_edge = self.column.is_multiple_of(self.columns);
                }
            }
        }
    }

    /// The row of its line that the cursor is in.
    fn row(&self) -> usize {
        self.column / self.columns - usize::from(self.is_at_edge)
    }

    /// The line that the cursor is in.
    pub fn last(&self) -> String {
        self.lines[self.line].iter().collect()
    }

    /// All lines above it.
    pub fn above(&self) -> Vec<String> {
        let above = &self.lines[..self.line];
        above.iter().map(|line| line.iter().collect()).collect()
    }
}
