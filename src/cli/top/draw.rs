//! The screen of `redweir top`, whatever its size.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, Row, Sparkline, Table, Wrap};

use super::history::History;
use super::overview::{Latency, Overview};
use crate::cli::output::may_colour;
use crate::cli::status::{NodeBody, header, row};
use crate::shard::doctor::shown;

/// Below so many columns what stands side by side stands one below the other.
const NARROW: u16 = 100;

pub(super) fn screen(
    frame: &mut Frame<'_>,
    admin: &str,
    overview: &Overview,
    history: &History,
    problem: Option<&str>,
) {
    let nodes = overview.view.all().len() as u16;
    let rows = [
        Constraint::Length(2),
        Constraint::Length(nodes.min(12) + 3),
        Constraint::Min(5),
        Constraint::Length((findings(overview).len() as u16 + 2).clamp(3, 12)),
        Constraint::Length(1),
    ];
    let [head, table, middle, found, foot] = Layout::vertical(rows).areas(frame.area());
    frame.render_widget(Paragraph::new(vec![title(admin, overview), state(overview, problem)]), head);
    frame.render_widget(nodes_table(overview, table.width), table);
    reads(frame, middle, overview, history);
    let lines = Paragraph::new(findings(overview)).wrap(Wrap { trim: false });
    frame.render_widget(lines.block(Block::bordered().title(" doctor ")), found);
    frame.render_widget(Line::from("q: quit   redweir doctor, redweir explain: more").style(dim()), foot);
}

fn title(admin: &str, overview: &Overview) -> Line<'static> {
    let memory =
        overview.memory_bytes.map_or_else(String::new, |bytes| format!("   {:.0} MiB", bytes / 1_048_576.0));
    let hours = overview.uptime_s / 3600.0;
    let up = match overview.uptime_s {
        seconds if seconds < 120.0 => format!("{seconds:.0} s"),
        seconds if seconds < 7200.0 => format!("{:.0} min", seconds / 60.0),
        _ if hours < 48.0 => format!("{hours:.0} h"),
        _ => format!("{:.0} days", hours / 24.0),
    };
    let rest = format!(
        " {} at {admin}   up {up}   {} clients{memory}   primary changed {} times, {} writes lost",
        shown(&overview.version),
        overview.clients,
        overview.primary_changes,
        overview.lost_writes
    );
    Line::from(vec![Span::styled("redweir", Style::new().add_modifier(Modifier::BOLD)), Span::raw(rest)])
}

/// In words and in a colour: whether reads and writes are served.
fn state(overview: &Overview, problem: Option<&str>) -> Line<'static> {
    if let Some(problem) = problem {
        return Line::from(format!("NO ANSWER, what is shown is old: {}", shown(problem)))
            .style(paint(Color::Red));
    }
    let ready = &overview.ready;
    // The first line is one word of that.
    let line = |name: &str| {
        let of = ready.text.lines().find(|line| line.starts_with(name));
        of.map_or_else(String::new, shown)
    };
    let drains = if ready.draining { "DRAINS   " } else { "" };
    let text = format!("{drains}{}   {}   {}", line("reads:"), line("writes:"), line("primary:"));
    let colour = match (ready.reads, ready.writes) {
        (true, true) if !ready.draining => Color::Green,
        (true, _) => Color::Yellow,
        _ => Color::Red,
    };
    Line::from(text).style(paint(colour))
}

fn nodes_table(overview: &Overview, width: u16) -> Table<'static> {
    let (header, nodes) = (header(&overview.view), overview.view.all());
    // The number of the shard stands before what there is without a cluster.
    let more = header.len().saturating_sub(9);
    let shown_here: &[usize] =
        if width >= NARROW { &[0, 1, 2, 3, 4, 5, 6, 7, 8] } else { &[0, 1, 3, 5, 6, 8] };
    let shown_here: Vec<usize> = (0..more).chain(shown_here.iter().map(|column| column + more)).collect();
    let pick =
        |all: &[String]| shown_here.iter().filter_map(|column| all.get(*column).cloned()).collect::<Vec<_>>();
    let cells = |(shard, node, feeds): &(Option<usize>, &NodeBody, bool)| {
        let mut cells = pick(&row(*shard, node));
        cells.push(if *feeds { "stream".to_owned() } else { String::new() });
        let good = node.answers && node.in_service;
        Row::new(cells).style(if good { Style::new() } else { paint(Color::Yellow) })
    };
    let rows: Vec<Row<'static>> = nodes.iter().map(cells).collect();
    let widths: Vec<u16> = std::iter::repeat_n(5, more).chain([15, 8, 7, 7, 14, 12, 9, 9, 10]).collect();
    let widths = shown_here.iter().filter_map(|column| widths.get(*column).copied());
    let widths = widths.map(Constraint::Min).chain([Constraint::Length(6)]);
    let header = Row::new(pick(&header));
    Table::new(rows, widths)
        .header(header.style(Style::new().add_modifier(Modifier::BOLD)))
        .block(Block::bordered().title(" servers "))
}

