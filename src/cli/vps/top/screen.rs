//! The screen: a line about the host, the table, a line about the keys.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Row as TableRow, Table, TableState};

use super::rows::{Column, Row, sort};
use crate::vps::record::size;
use crate::vps::record::view::VpsStatus;

/// What is on the screen. Nothing but words and attributes: it is read without colours.
pub(super) struct View {
    rows: Vec<Row>,
    by: Column,
    reversed: bool,
    table: TableState,
}

const HELP: &str = " n c m p r w i o  sort (again: the other way)   ↑ ↓  move   q  leave";

impl View {
    pub(super) fn new(by: Column) -> Self {
        Self {
            rows: Vec::new(),
            by,
            reversed: false,
            table: TableState::default().with_selected(0),
        }
    }

    /// Shows other rows. The mark stays at its VPS, wherever that goes.
    pub(super) fn take(&mut self, rows: Vec<Row>) {
        let marked = self.marked().map(|row| row.name.clone());
        self.rows = rows;
        sort(&mut self.rows, self.by, self.reversed);
        let place = self
            .rows
            .iter()
            .position(|row| Some(&row.name) == marked.as_ref());
        self.table.select(Some(place.unwrap_or(0)));
    }

    pub(super) fn sort_by(&mut self, column: Column) {
        self.reversed = column == self.by && !self.reversed;
        self.by = column;
        sort(&mut self.rows, self.by, self.reversed);
        self.table.select(Some(0));
    }

    /// Moves the mark.
    pub(super) fn step(&mut self, by: isize) {
        let last = self.rows.len().saturating_sub(1);
        let at = self.table.selected().unwrap_or(0);
        self.table.select(Some(at.saturating_add_signed(by).min(last)));
    }

    fn marked(&self) -> Option<&Row> {
        self.rows.get(self.table.selected()?)
    }

    pub(super) fn draw(&mut self, frame: &mut Frame<'_>) {
        let [head, body, foot] =
            Layout::vertical([Constraint::Length(1), Constraint::Min(2), Constraint::Length(1)])
                .areas(frame.area());
        frame.render_widget(Line::from(self.summary()), head);
        let widths = [
            Constraint::Fill(2),
            Constraint::Length(8),
            Constraint::Length(7),
            Constraint::Length(13),
            Constraint::Length(11),
            Constraint::Length(8),
            Constraint::Length(9),
            Constraint::Length(8),
            Constraint::Length(8),
        ];
        let table = Table::new(self.rows.iter().map(line), widths)
            .header(self.heading())
            .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
        frame.render_stateful_widget(table, body, &mut self.table);
        frame.render_widget(Line::from(HELP).style(Modifier::DIM), foot);
    }

    fn summary(&self) -> String {
        let running = self.rows.iter().filter(|row| row.status == VpsStatus::Running);
        let cpu: f64 = self.rows.iter().map(|row| row.cpu).sum();
        let memory: u64 = self.rows.iter().map(|row| row.memory).sum();
        format!(
            " condo: {} VPSs, {} running   cpu {cpu:.0}%   memory {}",
            self.rows.len(),
            running.count(),
            size::display(memory)
        )
    }

    /// The headings: the sorted one is marked, the letter that sorts is underlined.
    fn heading(&self) -> TableRow<'static> {
        let mut cells = Vec::new();
        for (column, text) in Column::ALL {
            let (letter, rest) = text.split_at(1);
            let mut spans = vec![Span::styled(letter, Modifier::UNDERLINED), Span::raw(rest)];
            if column == self.by {
                spans.push(Span::raw(if self.reversed { "↑" } else { "↓" }));
            }
            cells.push(Cell::from(Line::from(spans)));
            if column == Column::Name {
                cells.push(Cell::from("STATUS"));
            }
        }
        TableRow::new(cells).style(Modifier::BOLD)
    }
}

fn line(row: &Row) -> TableRow<'static> {
    let mut cells = vec![row.name.clone(), row.status.as_str().to_owned()];
    if row.status == VpsStatus::Stopped {
        return TableRow::new(cells).style(Modifier::DIM);
    }
    // `!`: its share of the processors is used up.
    let waits = if row.throttled >= 1.0 { "!" } else { "" };
    cells.extend([
        format!("{:.1}%{waits}", row.cpu),
        of(&size::display(row.memory), row.memory_limit.map(size::display)),
        of(
            &row.pids.to_string(),
            row.pids_limit.map(|limit| limit.to_string()),
        ),
        size::display(row.read),
        size::display(row.written),
        size::display(row.incoming),
        size::display(row.outgoing),
    ]);
    TableRow::new(cells)
}

/// What is used of what there is.
fn of(used: &str, limit: Option<String>) -> String {
    limit.map_or_else(|| used.to_owned(), |limit| format!("{used}/{limit}"))
}

#[cfg(test)]
mod tests {
    use super::super::rows::{self, tests::vps};
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn drawn(view: &mut View) -> String {
        let mut terminal = Terminal::new(TestBackend::new(100, 8)).unwrap();
        terminal.draw(|frame| view.draw(frame)).unwrap();
        terminal.backend().to_string()
    }

    fn view() -> View {
        let mut view = View::new(Column::Cpu);
        let before = [vps("web", 0, 0), vps("db", 0, 0)];
        let now = [vps("web", 500_000, 3 << 20), vps("db", 100_000, 5 << 20)];
        view.take(rows::of(&before, &now, 1.0));
        view
    }

    #[test]
    fn the_table_says_what_is_used_and_by_whom_most() {
        let text = drawn(&mut view());
        assert!(text.contains("2 VPSs, 2 running   cpu 60%   memory 8M"), "{text}");
        assert!(
            text.contains("CPU↓") && text.contains("50.0%") && text.contains("3M/64M"),
            "{text}"
        );
        assert!(text.find("web").unwrap() < text.find("db").unwrap(), "{text}");
        assert!(text.contains("q  leave"), "{text}");
    }

    #[test]
    fn the_mark_stays_at_its_vps_while_rows_move() {
        let mut view = view();
        view.step(1);
        assert_eq!(view.marked().unwrap().name, "db");
        let (before, now) = (
            [vps("web", 0, 0), vps("db", 0, 0)],
            [vps("web", 1, 0), vps("db", 900, 0)],
        );
        view.take(rows::of(&before, &now, 1.0));
        assert_eq!(
            (view.rows[0].name.as_str(), view.marked().unwrap().name.as_str()),
            ("db", "db")
        );
        view.step(isize::MAX);
        assert_eq!(view.marked().unwrap().name, "web");
        view.step(isize::MIN);
        assert_eq!(view.marked().unwrap().name, "db");
    }

    #[test]
    fn a_letter_again_turns_the_order_round() {
        let mut view = view();
        view.sort_by(Column::Memory);
        assert_eq!(view.rows[0].name, "db");
        view.sort_by(Column::Memory);
        assert_eq!(view.rows[0].name, "web");
        assert!(drawn(&mut view).contains("MEMORY↑"));
        // No VPS at all is no reason to fail.
        view.take(Vec::new());
        view.step(1);
        assert!(drawn(&mut view).contains("0 VPSs"));
    }
}
