//! A plain table: the first columns to the left, the figures to the right.

use std::fmt;

/// A table of text.
#[derive(Clone, Debug)]
pub struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
    left: usize,
}

impl Table {
    /// A table whose first `left` columns are words.
    #[must_use]
    pub fn new(left: usize, header: &[&str]) -> Self {
        Self {
            header: header.iter().map(|&title| title.to_owned()).collect(),
            rows: Vec::new(),
            left,
        }
    }

    /// Adds a row. A row may have fewer cells than the header: the last one then runs on.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    fn widths(&self) -> Vec<usize> {
        let mut widths: Vec<usize> = self.header.iter().map(|it| it.chars().count()).collect();
        for row in &self.rows {
            let short = row.len() < self.header.len();
            let aligned = row.len() - usize::from(short);
            for (width, cell) in widths.iter_mut().zip(&row[..aligned]) {
                *width = (*width).max(cell.chars().count());
            }
        }
        widths
    }

    fn line(&self, f: &mut fmt::Formatter<'_>, cells: &[String], widths: &[usize]) -> fmt::Result {
        let mut line = String::new();
        for (column, (cell, &width)) in cells.iter().zip(widths).enumerate() {
            if column > 0 {
                line.push_str("  ");
            }
            line.push_str(&match column < self.left {
                true => format!("{cell:<width$}"),
                false if column + 1 == cells.len() && cells.len() < widths.len() => cell.clone(),
                false => format!("{cell:>width$}"),
            });
        }
        writeln!(f, "{}", line.trim_end())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        self.line(f, &self.header, &widths)?;
        for row in &self.rows {
            self.line(f, row, &widths)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_left_figures_right() {
        let mut table = Table::new(1, &["who", "IOPS", "p50"]);
        table.row(vec!["ringside".into(), "500000".into(), "2.1".into()]);
        table.row(vec!["qsd".into(), "9".into(), "12.5".into()]);
        let wanted = "who         IOPS   p50\n\
                      ringside  500000   2.1\n\
                      qsd            9  12.5\n";
        assert_eq!(table.to_string(), wanted);
    }

    #[test]
    fn a_remark_runs_over_the_columns() {
        let mut table = Table::new(1, &["who", "IOPS", "p50"]);
        table.row(vec!["qsd".into(), "skipped: there is none here".into()]);
        assert_eq!(
            table.to_string(),
            "who  IOPS  p50\nqsd  skipped: there is none here\n"
        );
    }
}
