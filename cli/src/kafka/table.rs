//! Tables of aligned columns, without colour: for people, and for `awk`.

/// Rows under a header.
pub(crate) struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(header: &[&'static str]) -> Self {
        Self { header: header.to_vec(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// As lines; columns of numbers stand to the right.
    pub(crate) fn text(&self) -> String {
        let cell = |row: &Vec<String>, at: usize| row.get(at).map_or(0, |cell| cell.chars().count());
        let mut text = String::new();
        let columns = 0..self.header.len();
        let layout: Vec<(usize, bool)> = columns
            .map(|at| {
                let widest = self.rows.iter().map(|row| cell(row, at)).max().unwrap_or(0);
                let is_number = |row: &Vec<String>| row.get(at).is_none_or(|cell| is_number(cell));
                (widest.max(self.header[at].len()), !self.rows.is_empty() && self.rows.iter().all(is_number))
            })
            .collect();
        let header: Vec<String> = self.header.iter().map(|name| (*name).to_owned()).collect();
        for row in std::iter::once(&header).chain(&self.rows) {
            let mut line = String::new();
            for (cell, (width, to_the_right)) in row.iter().zip(&layout) {
                match to_the_right {
                    true => line.push_str(&format!("{cell:>width$}  ")),
                    false => line.push_str(&format!("{cell:<width$}  ")),
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

fn is_number(cell: &str) -> bool {
    cell == "-" || cell.parse::<i64>().is_ok()
}

/// A value that may be missing.
pub(crate) fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// Numbers with commas between.
pub(crate) fn list<T: ToString>(values: &[T]) -> String {
    match values {
        [] => "-".to_owned(),
        values => values.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_have_no_spaces_at_their_end() {
        let mut table = Table::new(&["NAME", "LAG", "HOST"]);
        table.row(["a".into(), "5".into(), "x".into()]);
        table.row(["größer".into(), "-".into(), String::new()]);
        table.row(["b".into(), "12345".into(), "y".into()]);
        let expect = "NAME      LAG  HOST\na           5  x\ngrößer      -\nb       12345  y\n";
        assert_eq!(table.text(), expect);
    }
}