/// Where reads go, over time, and why.
fn reads(frame: &mut Frame<'_>, area: Rect, overview: &Overview, history: &History) {
    let wide = area.width >= NARROW;
    let halves = [Constraint::Percentage(40), Constraint::Percentage(60)];
    let [left, right] =
        if wide { Layout::horizontal(halves).areas(area) } else { Layout::vertical(halves).areas(area) };
    let share = history.share().map_or_else(|| "no reads".to_owned(), |share| format!("{share:.1} %"));
    let block = Block::bordered().title(format!(" reads at replicas: {share} "));
    let inside = block.inner(left);
    let skipped = history.shares().len().saturating_sub(inside.width as usize);
    let bars: Vec<u64> =
        history.shares().skip(skipped).map(|share| share.unwrap_or(0.0).round() as u64).collect();
    frame
        .render_widget(Sparkline::default().data(bars).max(100).style(paint(Color::Cyan)).block(block), left);
    let mut lines: Vec<Line<'static>> = overview.latency.iter().filter_map(latency).collect();
    let all: f64 = history.rates().iter().map(|(_, rate)| rate).sum();
    lines.extend(history.rates().iter().map(|(kind, rate)| {
        let share = 100.0 * rate / all.max(f64::MIN_POSITIVE);
        let text = format!(
            "{rate:>8.0}/s {share:>3.0} %  {:<5} {:<7} {}",
            shown(&kind.access),
            shown(&kind.target),
            shown(&kind.text)
        );
        let colour = match (kind.access.as_str(), kind.target.as_str()) {
            (_, "refused") => Color::Red,
            ("read", "primary") => Color::Yellow,
            _ => Color::Reset,
        };
        Line::from(text).style(paint(colour))
    }));
    if lines.is_empty() {
        lines.push(Line::from("no commands").style(dim()));
    }
    frame.render_widget(
        Paragraph::new(lines).block(Block::bordered().title(" commands, and why they go there ")),
        right,
    );
}

fn latency(latency: &Latency) -> Option<Line<'static>> {
    let (middle, late) = latency.p50_ms.zip(latency.p99_ms)?;
    let (access, target) = (shown(&latency.access), shown(&latency.target));
    Some(
        Line::from(format!("p50 {middle:>7.2} ms   p99 {late:>7.2} ms   {access}s by the {target}"))
            .style(dim()),
    )
}

fn findings(overview: &Overview) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    for finding in &overview.doctor.findings {
        let colour = match finding.severity.as_str() {
            "error" => Color::Red,
            "warning" => Color::Yellow,
            _ => Color::Reset,
        };
        let words =
            [&finding.severity, &finding.code, &finding.node, &finding.evidence].map(|word| shown(word));
        lines.push(Line::from(words.join("  ")).style(paint(colour)));
    }
    if lines.is_empty() {
        lines.push(Line::from("nothing is found").style(dim()));
    }
    lines
}

fn paint(colour: Color) -> Style {
    if may_colour() { Style::new().fg(colour) } else { Style::new() }
}

fn dim() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    fn drawn(width: u16, height: u16, problem: Option<&str>) -> String {
        let overview = r#"{"version": "0.2.0", "uptime_s": 7300, "clients": 3, "ready": {"reads": true, "writes": true,
            "text": "ready\nreads: yes\nwrites: yes\nprimary: a:1\n"}, "view": {"stream_source": "b:2", "nodes": [
            {"node": "a:1", "role": "primary", "answers": true, "in_service": true},
            {"node": "b:2\u001b[31m", "role": "replica", "answers": true, "link": "up", "lag_bytes": 17, "in_service": true}]}}"#;
        let overview = serde_json::from_str(overview).unwrap();
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| screen(frame, "c:3", &overview, &History::default(), problem)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let lines = buffer.content().chunks(usize::from(width).max(1));
        lines
            .map(|cells| cells.iter().map(ratatui::buffer::Cell::symbol).collect::<String>() + "\n")
            .collect()
    }

    #[test]
    fn the_screen_says_what_matters_at_any_size() {
        let page = drawn(120, 30, None);
        for text in
            ["up 2 h", "reads: yes   writes: yes   primary: a:1", "17 B", "nothing is found", "no reads"]
        {
            assert!(page.contains(text), "{text}:\n{page}");
        }
        assert!(!page.contains('\u{1b}'), "{page}");
        assert!(drawn(80, 24, Some("refused")).contains("NO ANSWER, what is shown is old: refused"));
        for (width, height) in [(1, 1), (10, 3), (40, 10), (300, 100)] {
            drawn(width, height, None);
        }
    }
}
